//! The clients: the owner of all sockets of an engine.
//!
//! Owner: the engine's thread. Invariants: what is received is handed on in order, together with
//! the rest that the dialect left the last time; a completion of an earlier connection of the same
//! client is never taken for one of the present; a connection that ends, from either side, is
//! closed and told to the scenario once.
//!
//! Sockets begin to connect here and are adopted into a ring at once, so that at any moment only a
//! few of them hold a descriptor of the process.

mod dial;
mod login;
mod reap;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use iris_ring::Operation;

use super::clock;
use super::names::Names;
use super::post::Post;
use super::rings::{Place, Rings};
use super::sources::Sources;
use crate::dialect::{Heard, Protocol};
use crate::{BenchError, interrupt};

/// In the token of a shutdown of one direction.
const FINISHING: u64 = 1 << 54;
/// Completions handled in a turn.
const TURN_MAX: usize = 4096;

/// What a scenario does with what its clients hear.
pub trait Handler {
    /// All of this will be heard next, one after the other.
    fn expect(&self, _heard: &[Heard], _bytes: &[u8]) {}

    /// Client `client` heard something; `bytes` are what a payload's place refers to. `now_ns` is
    /// when the bytes were taken from the ring.
    fn heard(&mut self, client: u32, heard: Heard, bytes: &[u8], now_ns: u64, post: &mut Post);
    /// The connection of client `client` has ended, not by [`Clients::close`] or
    /// [`Clients::leave`].
    fn ended(&mut self, client: u32, end: End);
}

/// How a connection ended that we did not close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server finished it, reset it, or never took it.
    Peer,
    /// What came was not the protocol; so we closed it.
    Garbled,
}

/// One client's side of a socket.
#[derive(Debug, Default)]
struct Wire {
    /// Counts the connections of this client, in 22 bits.
    generation: u32,
    state: State,
    partial: Vec<u8>,
    /// Bytes of the chunk in flight that the socket has taken.
    taken: usize,
    deaf: bool,
    leaving: bool,
    /// The end of its writing is under way in the kernel.
    finishing: bool,
}

/// A socket that is being closed.
#[derive(Debug, Clone, Copy)]
struct Closing {
    place: Place,
    /// Shutdowns in the kernel. One that is overtaken by the close would shut the slot's next
    /// tenant.
    shutdowns: u8,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    /// On its way into a ring.
    Connecting,
    Open(Place),
}

/// All clients of one engine.
pub struct Clients {
    rings: Rings,
    wires: Vec<Wire>,
    post: Post,
    /// By the token of their connection.
    closing: HashMap<u64, Closing>,
    heard: Vec<Heard>,
    server: SocketAddr,
    sources: Sources,
    opened: usize,
}

impl Clients {
    /// Clients of `server`, about `count` of them; none is connected yet.
    ///
    /// # Errors
    /// The kernel has no ring for us.
    pub fn new(server: SocketAddr, protocol: Protocol, count: u32) -> Result<Self, BenchError> {
        Ok(Self {
            rings: Rings::open(count)?,
            wires: Vec::with_capacity(count as usize),
            post: Post::new(protocol, Names::fresh()),
            closing: HashMap::new(),
            heard: Vec::new(),
            server,
            sources: Sources::towards(server),
            opened: 0,
        })
    }

    /// Begins to connect client `client`, which must not be connected, and to log it in as `user`.
    /// Clients are numbered from 0 without a gap.
    ///
    /// # Errors
    /// No socket could be had, or no address to connect from.
    pub fn connect(&mut self, client: u32, user: u32) -> Result<(), BenchError> {
        let source = self.sources.of(self.opened);
        self.opened += 1;
        let socket = dial::begin(self.server, source).map_err(|source| BenchError::Connect {
            client,
            server: self.server,
            source,
        })?;
        if client as usize >= self.wires.len() {
            self.wires.push(Wire::default());
        }
        let wire = &mut self.wires[client as usize];
        wire.generation = (wire.generation + 1) & 0x3f_ffff;
        wire.state = State::Connecting;
        wire.partial.clear();
        wire.taken = 0;
        wire.deaf = false;
        wire.leaving = false;
        wire.finishing = false;
        let token = wire.token(client);
        let ring = self.rings.room()?;
        self.rings.of(ring).adopt(socket, token);
        self.post.log_in(client, user);
        Ok(())
    }

