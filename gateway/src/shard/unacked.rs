//! A delivered message that its reader has not acknowledged, and what it needs to
//! find its way back into the inbox.
//!
//! Owner: the outbox of its reader's connection.

use iris_protocol::RefusalReason;

use super::ids::Origin;
use super::slots::Key;

/// Whom to tell what became of a message: the sender's home and its user there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReplyTo {
    /// Core that is home to the sender.
    pub core: u16,
    /// The sender in that core's table of users.
    pub user: Key,
}

/// What a message needs besides its bytes to return to an inbox.
#[derive(Clone, Copy, Debug)]
pub struct Passport {
    /// Which message it is; a repeat has the same.
    pub origin: Origin,
    /// Unix time of sending, milliseconds.
    pub sent_at_ms: u64,
    /// Unix time after which it is not delivered any more; 0 is never.
    pub expires_at_ms: u64,
    /// Who waits for the outcome; `None` once it was told, and for messages of
    /// senders that know no answers.
    pub reply: Option<ReplyTo>,
}

/// Where a delivered message stands in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// Nowhere: it lives in this outbox only.
    No,
    /// An append is under way under this request number.
    Appending(u32),
    /// It has this sequence in the reader's inbox.
    At(u64),
    /// Nowhere, for this reason: its time to live was over, or the store did not
    /// take it and has taken newer ones since. It cannot return to the inbox
    /// without breaking the order.
    Failed(RefusalReason),
}

/// A message that was put into the outbox and is not acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Unacked {
    /// Where it stands in the store.
    pub stored: Stored,
    /// The rest of what it is.
    pub passport: Passport,
}

/// An [`Unacked`] as it is kept: one cache line, because every delivery writes one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Entry {
    pub(super) end: u64,
    pub(super) origin: Origin,
    pub(super) expires_at_ms: u64,
    /// See [`Stored::pack`].
    pub(super) stored: u64,
    pub(super) reply_user: Key,
    pub(super) payload_len: u32,
    /// Milliseconds of the core's clock, which wrap after 49 days; only ages of
    /// seconds are taken from it.
    pub(super) pushed_at_ms: u32,
    pub(super) reply_core: u16,
    pub(super) sent_at_ms: Ms48,
}

const _: () = assert!(size_of::<Entry>() == 64);

/// Unix time in milliseconds up to the year 10889, in 6 bytes.
#[derive(Clone, Copy)]
pub(super) struct Ms48([u16; 3]);

impl Ms48 {
    pub(super) fn of(ms: u64) -> Ms48 {
        Ms48([ms as u16, (ms >> 16) as u16, (ms >> 32) as u16])
    }

    fn ms(self) -> u64 {
        let [low, middle, high] = self.0.map(u64::from);
        low | middle << 16 | high << 32
    }
}

/// No core has this number.
pub(super) const NO_REPLY: u16 = u16::MAX;

impl Stored {
    /// From here up: the code of the reason.
    const FAILED: u64 = u64::MAX - 0xff;
    const APPENDING: u64 = 1 << 63;

    /// Zero is no sequence, and none comes near the top bit.
    pub(super) fn pack(self) -> u64 {
        match self {
            Stored::No => 0,
            Stored::At(sequence) => sequence,
            Stored::Appending(token) => Self::APPENDING | u64::from(token),
            Stored::Failed(reason) => Self::FAILED | u64::from(reason.code()),
        }
    }

    fn unpack(packed: u64) -> Stored {
        match packed {
            0 => Stored::No,
            failed if failed >= Self::FAILED => Stored::Failed(
                RefusalReason::from_code(failed as u8).expect("packed above, from a reason"),
            ),
            token if token & Self::APPENDING != 0 => Stored::Appending(token as u32),
            sequence => Stored::At(sequence),
        }
    }
}

impl Entry {
    pub(super) fn view(&self) -> Unacked {
        Unacked {
            stored: Stored::unpack(self.stored),
            passport: Passport {
                origin: self.origin,
                sent_at_ms: self.sent_at_ms.ms(),
                expires_at_ms: self.expires_at_ms,
                reply: self.reply(),
            },
        }
    }

    pub(super) fn reply(&self) -> Option<ReplyTo> {
        self.is_awaited().then_some(ReplyTo {
            core: self.reply_core,
            user: self.reply_user,
        })
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.reply_core != NO_REPLY
    }

    pub(super) fn starts_payload_at(&self) -> u64 {
        self.end - u64::from(self.payload_len)
    }
}
