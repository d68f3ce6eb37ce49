//! The answers in an ANSWERS frame: checked once as a whole, then read one by one without failing.
//!
//! Invariant: the bytes of an [`Answers`] are a whole number of entries, at least one, and every
//! entry's outcome means something.

use std::fmt;

use crate::{CloseReason, MessageId, Outcome};

/// What became of one send.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Answer {
    /// The sender's own number, as it was in the SEND.
    pub sequence: u64,
    /// The message's id, the same for every try with this number.
    pub id: MessageId,
    /// What became of it.
    pub outcome: Outcome,
}

impl Answer {
    /// Length on the wire in bytes.
    pub const LEN: usize = 8 + MessageId::LEN + 2;

    /// The answer as it is on the wire.
    #[inline]
    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..24].copy_from_slice(&self.id.to_bytes());
        bytes[24..].copy_from_slice(&self.outcome.to_bytes());
        bytes
    }

    /// Reads one entry; `None` if its outcome means nothing.
    #[inline]
    fn from_bytes(bytes: &[u8; Self::LEN]) -> Option<Answer> {
        let (sequence, rest) = bytes.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        Some(Answer {
            sequence: u64::from_be_bytes(*sequence),
            id: MessageId::from_bytes(*id),
            outcome: Outcome::from_bytes(*rest.first_chunk()?)?,
        })
    }
}

/// One or more answers, borrowed from an ANSWERS frame; an iterator over [`Answer`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Answers<'a> {
    entries: &'a [[u8; Answer::LEN]],
}

impl<'a> Answers<'a> {
    /// Checks the fields of an ANSWERS frame.
    pub(super) fn parse(fields: &'a [u8]) -> Result<Answers<'a>, CloseReason> {
        let (entries, rest) = fields.as_chunks();
        let sound = !entries.is_empty()
            && rest.is_empty()
            && entries
                .iter()
                .all(|entry| Answer::from_bytes(entry).is_some());
        if sound {
            Ok(Answers { entries })
        } else {
            Err(CloseReason::BadFrame)
        }
    }
}

impl Iterator for Answers<'_> {
    type Item = Answer;

    #[inline]
    fn next(&mut self) -> Option<Answer> {
        let (first, rest) = self.entries.split_first()?;
        self.entries = rest;
        Answer::from_bytes(first)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.entries.len(), Some(self.entries.len()))
    }
}

impl ExactSizeIterator for Answers<'_> {}

impl fmt::Debug for Answers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}
