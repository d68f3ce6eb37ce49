//! What a connection said that is not acted upon yet, and when a connection is not read.
//!
//! Owner: the shard. Invariants: the memory of unread bytes is counted as long as it is held, and stays in the budget
//! of the process; they are read in the order they came in, and an end of the peer only after them.

use std::collections::VecDeque;

use iris_protocol::CloseReason;

use super::connection::{Held, Pause};
use super::slots::Key;
use super::{Effect, Shard};

/// Memory held for a connection that is not read, above which the kernel keeps
/// the rest: its socket is not received from until the connection is read again. What
/// came in the same turn is held as well, no more than a turn gathers.
const HELD_BYTES_MAX: u64 = 64 << 10;
/// The same in pieces, each of which costs more than its bytes when it is small.
const HELD_SEGMENTS_MAX: usize = 64;
/// What a held piece costs besides its buffer: its place in the queue, which has four at least and is up to twice as
/// long as what stands in it.
pub(super) const HELD_PIECE_BYTES: u64 = 128;
const _: () = assert!(4 * size_of::<Held>() as u64 <= HELD_PIECE_BYTES);

/// Length of a held piece from which on what belongs to it begins the next one.
const PIECE_BYTES_MAX: usize = 2 << 10;
/// Length of a command above which it is a large one when a small receive cuts it: with several such messages in flight
/// nearly every receive cuts one, and what is cut is copied twice.
const LARGE_COMMAND_BYTES: usize = 512;

/// Untaken bytes that end a connection, in full outboxes. What one segment may
/// ask for before its connection is paused stays far below.
const OUTBOXES_UNTAKEN_MAX: u64 = 8;

impl Shard {
    /// Holds a segment of a connection that is not read. One that `goes_on` belongs to what arrived before it, and is
    /// appended to the newest piece of that while the piece is shorter than a turn's share.
    // Not inlined: what is received on a connection that is read, nearly always, does not save registers for it.
    #[inline(never)]
    pub(super) fn hold_segment(&mut self, id: Key, segment: &[u8], goes_on: bool) {
        if self.is_looked_through(id) {
            self.look_through_segment(id, segment);
            return;
        }
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let whole = connection.command_len();
        let (newest, whole) = match connection.held.back_mut() {
            Some(newest) => (&mut newest.bytes, None),
            None => (&mut connection.partial, whole),
        };
        let has_room = !newest.is_empty() && newest.len() < PIECE_BYTES_MAX;
        if goes_on && has_room {
            self.input.append(newest, segment, whole);
        } else {
            let bytes = self.input.of(segment);
            self.input.budget.charge(HELD_PIECE_BYTES);
            connection.held.push_back(Held { bytes, goes_on });
        }
        if connection.held.len() > HELD_SEGMENTS_MAX || connection.unread_memory() > HELD_BYTES_MAX
        {
            self.effects.connections.push(Effect::Pause(id));
        }
        self.stay_in_budget(id);
    }

    /// Whether a connection is in the middle of a command that is longer than a small receive.
    pub fn is_amid_large_command(&self, id: Key) -> bool {
        self.connections.get(id).is_some_and(|connection| {
            let len = connection.command_len();
            len.is_some_and(|len| len > LARGE_COMMAND_BYTES)
        })
    }

    /// Forgets what a connection said and was not read.
    pub(super) fn drop_unread(&mut self, id: Key) {
        if let Some(connection) = self.connections.get_mut(id) {
            let partial = std::mem::take(&mut connection.partial);
            self.metrics.unread_dropped += partial.len() as u64;
            self.input.put(partial);
            for held in std::mem::take(&mut connection.held) {
                self.metrics.unread_dropped += held.bytes.len() as u64;
                self.let_go(held);
            }
            self.settle_in_budget(id, false);
        }
    }

    pub(super) fn let_go(&mut self, held: Held) {
        self.input.budget.release(HELD_PIECE_BYTES);
        self.input.put(held.bytes);
    }

    /// A connection is not left unread for `reason` any more.
    pub(super) fn resume(&mut self, id: Key, reason: Pause) {
        if let Some(connection) = self.connections.get_mut(id)
            && connection.pause.has(reason)
        {
            connection.pause = connection.pause.without(reason);
            if connection.had_user && reason != Pause::TURN {
                // It could not be heard meanwhile.
                connection.received_at_ms = self.now.core_ms;
            }
            self.read_unread(id);
        }
    }

