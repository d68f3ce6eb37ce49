//! The clients: the owner of all sockets of an engine.
//!
//! Owner: the engine's thread. Invariants: what is received is handed on in order, together with
//! the rest that the dialect left the last time; a completion of an earlier connection of the same
//! client is never taken for one of the present; a connection that ends, from either side, is
//! closed and told to the scenario once.
//!
//! Sockets begin to connect here and are adopted into a ring at once, so that at any moment only a
//! few of them hold a descriptor of the process.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use iris_ring::{Completion, Operation};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use super::clock;
use super::names::Names;
use super::post::Post;
use super::rings::{Place, Rings};
use super::sources::Sources;
use crate::dialect::{Heard, Protocol};
use crate::{BenchError, interrupt};

/// Connections opened at a time by [`Clients::open`].
const BATCH: u32 = 250;
/// How long a server may take to answer a batch of logins.
const LOGIN_MAX: Duration = Duration::from_secs(30);
/// In the token of a shutdown of one direction.
const FINISHING: u64 = 1 << 54;
/// Completions handled in a turn.
const TURN_MAX: usize = 4096;

/// What a scenario does with what its clients hear.
pub trait Handler {
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

    /// Connects `count` clients and logs each in, client n as user n.
    ///
    /// # Errors
    /// One of them cannot connect, is turned away, or gets no answer.
    pub fn open(server: SocketAddr, protocol: Protocol, count: u32) -> Result<Self, BenchError> {
        let mut all = Self::new(server, protocol, count)?;
        all.log_in(count)?;
        Ok(all)
    }

