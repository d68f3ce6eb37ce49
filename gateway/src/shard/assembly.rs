//! Input while its memory is short: who may hold more than a share, who waits, and who is ended.
//!
//! Owner: the shard. More than half of the budget of input is taken: then a connection may hold an equal share of the other
//! half. Whoever holds more and waits for others is not received from; its kernel keeps the rest. A command longer than a
//! share needs more all the same, or it would never be whole: as many as a part of the budget has room for are received at
//! a time, and the others wait for their turn in the order in which they came. Nobody waits for ever: one whose command
//! is not whole in time, or that says nothing more, is ended, soon when nearly all of the budget is taken; and so is
//! whoever says more of a long command when all of it is. So a peer with many half commands ends its own connections and
//! nobody else's. What exceeds the budget is what one gathering of each core brings of those who wait for others.

use std::collections::VecDeque;

use iris_protocol::CloseReason;

use super::connection::{Connection, Pause};
use super::slots::Key;
use super::{Effect, Shard};

/// The part of the budget that is for commands longer than a share.
const LONG_PART: u64 = 4;
/// What such a command takes at most besides its payload.
const COMMAND_BYTES: u64 = 4 << 10;
/// Time such a command may take from the moment that its turn comes, milliseconds.
const ASSEMBLY_MS: u64 = 10_000;
/// Time in which a connection that holds more than a share must say something, milliseconds.
const SILENT_MS: u64 = 2_000;
/// The same while the whole budget is taken, and for those that wait as well: whoever says a long command in one go is
/// through with it by then.
const SILENT_WHEN_FULL_MS: u64 = 50;
/// Slots that are looked at for such connections at a time: all of a million would hold up a turn.
const LOOKED_FOR: u32 = 1024;

/// See the module's text.
#[derive(Default)]
pub(super) struct Assembly {
    /// They may hold more than a share, since when, milliseconds of the core's clock.
    granted: VecDeque<(u64, Key)>,
    /// They wait for that.
    waiting: VecDeque<Key>,
    /// Slot at which the next search begins for connections that hold more than a share.
    hand: u32,
    /// That search was made in this turn.
    searched: bool,
    /// Connections are being let go on: one that settles meanwhile leaves the next to that.
    is_granting: bool,
}

impl Shard {
    /// A connection holds more than before.
    pub(super) fn stay_in_budget(&mut self, id: Key) {
        if self.input.budget.is_short() {
            self.hold_in_budget(id);
        }
    }

    #[cold]
    fn hold_in_budget(&mut self, id: Key) {
        self.relieve_input();
        let share = self.input_share();
        let grants_max = self.grants_max();
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if !self.input.budget.is_short() || connection.unread_memory() <= share {
            return;
        }
        if connection.waits_for_others() {
            // No more is received of it.
            self.effects.connections.push(Effect::Pause(id));
        } else if self.input.budget.is_over() {
            self.close(id, CloseReason::Overloaded);
        } else if !connection.is_read() {
            self.effects.connections.push(Effect::Pause(id));
        } else if !connection.granted && self.assembly.granted.len() < grants_max {
            connection.granted = true;
            self.assembly.granted.push_back((self.now.core_ms, id));
        } else if !connection.granted {
            self.assembly.waiting.push_back(id);
            self.metrics.input_waits += 1;
            self.pause(id, Pause::INPUT);
        }
    }

    fn input_share(&self) -> u64 {
        self.input.budget.share(self.connections.len())
    }

    /// How many commands of this core may be longer than a share at a time.
    fn grants_max(&self) -> usize {
        let command = u64::from(self.limits.payload_bytes_max) + COMMAND_BYTES;
        let part = self.input.budget.max() / LONG_PART / u64::from(self.cores);
        (part / command).max(1) as usize
    }

    /// A connection holds less than before, or has come further: a command of it is through.
    pub(super) fn settle_in_budget(&mut self, id: Key, is_further: bool) {
        let is_any = !self.assembly.granted.is_empty();
        if is_any && self.connections.get(id).is_some_and(|one| one.granted) {
            self.look_at_grant(id, is_further);
        }
    }

    #[cold]
    fn look_at_grant(&mut self, id: Key, is_further: bool) {
        let share = self.input_share();
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.unread_memory() <= share {
            connection.granted = false;
            self.assembly.granted.retain(|(_, other)| *other != id);
            self.grant_next();
        } else if is_further {
            self.assembly.granted.retain(|(_, other)| *other != id);
            self.assembly.granted.push_back((self.now.core_ms, id));
        }
    }

    /// Has those go on that have waited longest, as far as they may.
    fn grant_next(&mut self) {
        if std::mem::replace(&mut self.assembly.is_granting, true) {
            return;
        }
        self.grant_all();
        self.assembly.is_granting = false;
    }

    fn grant_all(&mut self) {
        let grants_max = self.grants_max();
        while self.assembly.granted.len() < grants_max || !self.input.budget.is_short() {
            let Some(id) = self.assembly.waiting.pop_front() else {
                return;
            };
            if let Some(connection) = self.connections.get_mut(id)
                && connection.pause.has(Pause::INPUT)
            {
                connection.granted = true;
                connection.received_at_ms = self.now.core_ms;
                self.assembly.granted.push_back((self.now.core_ms, id));
                self.resume(id, Pause::INPUT);
            }
        }
    }

    /// Whether any connection waits until there is memory for its command: other cores may let go of some.
    pub fn waits_for_input(&self) -> bool {
        !self.assembly.waiting.is_empty()
    }

    /// Looks after input at the beginning of a turn.
    pub(super) fn look_after_input(&mut self) {
        self.assembly.searched = false;
        self.input.budget.look();
        if self.input.budget.is_short() {
            self.relieve_input();
            while let Some((since_ms, id)) = self.assembly.granted.front().copied()
                && since_ms + ASSEMBLY_MS <= self.now.core_ms
            {
                self.assembly.granted.pop_front();
                if self.connections.get(id).is_some_and(|one| one.is_held_up()) {
                    self.assembly.granted.push_back((self.now.core_ms, id));
                } else {
                    self.close(id, CloseReason::Overloaded);
                }
            }
        }
        if !self.assembly.waiting.is_empty() {
            self.grant_next();
        }
    }

    /// Frees input while its budget is short, once a turn: what the pool keeps, then what connections hold that hold
    /// more than their share and say no more, of some of them.
    fn relieve_input(&mut self) {
        if std::mem::replace(&mut self.assembly.searched, true) {
            return;
        }
        self.input.keep_none();
        let share = self.input_share();
        let (is_full, now_ms) = (self.input.budget.is_full(), self.now.core_ms);
        let goes = |connection: &Connection| {
            connection.unread_memory() > share
                && !connection.is_out_of_reach()
                && !connection.waits_for_others()
                && if is_full {
                    connection.received_at_ms + SILENT_WHEN_FULL_MS <= now_ms
                } else {
                    connection.is_read() && connection.received_at_ms + SILENT_MS <= now_ms
                }
        };
        let mut left = LOOKED_FOR;
        while self.input.budget.is_short() {
            let (found, looked) = self.connections.find_within(self.assembly.hand, left, goes);
            self.assembly.hand = self.assembly.hand.wrapping_add(looked);
            left -= looked;
            let Some(id) = found else {
                return;
            };
            self.close(id, CloseReason::Overloaded);
            self.input.budget.look();
        }
    }
}
