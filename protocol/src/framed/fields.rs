//! Takes the fields of a body one after another.
//!
//! Invariant: no field reaches beyond the body, and a body is at its end when its fields are read:
//! anything else is a bad frame.

use super::TEXT_LEN_MAX;
use crate::{CloseReason, MessageId, Name};

/// What is left of a frame's body.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    pub(super) fn new(body: &'a [u8]) -> Fields<'a> {
        Fields { rest: body }
    }

    #[inline(always)]
    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], CloseReason> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(CloseReason::BadFrame)?;
        self.rest = rest;
        Ok(*array)
    }

    #[inline(always)]
    pub(super) fn u8(&mut self) -> Result<u8, CloseReason> {
        self.array().map(u8::from_be_bytes)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, CloseReason> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline(always)]
    pub(super) fn u32(&mut self) -> Result<u32, CloseReason> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline(always)]
    pub(super) fn u64(&mut self) -> Result<u64, CloseReason> {
        self.array().map(u64::from_be_bytes)
    }

    #[inline]
    pub(super) fn id(&mut self) -> Result<MessageId, CloseReason> {
        self.array().map(MessageId::from_bytes)
    }

    #[inline]
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], CloseReason> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(CloseReason::BadFrame)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Bytes behind a one-byte length: a name that is the caller's to check.
    #[inline]
    pub(super) fn short_bytes(&mut self) -> Result<&'a [u8], CloseReason> {
        let len = self.u8()?;
        self.bytes(usize::from(len))
    }

    #[inline]
    pub(super) fn name(&mut self) -> Result<Name<'a>, CloseReason> {
        Name::parse(self.short_bytes()?).map_err(|_| CloseReason::BadName)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The rest of the body.
    #[inline]
    pub(super) fn tail(self) -> &'a [u8] {
        self.rest
    }

    /// The rest of the body, if it is not longer than this.
    #[inline]
    pub(super) fn tail_within(self, len_max: usize) -> Result<&'a [u8], CloseReason> {
        if self.rest.len() > len_max {
            return Err(CloseReason::FrameTooLarge);
        }
        Ok(self.rest)
    }

    /// The rest of the body as text for people.
    pub(super) fn text(self) -> Result<&'a str, CloseReason> {
        let text = self.tail_within(TEXT_LEN_MAX)?;
        str::from_utf8(text).map_err(|_| CloseReason::BadFrame)
    }

    /// The body must end here.
    #[inline]
    pub(super) fn end(self) -> Result<(), CloseReason> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(CloseReason::BadFrame)
        }
    }
}
