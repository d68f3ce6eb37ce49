//! The sockets of the world and the kernel's part in them: what arrives, what is sent short, what is moved, what ends.

use std::collections::VecDeque;
use std::rc::Rc;

use iris_gateway::shard::{Effect, Key};
use iris_protocol::CloseReason;

use super::World;
use crate::random::Random;

/// A socket, with the kernel's part of it on both sides.
#[derive(Default)]
pub struct Socket {
    core: usize,
    connection: Option<Key>,
    /// Segments on their way to the gateway.
    pub inbound: VecDeque<Vec<u8>>,
    /// Bytes the gateway's kernel has taken and the client's has not acknowledged.
    wire: VecDeque<u8>,
    /// Chunks, and where in the first a send begins.
    in_flight: Option<(Vec<Rc<Vec<u8>>>, usize)>,
    paused: bool,
    probing: bool,
    closing: bool,
    handing_over: Option<u16>,
    /// The gateway was told that the peer has ended.
    over: bool,
    /// A send failed: no more are tried.
    broken: bool,
    /// The receive that is armed does not tell that the peer has reset.
    mute: bool,
    /// It had ended when it was looked at last, and nothing has told.
    found_ended: bool,
    pub client_left: bool,
    reset: bool,
}

impl Socket {
    /// Whether the gateway has it.
    pub fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// The client resets: what it said last may have arrived before, and the gateway's receive may
    /// not tell.
    pub fn reset(&mut self, has_arrived: bool, is_told: bool) {
        self.reset = true;
        self.mute = !is_told;
        if !has_arrived {
            self.inbound.clear();
        }
    }

    /// The gateway's process has ended.
    pub fn cut_off(&mut self, random: &mut Random) {
        // Its kernel has a part of what was sent, and the client may read that.
        let kept = random.below(self.wire.len() + 1);
        self.wire.truncate(kept);
        *self = Socket {
            wire: std::mem::take(&mut self.wire),
            client_left: self.client_left,
            over: true,
            ..Socket::default()
        };
    }
}

impl World {
    pub fn connect(&mut self) -> usize {
        let core = self.random.below(self.cores());
        let key = self.shards[core].accepted();
        let socket = self.sockets.len();
        self.sockets.push(Socket {
            core,
            connection: Some(key),
            ..Socket::default()
        });
        self.by_connection.insert((core, key), socket);
        socket
    }

    /// The gateway receives a segment, if it reads this socket.
    pub fn receive(&mut self, socket: usize) {
        let entry = &mut self.sockets[socket];
        let Some(key) = entry.connection else {
            return;
        };
        if entry.over || entry.handing_over.is_some() || (entry.paused && !entry.closing) {
            return;
        }
        let core = entry.core;
        if let Some(mut segment) = entry.inbound.pop_front() {
            let before = self.shards[core].metrics.delivered;
            if segment.len() > 1 && self.random.one_in(4) {
                // A buffer was full before all that arrived was in it.
                let rest = segment.split_off(1 + self.random.below(segment.len() - 1));
                entry.inbound.push_front(rest);
                self.shards[core].received_cut(key, &segment);
            } else {
                self.shards[core].received(key, &segment);
            }
            let acked = self.shards[core].metrics.delivered - before;
            let clients = self.sockets.len();
            if let Some(client) = self.clients.iter_mut().find(|one| one.socket == socket) {
                client.was_acked(acked, clients, &mut self.ledger);
            }
            self.effects(core);
        } else if entry.client_left && !(entry.reset && entry.mute) {
            entry.over = true;
            entry.broken |= entry.reset;
            let reason = if entry.reset {
                CloseReason::PeerReset
            } else {
                CloseReason::PeerClosed
            };
            self.shards[core].peer_ended(key, reason);
            self.effects(core);
        }
    }

    fn end(&mut self, socket: usize, reason: CloseReason) {
        let entry = &mut self.sockets[socket];
        let Some(key) = entry.connection.take() else {
            return;
        };
        let core = entry.core;
        let outstanding = entry.wire.len() as u32;
        self.by_connection.remove(&(core, key));
        self.shards[core].ended(key, reason, Some(outstanding));
        self.effects(core);
    }

    /// Turns what a shard asked for into the state of the world.
    pub fn effects(&mut self, core: usize) {
        let effects = std::mem::take(self.shards[core].effects());
        for request in effects.store {
            self.store.submit(core, request);
        }
        for effect in effects.connections {
            let socket_of = |key: Key| self.by_connection.get(&(core, key)).copied();
            match effect {
                Effect::Adopt {
                    connection, slot, ..
                } => {
                    let socket = slot as usize;
                    self.sockets[socket].core = core;
                    self.sockets[socket].connection = Some(connection);
                    self.sockets[socket].paused = false;
                    self.sockets[socket].over = false;
                    self.sockets[socket].found_ended = false;
                    self.by_connection.insert((core, connection), socket);
                }
                Effect::AtHome(_) => {}
                Effect::HandOver {
                    connection,
                    core: to,
                } => {
                    if let Some(socket) = socket_of(connection) {
                        self.sockets[socket].handing_over = Some(to);
                    }
                }
                Effect::Probe(key) => {
                    if let Some(socket) = socket_of(key) {
                        self.sockets[socket].probing = true;
                    }
                }
                Effect::Pause(key) | Effect::Resume(key) => {
                    if let Some(socket) = socket_of(key) {
                        self.sockets[socket].paused = matches!(effect, Effect::Pause(_));
                    }
                }
                Effect::Close(key) => {
                    if let Some(socket) = socket_of(key) {
                        self.sockets[socket].closing = true;
                        self.sockets[socket].paused = false;
                        self.sockets[socket].handing_over = None;
                    }
                }
            }
        }
    }

