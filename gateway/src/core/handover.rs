//! Moving a socket to the home core of its user.
//!
//! Owner: the core that gives the socket away. The order is what keeps every
//! byte: receiving ends and what it still brings goes to the shard; what is in
//! flight is sent; the socket is put into the other core's table; only then does
//! the login follow over the lane, and the slot here is closed.

use std::io;
use std::os::fd::RawFd;

use iris_protocol::CloseReason;

use super::driver::Core;
use super::sockets::{Fate, Receive};
use crate::shard::Key;

impl Core {
    /// Starts the move once the socket is quiet.
    pub(super) fn proceed_move(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let Fate::Moves(core) = socket.fate else {
            return;
        };
        let receiving = matches!(socket.receive, Receive::Armed | Receive::Ending);
        let asking = socket.probing || socket.polling;
        // Where a send has failed nothing more goes out; what was said before that is read at home.
        let flushed = socket.broken || self.shard.is_flushed(key);
        if receiving || socket.sending || asking || !flushed {
            return;
        }
        socket.fate = Fate::Moving;
        // The newest ring of a core has the most room.
        let rings = self.shared.rings_of(usize::from(core));
        self.hand_over(key, &rings, rings.len().saturating_sub(1));
    }

    fn hand_over(&mut self, key: Key, rings: &[RawFd], target: usize) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        match rings.get(target) {
            Some(ring) => {
                let (segment, slot) = (usize::from(socket.segment), socket.slot);
                self.moves.insert(key, target);
                self.segments.all[segment]
                    .ring
                    .hand_over(slot, *ring, key.token());
            }
            None => self.cannot_move(key, CloseReason::ServerFull),
        }
    }

    /// The kernel put the socket into the other core's table, or could not.
    pub(super) fn handed_over(&mut self, key: Key, result: io::Result<u32>) {
        let Some(target) = self.moves.remove(&key) else {
            return;
        };
        match result {
            Ok(slot_there) => {
                let place = self.release(key).to_number();
                self.shard
                    .handed_over(key, target as u16, slot_there, place);
                self.perform();
            }
            Err(error) if !is_full(&error) => {
                self.shard.metrics.socket_faults += 1;
                tracing::error!(core = self.index, %error, "a connection cannot be moved to its home core");
                self.cannot_move(key, CloseReason::Internal);
            }
            Err(error) if target > 0 => {
                tracing::debug!(core = self.index, %error, "a table of the home core is full");
                if let Some(core) = self.shard.moving_to(key) {
                    let rings = self.shared.rings_of(usize::from(core));
                    self.hand_over(key, &rings, target - 1);
                }
            }
            Err(error) => {
                tracing::warn!(core = self.index, %error, "no table of the home core has room");
                self.cannot_move(key, CloseReason::ServerFull);
            }
        }
    }

    fn cannot_move(&mut self, key: Key, reason: CloseReason) {
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.fate = Fate::Stays;
        }
        self.shard.hand_over_failed(key, reason);
        self.perform();
    }
}

/// Whether the table of the other core has no free slot, so that another may have.
fn is_full(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NFILE.raw_os_error())
}