    /// Connects the first `count` clients and logs each in, client n as user n.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn log_in(&mut self, count: u32) -> Result<(), BenchError> {
        let mut logins = Logins::default();
        for client in 0..count {
            self.connect(client, client)?;
            if (client + 1) % BATCH == 0 || client + 1 == count {
                logins.all(self, client + 1)?;
            }
        }
        Ok(())
    }

    /// Begins to connect client `client`, which must not be connected, and to log it in as `user`.
    /// Clients are numbered from 0 without a gap.
    ///
    /// # Errors
    /// No socket could be had, or no address to connect from.
    pub fn connect(&mut self, client: u32, user: u32) -> Result<(), BenchError> {
        let source = self.sources.of(self.opened);
        self.opened += 1;
        let socket = begin(self.server, source).map_err(|source| BenchError::Connect {
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
        interrupt::check()?;
        self.flush();
        self.rings.wait(timeout)?;
        for _ in 0..TURN_MAX {
            let Some((ring, completion)) = self.rings.next() else {
                break;
            };
            self.handle(ring, completion, handler);
        }
        Ok(())
    }

    fn flush(&mut self) {
        while let Some((client, chunk)) = self.post.next_due() {
            let wire = &self.wires[client as usize];
            if let State::Open(place) = wire.state
                && !chunk.is_empty()
            {
                let token = wire.token(client);
                self.rings.of(place.ring).send(place.slot, chunk, 0, token);
            }
        }
    }

    /// The client of a token, if it is still the connection that the token was made for.
    fn present(&self, token: u64) -> Option<u32> {
        let client = token as u32;
        let wire = self.wires.get(client as usize)?;
        (wire.token(client) == token && wire.state != State::Closed).then_some(client)
    }

    fn handle(&mut self, ring: usize, completion: Completion, handler: &mut impl Handler) {
        match completion {
            Completion::Received {
                token,
                buffer,
                more,
                ..
            } => {
                let mut used = Ok(());
                if let Some(client) = self.present(token) {
                    used = self.received(client, ring, &buffer, handler);
                }
                self.rings.of(ring).recycle(buffer);
                match (used, self.present(token)) {
                    (Err(()), Some(client)) => self.end(client, End::Garbled, handler),
                    (Ok(()), Some(client)) if !more => self.receive_again(client),
                    _ => {}
                }
            }
            Completion::Sent {
                token,
                chunk,
                result,
            } => self.sent(token, Rc::unwrap_or_clone(chunk), result, handler),
            Completion::ReceiveEnded { token, result } => {
                let errno = result.err().and_then(|error| error.raw_os_error());
                match self.present(token) {
                    Some(client) if errno == Some(Errno::NOBUFS.raw_os_error()) => {
                        self.receive_again(client);
                    }
                    Some(_) if errno == Some(Errno::CANCELED.raw_os_error()) => {}
                    Some(client) => self.end(client, End::Peer, handler),
                    None => {}
                }
            }
            Completion::Adopted { token, result } => self.adopted(token, ring, result, handler),
            Completion::ShutDown { token, .. } => {
                let connection = token & !FINISHING;
                if let Some(closing) = self.closing.get_mut(&connection) {
                    closing.shutdowns -= 1;
                    if closing.shutdowns == 0 {
                        let Place { ring, slot } = closing.place;
                        self.rings.of(ring).close(slot, connection);
                    }
                } else if let Some(client) = self.present(connection) {
                    self.wires[client as usize].finishing = false;
                }
            }
            Completion::Closed { token, .. } => {
                if let Some(closing) = self.closing.remove(&token) {
                    self.rings.release(closing.place.ring);
                }
            }
            _ => {}
        }
    }

    fn received(
        &mut self,
        client: u32,
        ring: usize,
        buffer: &iris_ring::Received,
        handler: &mut impl Handler,
    ) -> Result<(), ()> {
        let now_ns = clock::now_ns();
        let Self {
            rings,
            wires,
            post,
            heard,
            ..
        } = self;
        let bytes = rings.of(ring).bytes(buffer);
        let Wire {
            partial, leaving, ..
        } = &mut wires[client as usize];
        if !partial.is_empty() {
            partial.extend_from_slice(bytes);
        }
        let all: &[u8] = if partial.is_empty() { bytes } else { partial };
        let used = post.receive(client, all, heard);
        if *leaving {
            // It is said in answer to our leaving.
            heard.retain(|heard| !matches!(heard, Heard::Closing(_)));
        }
        for heard in heard.drain(..) {
            handler.heard(client, heard, all, now_ns, post);
        }
        let used = used.map_err(drop)?;
        post.owe(client);
        if partial.is_empty() {
            partial.extend_from_slice(&bytes[used..]);
        } else {
            partial.drain(..used);
        }
        Ok(())
    }

    fn receive_again(&mut self, client: u32) {
        let wire = &self.wires[client as usize];
        if let (State::Open(place), false) = (wire.state, wire.deaf) {
            let token = wire.token(client);
            self.rings.of(place.ring).recv_multishot(place.slot, token);
        }
    }

    fn sent(
        &mut self,
        token: u64,
        mut chunk: Vec<u8>,
        result: io::Result<usize>,
        handler: &mut impl Handler,
    ) {
        let Some(client) = self.present(token) else {
            self.post.spare(chunk);
            return;
        };
        let State::Open(place) = self.wires[client as usize].state else {
            return;
        };
        match result {
            Ok(sent) if sent < chunk.len() => {
                chunk.drain(..sent);
                self.rings.of(place.ring).send(place.slot, chunk, 0, token);
            }
            Ok(_) => {
                self.post.sent(client, chunk);
                if self.wires[client as usize].leaving && !self.post.is_waiting(client) {
                    self.finish_writing(client);
                }
            }
            Err(_) => self.end(client, End::Peer, handler),
        }
    }

    fn adopted(
        &mut self,
        token: u64,
        ring: usize,
        slot: io::Result<u32>,
        handler: &mut impl Handler,
    ) {
        let place = slot.ok().map(|slot| Place { ring, slot });
        match (place, self.present(token)) {
            (Some(place), Some(client)) => {
                self.wires[client as usize].state = State::Open(place);
                self.post.connected(client);
                self.receive_again(client);
            }
            // Closed meanwhile.
            (Some(place), None) => {
                let shutdowns = 0;
                self.closing.insert(token, Closing { place, shutdowns });
                self.rings.of(ring).close(place.slot, token);
            }
            (None, client) => {
                self.rings.release(ring);
                if let Some(client) = client {
                    self.wires[client as usize].state = State::Closed;
                    handler.ended(client, End::Peer);
                }
            }
        }
    }

    fn end(&mut self, client: u32, end: End, handler: &mut impl Handler) {
        self.close(client);
        if !self.wires[client as usize].leaving || end == End::Garbled {
            handler.ended(client, end);
        }
    }
}

impl Wire {
    /// What the completions of the present connection carry.
    fn token(&self, client: u32) -> u64 {
        u64::from(self.generation) << 32 | u64::from(client)
    }
}

/// Waits for the answers to logins.
#[derive(Debug, Default)]
struct Logins {
    answered: u32,
    ended: u32,
    word: Option<Box<str>>,
}

impl Logins {
    fn all(&mut self, clients: &mut Clients, count: u32) -> Result<(), BenchError> {
        let deadline = Instant::now() + LOGIN_MAX;
        while self.answered < count {
            clients.turn(Duration::from_millis(100), self)?;
            if self.ended > 0 {
                return Err(BenchError::TurnedAway(self.word.take().unwrap_or_default()));
            }
            if Instant::now() > deadline {
                return Err(BenchError::Unanswered("logging in"));
            }
        }
        Ok(())
    }
}

impl Handler for Logins {
    fn heard(&mut self, _: u32, heard: Heard, _: &[u8], _: u64, _: &mut Post) {
        match heard {
            Heard::LoggedIn { .. } => self.answered += 1,
            Heard::Closing(word) => self.word = Some(word),
            _ => {}
        }
    }

    fn ended(&mut self, _: u32, _: End) {
        self.ended += 1;
    }
}

/// A socket that has begun to connect, from `source` if that is given. It blocks from then on: the
/// ring waits for what a socket that does not block would answer at once.
fn begin(server: SocketAddr, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    socket.set_nonblocking(true)?;
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
            return Err(error);
        }
        _ => {}
    }
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}
