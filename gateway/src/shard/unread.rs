//! What a connection said that is not acted upon yet, and when a connection is not read.
//!
//! Owner: the shard. Invariants: unread bytes are counted as long as they are held, and stay in the shard's budget;
//! they are read in the order they came in, and an end of the peer only after them.

use std::collections::VecDeque;

use iris_protocol::CloseReason;

use super::connection::{Connection, Held, Pause};
use super::slots::Key;
use super::{Effect, Shard};

/// Input buffers kept for reuse, and the largest of them.
const POOLED_PARTIALS_MAX: usize = 256;
const POOLED_PARTIAL_BYTES_MAX: usize = 128 << 10;

/// Bytes held for a connection that is not read, above which the kernel keeps
/// the rest: its socket is not received from until the connection is read again. What
/// came in the same turn is held as well, no more than a turn gathers.
const HELD_BYTES_MAX: u64 = 64 << 10;
/// The same in pieces, each of which costs more than its bytes when it is small.
const HELD_SEGMENTS_MAX: usize = 64;

/// Untaken bytes that end a connection, in full outboxes. What one segment may
/// ask for before its connection is paused stays far below.
const OUTBOXES_UNTAKEN_MAX: u64 = 8;

impl Shard {
    /// Holds a segment of a connection that is not read. One that `goes_on` belongs to what arrived before it, and is
    /// appended to the newest piece of that while the piece is shorter than a turn's share.
    // Not inlined: what is received on a connection that is read, nearly always, does not save registers for it.
    #[inline(never)]
    pub(super) fn hold_segment(&mut self, id: Key, segment: &[u8], goes_on: bool) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let newest = match connection.held.back_mut() {
            Some(newest) => &mut newest.bytes,
            None => &mut connection.partial,
        };
        let has_room = !newest.is_empty() && newest.len() < self.limits.turn_bytes_max as usize;
        if goes_on && has_room {
            newest.extend_from_slice(segment);
        } else {
            connection.held.push_back(Held {
                bytes: segment.to_vec(),
                goes_on,
            });
        }
        if connection.held.len() > HELD_SEGMENTS_MAX || connection.unread_bytes() > HELD_BYTES_MAX {
            self.effects.connections.push(Effect::Pause(id));
        }
        self.hold(id, segment.len());
    }

    pub(super) fn put_partial(&mut self, mut partial: Vec<u8>) {
        partial.clear();
        if (1..=POOLED_PARTIAL_BYTES_MAX).contains(&partial.capacity())
            && self.partials.len() < POOLED_PARTIALS_MAX
        {
            self.partials.push(partial);
        }
    }

    /// Accounts for unread bytes. Over the shard's budget, connections go that hold
    /// more than their share of it, whoever asked: so a peer with many half frames
    /// ends its own connections and nobody else's.
    pub(super) fn hold(&mut self, id: Key, len: usize) {
        self.partial_bytes += len as u64;
        while self.partial_bytes > self.limits.partial_bytes_max {
            let share = self.limits.partial_bytes_max / self.connections.len().max(1) as u64;
            let is_hog = |connection: &Connection| {
                connection.unread_bytes() > share && !connection.is_out_of_reach()
            };
            // Somebody holds more than the share, or the sum would not be over the budget;
            // unless that one moves to another core just now.
            let hog = self
                .connections
                .find_from(self.hog_hand, is_hog)
                .unwrap_or(id);
            self.hog_hand = hog.index + 1;
            let before = self.partial_bytes;
            self.close(hog, CloseReason::Overloaded);
            if self.partial_bytes == before {
                return;
            }
        }
    }

    /// Forgets what a connection said and was not read.
    pub(super) fn drop_unread(&mut self, id: Key) {
        if let Some(connection) = self.connections.get_mut(id) {
            self.partial_bytes -= connection.unread_bytes();
            connection.held = VecDeque::new();
            let partial = std::mem::take(&mut connection.partial);
            self.put_partial(partial);
        }
    }

    /// Reads a connection again that was not read for `reason`.
    pub(super) fn resume(&mut self, id: Key, reason: Pause) {
        if let Some(connection) = self.connections.get_mut(id)
            && connection.pause == reason
        {
            connection.pause = Pause::No;
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
            if let Some(connection) = self.connections.get_mut(id) {
                // Not what waits for its rest, or a long frame would use up every share.
                connection.takes_turn(self.turn, consumed, self.limits.turn_bytes_max);
            }
            self.keep_rest(id, input, consumed);
        }
        while let Some(connection) = self.connections.get_mut(id)
            && connection.is_read()
        {
            let Some(len) = connection.held.front().map(|next| next.bytes.len()) else {
                // Whoever is idle again has no memory of its own.
                connection.held = VecDeque::new();
                match connection.peer_ended {
                    Some(reason) => self.close(id, reason),
                    None => self.effects.connections.push(Effect::Resume(id)),
                }
                return;
            };
            if !connection.takes_turn(self.turn, len, self.limits.turn_bytes_max) {
                self.wait_for_turn(id);
                return;
            }
            let Some(next) = connection.held.pop_front() else {
                return;
            };
            let cut = connection.goes_on();
            self.partial_bytes -= next.bytes.len() as u64;
            self.read(id, &next.bytes, cut);
        }
    }

    /// Stops reading a connection that has had its share of this turn. Its socket is still
    /// received from, as far as that may be held.
    pub(super) fn wait_for_turn(&mut self, id: Key) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.pause = Pause::Turn;
            self.waiting_for_turn.push_back(id);
            self.metrics.turn_waits += 1;
        }
    }

    /// What is received from now on belongs to the next turn.
    pub fn begin_turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    /// Reads one more share of the connection that has waited longest since it had one;
    /// false if none waits.
    pub fn read_waiting(&mut self) -> bool {
        let Some(id) = self.waiting_for_turn.pop_front() else {
            return false;
        };
        if let Some(connection) = self.connections.get_mut(id) {
            connection.turn_steps = 0;
            self.resume(id, Pause::Turn);
        }
        true
    }

    /// Whether any connection waits for its next turn.
    pub fn has_waiting(&self) -> bool {
        !self.waiting_for_turn.is_empty()
    }

    /// Stops reading a connection.
    pub(super) fn pause(&mut self, id: Key, reason: Pause) {
        if let Some(connection) = self.connections.get_mut(id)
            && connection.pause == Pause::No
        {
            connection.pause = reason;
            self.effects.connections.push(Effect::Pause(id));
        }
    }

    /// Stops reading a connection that does not take what it asked for; ends it
    /// when what it asked for once comes of itself, such as changes of users it
    /// follows, and it takes none of that for long.
    pub(super) fn pause_if_flooded(&mut self, id: Key) {
        let unsent = self
            .connections
            .get(id)
            .and_then(|connection| connection.outbox.as_ref())
            .map_or(0, |outbox| outbox.unsent_bytes());
        if unsent > OUTBOXES_UNTAKEN_MAX * self.limits.outbox_bytes_max {
            self.close(id, CloseReason::SlowReader);
        } else if unsent > 2 * self.limits.outbox_bytes_max {
            self.pause(id, Pause::Outbox);
        }
    }
}
