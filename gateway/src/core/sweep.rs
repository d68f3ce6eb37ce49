//! Looking at sockets: an end that no operation tells is found all the same.
//!
//! Owner: the core's thread. A receive does not tell every end (see [`Ring::poll`](iris_ring::Ring::poll)). So a socket
//! that has received much is looked at when the turn ends, and each of the others once in a while. What has ended
//! receives anew, which tells why. A connection that lives on although its socket has ended is a fault of ours: it is
//! counted and closed. Invariant: a session without a socket lasts no longer than two looks.

use std::io;

use iris_protocol::CloseReason;
use rustix::io::Errno;

use super::driver::Core;
use super::sockets::{Fate, Receive, Socket};
use crate::shard::Key;

/// Receives after which a socket is looked at: the kernel takes as many in one go.
const RECEIVES: u8 = 32;
/// Time between two rounds, and between two looks at a socket that had ended.
const ROUND_MS: u64 = 1_000;
/// Sockets looked at in a round: that many, or such a part of all if that is more. A look is a microsecond; a million
/// connections cost a third of a percent of a cpu, and are through in five minutes.
const SOCKETS_MIN: usize = 1_000;
const ROUNDS_MAX: usize = 300;

/// What is looked at next.
#[derive(Default)]
pub(super) struct Sweep {
    /// They have received much since they were looked at.
    busy: Vec<Key>,
    /// They had ended at the last look.
    ended: Vec<Key>,
    /// Where the next round begins.
    place: usize,
    /// When that is, milliseconds of the core's clock.
    round_at_ms: u64,
}

impl Sweep {
    /// Counts a receive.
    pub(super) fn received(&mut self, key: Key, socket: &mut Socket) {
        socket.receives = socket.receives.saturating_add(1);
        // There is more to read before the end.
        socket.found_ended = false;
        if socket.receives == RECEIVES {
            self.busy.push(key);
        }
    }

    /// When the next round is due.
    pub(super) fn due_ms(&self) -> u64 {
        self.round_at_ms
    }
}

impl Core {
    /// Looks at the sockets that are due; at the end of a turn.
    pub(super) fn sweep(&mut self) {
        let mut busy = std::mem::take(&mut self.sweep.busy);
        for key in busy.drain(..) {
            self.look_at(key);
        }
        self.sweep.busy = busy;
        if self.now_ms < self.sweep.round_at_ms {
            return;
        }
        self.sweep.round_at_ms = self.now_ms + ROUND_MS;
        for key in std::mem::take(&mut self.sweep.ended) {
            self.look_at(key);
        }
        let places = self.sockets.places();
        for _ in 0..(places / ROUNDS_MAX).max(SOCKETS_MIN).min(places) {
            self.sweep.place = (self.sweep.place + 1) % places;
            if let Some(key) = self.sockets.key_at(self.sweep.place) {
                self.look_at(key);
            }
        }
    }

    fn look_at(&mut self, key: Key) {
        if let Some(socket) = self.sockets.get_mut(key)
            && socket.fate == Fate::Stays
            && !socket.polling
        {
            socket.polling = true;
            socket.receives = 0;
            let ring = &mut self.segments.all[usize::from(socket.segment)].ring;
            ring.poll(socket.slot, key.token());
        }
    }

    /// The kernel said whether a socket has ended.
    pub(super) fn polled(&mut self, key: Key, result: io::Result<bool>) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        socket.polling = false;
        let cancelled = Some(Errno::CANCELED.raw_os_error());
        match result {
            Ok(false) => {
                socket.found_ended = false;
                if socket.receives >= RECEIVES {
                    // They came after it was asked.
                    self.sweep.busy.push(key);
                }
            }
            Err(error) if error.raw_os_error() == cancelled => {}
            // Once it is known, whoever reads the rest of what the peer said ends the connection.
            Ok(true) if socket.receive == Receive::Over => {}
            Ok(true) if socket.fate == Fate::Stays && !socket.found_ended => {
                socket.found_ended = true;
                self.shard.metrics.ends_found += 1;
                self.sweep.ended.push(key);
                if socket.paused {
                    // Nothing is received that could tell.
                    socket.broken = true;
                    self.shard.send_failed(key, CloseReason::PeerReset);
                } else {
                    self.receive_anew(key);
                }
            }
            Ok(true) if socket.fate == Fate::Stays && !socket.paused => self.is_gone(key),
            Ok(true) => {}
            Err(_) => self.is_gone(key),
        }
        self.perform();
        self.proceed(key);
    }

    /// A connection has no socket, and nothing told so.
    pub(super) fn is_gone(&mut self, key: Key) {
        self.shard.metrics.socket_faults += 1;
        tracing::error!(
            core = self.index,
            user = self.shard.user_name(key).as_deref(),
            "a connection had no socket any more, and no operation had told: it is closed"
        );
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.broken = true;
            socket.cut = true;
        }
        self.receive_anew(key);
        self.shard.socket_gone(key);
    }
}