    /// The end of a core's turn: one send for each connection that has something.
    pub fn flush(&mut self, core: usize) {
        while let Some(key) = self.shards[core].next_dirty() {
            if let Some(socket) = self.by_connection.get(&(core, key)).copied()
                && self.sockets[socket].in_flight.is_none()
                && !self.sockets[socket].broken
                && let Some(next) = self.shards[core].next_send(key)
            {
                self.sockets[socket].probing |= next.probe_first;
                let mut chunks = vec![next.chunk];
                if next.has_more && self.random.one_in(2) {
                    chunks.extend(self.shards[core].chunks_behind(key));
                }
                self.sockets[socket].in_flight = Some((chunks, next.from));
            }
        }
        self.effects(core);
    }

    /// The connections that have more to say than their share of a turn get others, in the next.
    pub fn next_turn(&mut self, core: usize) {
        self.shards[core].begin_turn();
        self.shards[core].tell_followers();
        for _ in 0..self.random.below(4) {
            if !self.shards[core].read_waiting() {
                break;
            }
            self.effects(core);
        }
    }

    /// A send completes, maybe short.
    pub fn complete_send(&mut self, socket: usize) {
        let entry = &mut self.sockets[socket];
        let Some((chunks, from)) = entry.in_flight.take() else {
            return;
        };
        if entry.reset {
            entry.broken = true;
            // A receive that is armed anew mostly tells.
            entry.mute &= self.random.one_in(3);
            drop(chunks);
            if let Some(key) = entry.connection {
                let core = entry.core;
                self.shards[core].send_failed(key, CloseReason::PeerReset);
                self.effects(core);
            }
            return;
        }
        let bytes: Vec<u8> = chunks
            .iter()
            .flat_map(|chunk| chunk.iter().copied())
            .collect();
        drop(chunks);
        let len = 1 + self.random.below(bytes.len() - from);
        entry.wire.extend(&bytes[from..from + len]);
        if let Some(key) = entry.connection {
            let core = entry.core;
            self.shards[core].sent(key, len);
            self.effects(core);
        }
    }

    /// Answers a question about unacknowledged bytes.
    pub fn answer_probe(&mut self, socket: usize) {
        let entry = &mut self.sockets[socket];
        if let (true, Some(key)) = (entry.probing, entry.connection) {
            entry.probing = false;
            let (core, outstanding) = (entry.core, entry.wire.len() as u32);
            let answer = if entry.reset && self.random.one_in(8) {
                self.shards[core].socket_gone(key);
                None
            } else {
                Some(outstanding)
            };
            self.shards[core].probed(key, answer);
            self.effects(core);
        }
    }

    /// The gateway looks whether a socket has ended.
    pub fn look(&mut self, socket: usize) {
        let entry = &mut self.sockets[socket];
        let Some(key) = entry.connection else {
            return;
        };
        let stays = !entry.closing && entry.handing_over.is_none() && !entry.over;
        if !stays || !entry.reset {
            return;
        }
        let core = entry.core;
        if entry.found_ended && !entry.paused {
            self.shards[core].socket_gone(key);
        } else if entry.paused {
            entry.broken = true;
            self.shards[core].send_failed(key, CloseReason::PeerReset);
        } else {
            entry.mute &= self.random.one_in(3);
        }
        self.sockets[socket].found_ended = true;
        self.effects(core);
    }

    /// A socket that is to be closed or moved, is, when its last bytes are out.
    pub fn finish(&mut self, socket: usize) {
        let entry = &self.sockets[socket];
        let Some(key) = entry.connection else {
            return;
        };
        let flushed = entry.in_flight.is_none()
            && !entry.probing
            && (entry.broken || self.shards[entry.core].is_flushed(key));
        if entry.closing && flushed {
            self.end(socket, CloseReason::PeerClosed);
        } else if entry.handing_over.is_some() && flushed {
            let fails = self.moves_fail && self.random.one_in(30);
            let entry = &mut self.sockets[socket];
            entry.handing_over = None;
            if fails {
                let core = entry.core;
                let reason = [CloseReason::ServerFull, CloseReason::Internal][self.random.below(2)];
                self.shards[core].hand_over_failed(key, reason);
                self.effects(core);
                return;
            }
            entry.connection = None;
            let core = entry.core;
            self.by_connection.remove(&(core, key));
            self.shards[core].handed_over(key, 0, socket as u32, 0);
            self.effects(core);
        }
    }

    /// A client's kernel acknowledges some bytes and the client reads them.
    pub fn client_reads(&mut self, client: usize, all: bool) {
        let socket = &mut self.sockets[self.clients[client].socket];
        if socket.client_left {
            return;
        }
        let len = match self.random.below(4) {
            _ if all => socket.wire.len(),
            // The last byte of a message is what tells whether it is counted rightly.
            0 => socket.wire.len().saturating_sub(1),
            _ => self.random.below(socket.wire.len() + 1),
        };
        let bytes: Vec<u8> = socket.wire.drain(..len).collect();
        self.clients[client].receive(&bytes, &mut self.accounts, &mut self.ledger, &self.store);
    }
}
