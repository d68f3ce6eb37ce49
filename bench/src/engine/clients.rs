//! The clients: N connections of one ring, logged in by the classic protocol, with an outbox each.
//!
//! Owner: the engine's thread. Invariants: a connection has at most one send in flight; what is
//! received is handed on in order, together with the rest that the handler left the last time. A
//! connection that ends stays ended and is counted.
//!
//! Sockets are connected one after another and adopted into the ring, so that at any moment only
//! a few of them hold a descriptor of the process.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use iris_protocol::{Name, classic};
use iris_ring::{Completion, Ring, RingConfig};
use socket2::{Domain, Socket, Type};

use super::sources::Sources;
use crate::{BenchError, interrupt};

/// Connections opened and logged in at a time.
const BATCH: usize = 250;
/// How long a server may take to answer a batch of logins.
const LOGIN_MAX: Duration = Duration::from_secs(30);
/// Completions handled in a turn.
const TURN_MAX: usize = 4096;
/// Spare chunks kept for the next outbox.
const SPARES_MAX: usize = 4096;

/// What a scenario does with what its clients receive.
pub(crate) trait Handler {
    /// Bytes of connection `index`; answers how many it used up. It is called again with the
    /// rest and what follows.
    fn received(&mut self, index: u32, bytes: &[u8], outboxes: &mut Outboxes) -> usize;
    /// Connection `index` has ended.
    fn ended(&mut self, index: u32);
}

/// The bytes that wait to be sent, by connection.
#[derive(Default)]
pub(crate) struct Outboxes {
    waiting: Vec<Outbox>,
    dirty: Vec<u32>,
    spares: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    sending: bool,
    dirty: bool,
}

impl Outboxes {
    /// The outbox of connection `index`, to append to; it is sent at the end of the turn.
    pub(crate) fn of(&mut self, index: u32) -> &mut Vec<u8> {
        let outbox = &mut self.waiting[index as usize];
        if !outbox.dirty && !outbox.sending {
            outbox.dirty = true;
            self.dirty.push(index);
        }
        if outbox.bytes.capacity() == 0 {
            outbox.bytes = self.spares.pop().unwrap_or_default();
        }
        &mut outbox.bytes
    }
}

/// One client's side of a socket.
struct Client {
    slot: u32,
    partial: Vec<u8>,
    open: bool,
}

/// All clients of one engine. Client `n` is logged in as user `u<n>`.
pub(crate) struct Clients {
    ring: Ring,
    clients: Vec<Client>,
    outboxes: Outboxes,
    sources: Sources,
}

/// The name of client `index`.
pub(crate) fn name_of(index: u32) -> String {
    format!("u{index}")
}

impl Clients {
    /// Connects `count` clients and logs each in.
    pub(crate) fn open(server: SocketAddr, count: u32) -> Result<Self, BenchError> {
        let ring = Ring::open(&RingConfig {
            submission_entries: 4096,
            completion_entries: 32768,
            slots: count + BATCH as u32,
            buffer_count: 4096,
            buffer_bytes: 2048,
        })?;
        let mut all = Self {
            ring,
            clients: Vec::with_capacity(count as usize),
            outboxes: Outboxes::default(),
            sources: Sources::towards(server),
        };
        while all.clients.len() < count as usize {
            let batch = BATCH.min(count as usize - all.clients.len());
            all.connect(server, batch)?;
            all.log_in(batch)?;
        }
        Ok(all)
    }

    /// How many there are, ended ones included.
    pub(crate) fn count(&self) -> u32 {
        self.clients.len() as u32
    }

    /// The outboxes, for what is sent without being asked.
    pub(crate) fn outboxes(&mut self) -> &mut Outboxes {
        &mut self.outboxes
    }

    /// One turn: sends what waits, waits for something to happen, no longer than `timeout`, and
    /// hands it on.
    pub(crate) fn turn(
        &mut self,
        timeout: Duration,
        handler: &mut impl Handler,
    ) -> Result<(), BenchError> {
        interrupt::check()?;
        self.flush();
        self.ring.submit_and_wait(timeout)?;
        for _ in 0..TURN_MAX {
            let Some(completion) = self.ring.next() else {
                break;
            };
            self.handle(completion, handler);
        }
        Ok(())
    }

    fn flush(&mut self) {
        for index in self.outboxes.dirty.drain(..) {
            let outbox = &mut self.outboxes.waiting[index as usize];
            outbox.dirty = false;
            let client = &self.clients[index as usize];
            if !outbox.sending && client.open {
                outbox.sending = true;
                let chunk = std::mem::take(&mut outbox.bytes);
                self.ring.send(client.slot, chunk, 0, index.into());
            }
        }
    }

