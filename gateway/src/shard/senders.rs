//! Room at the store: what each sender has on its way there, and who waits until there is room for more.
//!
//! Owner: the reader's shard, for senders of all cores. Whoever has nothing on its way is given more room than those who
//! have, so one that sends much to users who are away does not make others wait for the store. A sender without room
//! is not read until there is some, and its kernel keeps what it says; nothing is dropped. Invariant: while anybody is
//! held up something is on its way to the store, whose reply lets go of those that have waited longest.

use std::collections::{HashMap, VecDeque};

use super::Shard;
use super::connection::Pause;
use super::envelope::{self, Envelope};
use super::limits::{ALL_SENDERS_PART, BUSY_SENDERS_PART, SENDER_PART};
use super::slots::Key;
use super::unacked::ReplyTo;

/// Senders at the front of those that are held up which may still have too much on their way: so many are passed over
/// for each append that is done.
const PASSED_OVER_MAX: usize = 4;

/// A sender that has something on its way to the store, or waits for room.
#[derive(Default)]
struct Sender {
    bytes: u64,
    is_held: bool,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Senders {
    by_user: HashMap<ReplyTo, Sender, ahash::RandomState>,
    /// Those that are held up, in the order in which they have been.
    held: VecDeque<ReplyTo>,
}

impl Senders {
    fn bytes_of(&self, sender: ReplyTo) -> u64 {
        self.by_user.get(&sender).map_or(0, |sender| sender.bytes)
    }

    /// So much more of a sender is on its way.
    pub(super) fn add(&mut self, sender: ReplyTo, bytes: u64) {
        self.by_user.entry(sender).or_default().bytes += bytes;
    }

    /// So much less.
    pub(super) fn remove(&mut self, sender: ReplyTo, bytes: u64) {
        if let Some(has) = self.by_user.get_mut(&sender) {
            has.bytes -= bytes;
            self.forget_if_idle(sender);
        }
    }

    fn forget_if_idle(&mut self, sender: ReplyTo) {
        if let Some(has) = self.by_user.get(&sender)
            && has.bytes == 0
            && !has.is_held
        {
            self.by_user.remove(&sender);
        }
    }

    /// Whether nothing is on its way, and nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.by_user.is_empty()
    }
}

impl Shard {
    /// Whether one more message of this sender has room at the store, however long it is.
    fn has_store_room(&self, sender: ReplyTo) -> bool {
        let max = self.limits.store_pending_bytes_max;
        match self.senders.bytes_of(sender) {
            0 => self.store_pending_bytes < max / ALL_SENDERS_PART,
            bytes => {
                self.store_pending_bytes < max / BUSY_SENDERS_PART && bytes < max / SENDER_PART
            }
        }
    }

    /// Whether a message of a sender of this core, whose reader is at home here and away or slow, has to wait for room at the
    /// store. If so, its sender is held up.
    #[cold]
    pub(super) fn waits_for_store(&mut self, sender: ReplyTo) -> bool {
        let waits = !self.has_store_room(sender);
        if waits {
            self.hold_up(sender);
        }
        waits
    }

    /// Whether so much is on its way to the store that a sender may be without room there.
    #[inline(always)]
    pub(super) fn is_store_busy(&self) -> bool {
        self.store_pending_bytes >= self.limits.store_pending_bytes_max / SENDER_PART
    }

    /// Whether envelopes of other cores are taken: what they carry cannot wait here, so they wait where they are while the
    /// store has all that it may have.
    pub fn takes_lanes(&self) -> bool {
        self.store_pending_bytes < self.limits.store_pending_bytes_max
    }

    /// A message of this sender is on its way to the store; another core's sender that has no room for the next one is held up.
    pub(super) fn count_append(&mut self, sender: ReplyTo, bytes: u64) {
        self.senders.add(sender, bytes);
        if sender.core != self.core && self.is_store_busy() && !self.has_store_room(sender) {
            self.hold_up(sender);
        }
    }

    fn hold_up(&mut self, sender: ReplyTo) {
        let entry = self.senders.by_user.entry(sender).or_default();
        if std::mem::replace(&mut entry.is_held, true) {
            return;
        }
        self.senders.held.push_back(sender);
        self.metrics.senders_held_up += 1;
        self.tell_sender(sender, true);
    }

    /// Appends are done: once half of the room for busy senders is free, those are let go that have waited longest, as far as
    /// that half is. Sooner they would be held up again for each message.
    pub(super) fn let_go_of_senders(&mut self) {
        let max = self.limits.store_pending_bytes_max;
        let mut passed_over = 0;
        // What those of other cores will send, before it comes. With nothing on its way no later append would let anyone go.
        let mut promised = 0;
        while (self.store_pending_bytes == 0
            || self.store_pending_bytes + promised < max / BUSY_SENDERS_PART / 2)
            && let Some(sender) = self.senders.held.pop_front()
        {
            if self.senders.bytes_of(sender) >= max / SENDER_PART / 2 {
                self.senders.held.push_back(sender);
                passed_over += 1;
                if passed_over >= PASSED_OVER_MAX.min(self.senders.held.len()) {
                    return;
                }
                continue;
            }
            if let Some(entry) = self.senders.by_user.get_mut(&sender) {
                entry.is_held = false;
            }
            self.senders.forget_if_idle(sender);
            if sender.core != self.core {
                promised += max / SENDER_PART / 2;
            }
            self.tell_sender(sender, false);
        }
    }

    fn tell_sender(&mut self, sender: ReplyTo, held: bool) {
        let user = sender.user;
        if sender.core == self.core {
            self.sender_told(user, held);
        } else {
            let batch = &mut self.lanes[usize::from(sender.core)].batch;
            envelope::push(batch, &Envelope::Room { user, held });
        }
    }

    /// A user of this core is held up, or let go again, by the core that is home to readers of its messages.
    pub(super) fn sender_told(&mut self, user_key: Key, held: bool) {
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        if held {
            user.held_by += 1;
        } else {
            user.held_by = user.held_by.saturating_sub(1);
        }
        let (session, is_held) = (user.session, user.held_by > 0);
        if is_held {
            self.pause(session, Pause::STORE);
        } else {
            self.resume(session, Pause::STORE);
            self.forget_if_done(user_key);
        }
    }
}