    /// Reads what was held while the connection was not read.
    pub(super) fn read_unread(&mut self, id: Key) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if !connection.is_read() || connection.reading {
            return;
        }
        if !connection.partial.is_empty() {
            let cut = connection.goes_on();
            let input = std::mem::take(&mut connection.partial);
            let consumed = self.consume(id, &input, cut);
            self.keep_rest(id, input, consumed);
        }
        while let Some(connection) = self.connections.get_mut(id)
            && connection.is_read()
        {
            if connection.held.is_empty() {
                // Whoever is idle again has no memory of its own.
                connection.held = VecDeque::new();
                self.settle_in_budget(id, false);
                let Some(connection) = self.connections.get_mut(id) else {
                    return;
                };
                match connection.peer_ended {
                    Some(reason) => self.close(id, reason),
                    None => self.effects.connections.push(Effect::Resume(id)),
                }
                return;
            }
            if !connection.has_share(self.turn, self.limits.share_steps) {
                self.wait_for_turn(id);
                return;
            }
            let Some(next) = connection.held.pop_front() else {
                return;
            };
            let cut = connection.goes_on();
            self.read(id, &next.bytes, cut);
            self.let_go(next);
        }
    }

    /// Stops reading a connection that has had its share of this turn. Its socket is still
    /// received from, as far as that may be held.
    pub(super) fn wait_for_turn(&mut self, id: Key) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.pause = connection.pause.with(Pause::TURN);
            self.waiting_for_turn.push_back(id);
            self.metrics.turn_waits += 1;
        }
    }

    /// What is received from now on belongs to the next turn.
    pub fn begin_turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        self.steps = 0;
        self.pool.budget.look();
        if self.pool.budget.is_short() {
            self.pool.keep_none();
        }
        self.look_after_input();
    }

    /// Gives one more share to the connection that has waited longest since it had one; false if
    /// none waits.
    pub fn read_waiting(&mut self) -> bool {
        let Some(id) = self.waiting_for_turn.pop_front() else {
            return false;
        };
        let share = self.limits.share_steps;
        if let Some(connection) = self.connections.get_mut(id)
            && connection.pause.has(Pause::TURN)
        {
            connection.turn = self.turn;
            connection.spent = connection.spent.saturating_sub(share);
            if connection.spent < share {
                self.resume(id, Pause::TURN);
            } else {
                // What it took at once was more than a share.
                self.waiting_for_turn.push_back(id);
            }
        }
        true
    }

    /// Steps that were taken in this turn.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Whether any connection waits for its next turn.
    pub fn has_waiting(&self) -> bool {
        !self.waiting_for_turn.is_empty()
    }

    /// Leaves a connection unread, for this reason as well.
    pub(super) fn pause(&mut self, id: Key, reason: Pause) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.pause.has(reason)
        {
            // Who waits for its turn is received from; whoever waits for longer is not, unless it is looked through.
            let is_received = connection.pause.without(Pause::TURN) == Pause::NO;
            connection.pause = connection.pause.with(reason);
            if (is_received || reason == Pause::OUTBOX) && !self.is_looked_through(id) {
                self.effects.connections.push(Effect::Pause(id));
            }
        }
    }

    /// Stops reading a connection that does not take what it asked for; ends it when much more comes, such as answers
    /// to what it sent before.
    pub(super) fn pause_if_flooded(&mut self, id: Key) {
        let unsent = self
            .connections
            .get(id)
            .and_then(|connection| connection.outbox.as_ref())
            .map_or(0, |outbox| outbox.unsent_bytes());
        let (share, is_short) = self.outbox_bytes_max();
        if unsent > OUTBOXES_UNTAKEN_MAX * self.limits.outbox_bytes_max {
            self.close(id, CloseReason::SlowReader);
        } else if is_short && unsent > share {
            self.metrics.output_pauses += 1;
            self.pause(id, Pause::OUTBOX);
        } else if unsent > 2 * self.limits.outbox_bytes_max {
            self.pause(id, Pause::OUTBOX);
        }
    }
}
