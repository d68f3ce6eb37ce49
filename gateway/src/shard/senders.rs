//! What each sender has on its way to the store, and whether it may have more.
//!
//! Owner: the reader's shard. One sender fills no more than a share of what all may have on its way together: it is slowed
//! down long before, and what it sends beyond the share is refused, while others' messages are taken.

use std::collections::HashMap;

use super::Shard;
use super::limits::{SENDER_REFUSED_PART, SENDER_SLOWED_PART};
use super::unacked::ReplyTo;

/// Bytes by sender, of those who have any.
#[derive(Default)]
pub(super) struct Senders(HashMap<ReplyTo, u64, ahash::RandomState>);

impl Senders {
    fn bytes_of(&self, sender: ReplyTo) -> u64 {
        self.0.get(&sender).copied().unwrap_or(0)
    }

    /// So much more of a sender is on its way.
    pub(super) fn add(&mut self, sender: ReplyTo, bytes: u64) {
        *self.0.entry(sender).or_default() += bytes;
    }

    /// So much less.
    pub(super) fn remove(&mut self, sender: ReplyTo, bytes: u64) {
        if let Some(has) = self.0.get_mut(&sender) {
            *has -= bytes;
            if *has == 0 {
                self.0.remove(&sender);
            }
        }
    }

    /// Whether nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Shard {
    /// Whether an append of so many bytes may be asked of the store for this sender; slows it down where it or all
    /// together have much on the way.
    pub(super) fn admits_append(&mut self, sender: ReplyTo, bytes: u64) -> bool {
        let max = self.limits.store_pending_bytes_max;
        let of_all = self.store_pending_bytes + bytes;
        let of_sender = self.senders.bytes_of(sender) + bytes;
        if of_all > max || of_sender > max / SENDER_REFUSED_PART {
            return false;
        }
        if of_all > max / 2 || of_sender > max / SENDER_SLOWED_PART {
            self.slow_down(sender);
        }
        true
    }
}
