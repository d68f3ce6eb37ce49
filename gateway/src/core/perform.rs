//! Doing what the shard asks for, and keeping each socket's receive as its state
//! wants it.
//!
//! Owner: the core's thread.

use super::addresses::Place;
use super::driver::Core;
use super::sockets::{Fate, Receive};
use crate::shard::{Effect, Key};

impl Core {
    /// Does what the shard asks for, until it asks for nothing more.
    pub(super) fn perform(&mut self) {
        while !self.shard.effects().connections.is_empty() || !self.shard.effects().store.is_empty()
        {
            let effects = std::mem::take(self.shard.effects());
            self.store_requests += effects.store.len();
            for request in effects.store {
                self.store.submit(request);
            }
            for effect in effects.connections {
                self.perform_one(effect);
            }
        }
    }

    fn perform_one(&mut self, effect: Effect) {
        match effect {
            Effect::Adopt {
                connection,
                segment,
                slot,
                place,
            } => {
                self.segments.all[usize::from(segment)].used += 1;
                let place = Place::from_number(place);
                self.sockets.insert(connection, segment, slot, place);
            }
            Effect::AtHome(key) => {
                if let Some(socket) = self.sockets.get_mut(key) {
                    socket.at_home = true;
                }
                self.proceed(key);
            }
            Effect::HandOver { connection, core } => {
                if let Some(socket) = self.sockets.get_mut(connection) {
                    socket.fate = Fate::Moves(core);
                }
                self.stop_polling(connection);
                self.proceed(connection);
            }
            Effect::Probe(key) => {
                if let Some(socket) = self.sockets.get_mut(key) {
                    socket.probing = true;
                    let (segment, slot) = (usize::from(socket.segment), socket.slot);
                    self.segments.all[segment]
                        .ring
                        .outstanding(slot, key.token());
                }
            }
            Effect::Pause(key) | Effect::Resume(key) => {
                if let Some(socket) = self.sockets.get_mut(key) {
                    socket.paused = matches!(effect, Effect::Pause(_));
                    // A receive that is armed from now on tells.
                    socket.found_ended = false;
                }
                self.proceed(key);
            }
            Effect::Close(key) => self.begin_close(key),
        }
    }

    /// Arms or ends the receive of a socket as its state wants it, and takes it
    /// further on its way out.
    pub(super) fn proceed(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let ring = &mut self.segments.all[usize::from(socket.segment)].ring;
        let wants = match socket.fate {
            Fate::Stays => !socket.paused,
            // What the peer still acknowledges counts.
            Fate::Flushes(_) | Fate::Lingers(_) => !socket.cut,
            Fate::Moves(_) | Fate::Moving | Fate::Asks(_) => false,
        };
        match socket.receive {
            Receive::Idle if wants => {
                socket.receive = Receive::Armed;
                if socket.at_home && socket.large {
                    ring.recv_multishot_large(socket.slot, key.token());
                } else if socket.at_home {
                    ring.recv_multishot(socket.slot, key.token());
                } else {
                    ring.recv(socket.slot, key.token());
                }
            }
            Receive::Armed if !wants => {
                socket.receive = Receive::Ending;
                ring.cancel(iris_ring::Operation::Receive, key.token());
            }
            _ => {}
        }
        match socket.fate {
            Fate::Stays => {}
            Fate::Moves(_) | Fate::Moving => self.proceed_move(key),
            Fate::Flushes(_) | Fate::Lingers(_) | Fate::Asks(_) => self.proceed_close(key),
        }
    }
}