    fn handle(&mut self, completion: Completion, handler: &mut impl Handler) {
        match completion {
            Completion::Received {
                token,
                buffer,
                more,
            } => {
                let client = &mut self.clients[token as usize];
                let bytes = self.ring.bytes(&buffer);
                let index = token as u32;
                if client.partial.is_empty() {
                    let used = handler.received(index, bytes, &mut self.outboxes);
                    client.partial.extend_from_slice(&bytes[used..]);
                } else {
                    client.partial.extend_from_slice(bytes);
                    let used = handler.received(index, &client.partial, &mut self.outboxes);
                    client.partial.drain(..used);
                }
                self.ring.recycle(buffer);
                if !more {
                    self.ring.recv_multishot(client.slot, token);
                }
            }
            Completion::Sent {
                token,
                chunk,
                result,
            } => self.sent(token, Rc::unwrap_or_clone(chunk), result, handler),
            Completion::ReceiveEnded {
                token,
                result: Err(error),
            } if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                let slot = self.clients[token as usize].slot;
                self.ring.recv_multishot(slot, token);
            }
            Completion::ReceiveEnded { token, .. } => self.end(token, handler),
            _ => {}
        }
    }

    fn sent(
        &mut self,
        token: u64,
        mut chunk: Vec<u8>,
        result: io::Result<usize>,
        handler: &mut impl Handler,
    ) {
        let outbox = &mut self.outboxes.waiting[token as usize];
        outbox.sending = false;
        match result {
            Ok(sent) if sent < chunk.len() => {
                outbox.sending = true;
                chunk.drain(..sent);
                let slot = self.clients[token as usize].slot;
                self.ring.send(slot, chunk, 0, token);
            }
            Ok(_) => {
                if !outbox.bytes.is_empty() && !outbox.dirty {
                    outbox.dirty = true;
                    self.outboxes.dirty.push(token as u32);
                }
                if self.outboxes.spares.len() < SPARES_MAX {
                    chunk.clear();
                    self.outboxes.spares.push(chunk);
                }
            }
            Err(_) => self.end(token, handler),
        }
    }

    fn end(&mut self, token: u64, handler: &mut impl Handler) {
        let client = &mut self.clients[token as usize];
        if std::mem::replace(&mut client.open, false) {
            handler.ended(token as u32);
        }
    }

    /// Connects a batch and moves the sockets into the ring.
    fn connect(&mut self, server: SocketAddr, batch: usize) -> Result<(), BenchError> {
        let first = self.clients.len();
        for index in first..first + batch {
            let socket = connect_one(server, self.sources.of(index)).map_err(|source| {
                BenchError::Connect {
                    index,
                    server,
                    source,
                }
            })?;
            self.ring.adopt(socket, index as u64);
            self.clients.push(Client {
                slot: 0,
                partial: Vec::new(),
                open: true,
            });
            self.outboxes.waiting.push(Outbox::default());
        }
        let deadline = Instant::now() + LOGIN_MAX;
        let mut left = batch;
        while left > 0 {
            self.ring.submit_and_wait(Duration::from_millis(100))?;
            while let Some(completion) = self.ring.next() {
                if let Completion::Adopted { token, result } = completion {
                    let slot = result?;
                    self.clients[token as usize].slot = slot;
                    self.ring.recv_multishot(slot, token);
                    left -= 1;
                }
            }
            if Instant::now() > deadline {
                return Err(BenchError::Unanswered("adopting sockets"));
            }
        }
        Ok(())
    }

    /// Logs the last batch in.
    fn log_in(&mut self, batch: usize) -> Result<(), BenchError> {
        let count = self.clients.len();
        for index in (count - batch) as u32..count as u32 {
            let name = name_of(index);
            // Names of ours are never refused.
            if let Ok(name) = Name::parse(name.as_bytes()) {
                classic::encode_login(self.outboxes.of(index), name);
            }
        }
        let mut answers = Answers {
            left: batch,
            ended: 0,
        };
        let deadline = Instant::now() + LOGIN_MAX;
        while answers.left > 0 {
            self.turn(Duration::from_millis(100), &mut answers)?;
            if answers.ended > 0 {
                return Err(BenchError::Refused);
            }
            if Instant::now() > deadline {
                return Err(BenchError::Unanswered("logging in"));
            }
        }
        Ok(())
    }
}

/// Waits for the answers to logins.
struct Answers {
    left: usize,
    ended: usize,
}

impl Handler for Answers {
    fn received(&mut self, _index: u32, bytes: &[u8], _outboxes: &mut Outboxes) -> usize {
        if bytes.starts_with(classic::LOGIN_OK) {
            self.left = self.left.saturating_sub(1);
            return classic::LOGIN_OK.len();
        }
        0
    }

    fn ended(&mut self, _index: u32) {
        self.ended += 1;
    }
}

/// One connected socket, from `source` if that is given.
fn connect_one(server: SocketAddr, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    socket.connect(&server.into())?;
    Ok(socket.into())
}
