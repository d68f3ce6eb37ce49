//! How much an inbox, all of them together, and one sender in them, may hold.
//!
//! Plain data, and one sum that all databases of a store share. The committer holds every append against it, with
//! all that its batch did before: so the limits hold exactly. Invariant: the shared sum is never above
//! `store_bytes_max` by an append; it may start there when the limit was lowered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::inbox::Sum;
use crate::request::FailureKind;
use crate::shares::Share;

/// From what part on the senders of an inbox, or of the store, are counted: the fourth of the limit. Below it a
/// share of a quarter or more cannot be exceeded, and counting costs nothing.
const CROWDED_PART: u64 = 4;

/// What happens to an append to a full inbox, once the expired messages at its front have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It fails with [`FailureKind::InboxFull`] or [`FailureKind::StoreFull`].
    Refuse,
    /// The oldest messages of this inbox make room for it and are counted; it fails if it alone is too large, if the other
    /// inboxes leave no room, or if the oldest is of a sender who holds less of the inbox than its own, which has more than an
    /// equal part.
    DropOldest,
}

/// Limits of what is stored: messages that are neither burned nor passed over as expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Messages in one inbox.
    pub inbox_messages_max: u64,
    /// Bytes of the records in one inbox.
    pub inbox_bytes_max: u64,
    /// Bytes of all records in the data folder.
    pub store_bytes_max: u64,
    /// What one sender may hold of an inbox while nobody else holds any, in percent: with 50, as much as is free in it. 100:
    /// all of it. It is not for [`Overflow::DropOldest`], where room is made.
    pub sender_inbox_percent: u8,
    /// What one sender may hold of the data folder while nobody else holds any, in percent.
    pub sender_store_percent: u8,
    /// What gives way.
    pub overflow: Overflow,
}

impl Default for Quotas {
    fn default() -> Quotas {
        Quotas::DEFAULT
    }
}

impl Quotas {
    /// The defaults.
    pub const DEFAULT: Quotas = Quotas {
        // A reader that comes back drains as many in about a second.
        inbox_messages_max: 1_000_000,
        // One user must not fill the disk of all.
        inbox_bytes_max: 1 << 30,
        // Room on disks of today, and still copied within minutes.
        store_bytes_max: 100 << 30,
        // As much as is free: with n senders, room for one more of the same size is left.
        sender_inbox_percent: 50,
        sender_store_percent: 50,
        overflow: Overflow::Refuse,
    };

    /// What is missing for one more record in an inbox that holds `live`; zero if it fits.
    pub(crate) fn lack(&self, live: Sum, record_len: u64) -> Sum {
        Sum {
            messages: (live.messages.saturating_add(1)).saturating_sub(self.inbox_messages_max),
            bytes: (live.bytes.saturating_add(record_len)).saturating_sub(self.inbox_bytes_max),
        }
    }

    /// Whether the senders of an inbox that holds `live` are to be counted.
    pub(crate) fn is_crowded(&self, live: Sum) -> bool {
        !self.inbox_share().is_all()
            && (live.messages > self.inbox_messages_max / CROWDED_PART
                || live.bytes > self.inbox_bytes_max / CROWDED_PART)
    }

    /// What one inbox may hold.
    pub(crate) fn of_inbox(&self) -> Sum {
        Sum {
            messages: self.inbox_messages_max,
            bytes: self.inbox_bytes_max,
        }
    }

    /// What is free in an inbox that holds `live`.
    pub(crate) fn free(&self, live: Sum) -> Sum {
        Sum {
            messages: self.inbox_messages_max.saturating_sub(live.messages),
            bytes: self.inbox_bytes_max.saturating_sub(live.bytes),
        }
    }

    pub(crate) fn inbox_share(&self) -> Share {
        Share::of_percent(self.sender_inbox_percent)
    }

    fn store_share(&self) -> Share {
        Share::of_percent(self.sender_store_percent)
    }
}

/// The limits, and the live bytes of all databases of a store with what their batches in the making will write.
#[derive(Clone)]
pub(crate) struct Room {
    pub(crate) quotas: Quotas,
    held: Arc<AtomicU64>,
    databases: u64,
}

impl Room {
    pub(crate) fn new(quotas: Quotas, databases: usize) -> Room {
        Room {
            quotas,
            held: Arc::default(),
            databases: databases.max(1) as u64,
        }
    }

    /// Whether the senders of the store are to be counted.
    pub(crate) fn is_crowded(&self) -> bool {
        !self.quotas.store_share().is_all()
            && self.held.load(Ordering::Relaxed) > self.quotas.store_bytes_max / CROWDED_PART
    }

    /// What a sender who holds so much of one database would have to give back for so much more. Each database looks after
    /// its part of what is free, so that they need not ask each other.
    pub(crate) fn share_lack(&self, held: u64, more: u64) -> u64 {
        let stored = self.held.load(Ordering::Relaxed);
        let free = self.quotas.store_bytes_max.saturating_sub(stored);
        (self.quotas.store_share()).lack(held, more, free / self.databases)
    }

    /// Bytes that are missing in the store for so many more; zero if they fit.
    pub(crate) fn lack(&self, bytes: u64) -> u64 {
        (self.held.load(Ordering::Relaxed).saturating_add(bytes))
            .saturating_sub(self.quotas.store_bytes_max)
    }

    /// Takes room in the store for so many bytes.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), FailureKind> {
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(bytes)
                    .filter(|after| *after <= self.quotas.store_bytes_max)
            })
            .map(drop)
            .map_err(|_| FailureKind::StoreFull)
    }

    /// Counts what a database holds when it is opened, whatever the limit.
    pub(crate) fn add(&self, bytes: u64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives room back.
    pub(crate) fn release(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}