    /// Closes the connection of a client, if it has one; nothing more is heard of it.
    pub fn close(&mut self, client: u32) {
        let wire = &mut self.wires[client as usize];
        let token = wire.token(client);
        if let State::Open(place) = std::mem::take(&mut wire.state) {
            let shutdowns = 1 + u8::from(wire.finishing);
            self.closing.insert(token, Closing { place, shutdowns });
            self.rings.of(place.ring).shutdown(place.slot, token);
        }
    }

    /// Logs a client out: what it wrote is sent, its side is finished, and the connection closed
    /// when the server has finished its own. What is heard until then is handed on.
    pub fn leave(&mut self, client: u32) {
        self.wires[client as usize].leaving = true;
        if !self.post.is_waiting(client) {
            self.finish_writing(client);
        }
    }

    fn finish_writing(&mut self, client: u32) {
        let wire = &mut self.wires[client as usize];
        if let State::Open(place) = wire.state {
            wire.finishing = true;
            let token = wire.token(client) | FINISHING;
            self.rings.of(place.ring).shutdown_write(place.slot, token);
        }
    }

    /// Whether a client has a connection, or is about to.
    #[must_use]
    pub fn is_open(&self, client: u32) -> bool {
        let wire = self.wires.get(client as usize);
        wire.is_some_and(|wire| wire.state != State::Closed)
    }

    /// Whether sockets are still on their way to being closed.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        !self.closing.is_empty()
    }

    /// Has a client take nothing more off its socket, as a reader does that hangs; or go on.
    pub fn set_deaf(&mut self, client: u32, deaf: bool) {
        let wire = &mut self.wires[client as usize];
        let was = std::mem::replace(&mut wire.deaf, deaf);
        let token = wire.token(client);
        let State::Open(place) = wire.state else {
            return;
        };
        let ring = self.rings.of(place.ring);
        if deaf && !was {
            ring.cancel(Operation::Receive, token);
        } else if was && !deaf {
            ring.recv_multishot(place.slot, token);
        }
    }

    /// How many there are, closed ones included.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.wires.len() as u32
    }

    /// The writing side, for what is sent without being asked.
    pub fn post(&mut self) -> &mut Post {
        &mut self.post
    }

    /// One turn: sends what waits, waits for something to happen, no longer than `timeout`, and
    /// hands it on.
    ///
    /// # Errors
    /// The ring is beyond repair, or we were asked to stop.
    pub fn turn(
        &mut self,
        timeout: Duration,
        handler: &mut impl Handler,
    ) -> Result<(), BenchError> {
        self.turn_of(1, timeout, handler)
    }

    /// The same, but it waits a moment for `gather` things to happen, for loads that keep the
    /// server busy meanwhile.
    ///
    /// # Errors
    /// As for [`Self::turn`].
    pub fn turn_of(
        &mut self,
        gather: usize,
        timeout: Duration,
        handler: &mut impl Handler,
    ) -> Result<(), BenchError> {
        interrupt::check()?;
        self.flush();
        self.rings.wait(gather, timeout)?;
        // All that is handled now has been taken from the sockets by now.
        let now_ns = clock::now_ns();
        for _ in 0..TURN_MAX {
            let Some((ring, completion)) = self.rings.next() else {
                break;
            };
            self.handle(ring, completion, now_ns, handler);
        }
        Ok(())
    }

    fn flush(&mut self) {
        while let Some((client, chunk)) = self.post.next_due() {
            let wire = &self.wires[client as usize];
            if let State::Open(place) = wire.state {
                let token = wire.token(client);
                self.rings.of(place.ring).send(place.slot, chunk, 0, token);
            }
        }
    }
}

impl Wire {
    /// What the completions of the present connection carry.
    fn token(&self, client: u32) -> u64 {
        u64::from(self.generation) << 32 | u64::from(client)
    }
}
