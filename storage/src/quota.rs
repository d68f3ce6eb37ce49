//! How much an inbox, and all of them together, may hold.
//!
//! Plain data, and one sum that all databases of a store share. The committer holds every append against it, with
//! all that its batch did before: so the limits hold exactly. Invariant: the shared sum is never above
//! `store_bytes_max` by an append; it may start there when the limit was lowered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::inbox::Sum;
use crate::request::FailureKind;

/// What happens to an append to a full inbox, once the expired messages at its front have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It fails with [`FailureKind::InboxFull`] or [`FailureKind::StoreFull`].
    Refuse,
    /// The oldest messages of this inbox make room for it and are counted; it fails only if it alone is too large,
    /// or the other inboxes leave no room.
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
        overflow: Overflow::Refuse,
    };

    /// What is missing for one more record in an inbox that holds `live`; zero if it fits.
    pub(crate) fn lack(&self, live: Sum, record_len: u64) -> Sum {
        Sum {
            messages: (live.messages.saturating_add(1)).saturating_sub(self.inbox_messages_max),
            bytes: (live.bytes.saturating_add(record_len)).saturating_sub(self.inbox_bytes_max),
        }
    }
}

/// The limits, and the live bytes of all databases of a store with what their batches in the making will write.
#[derive(Clone, Default)]
pub(crate) struct Room {
    pub(crate) quotas: Quotas,
    held: Arc<AtomicU64>,
}

impl Room {
    pub(crate) fn new(quotas: Quotas) -> Room {
        Room {
            quotas,
            held: Arc::default(),
        }
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
