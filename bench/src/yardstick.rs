//! The yardstick: the least a router of the classic protocol can be, and so the limit the gateway
//! is held against.
//!
//! One thread, one ring: multishot receives into provided buffers, direct descriptors, one send
//! for each dirty connection a turn. It has no limits, no store and no safety: a slow reader's
//! bytes pile up without bound, a malformed name is a name, a message to nobody is dropped.
//! Never put it where anyone else can connect.
//!
//! Owner: the thread that calls [`run`]. Invariant: a connection has at most one send in flight,
//! so its bytes keep their order.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use ahash::AHashMap;
use iris_protocol::classic::{ACK, LOGIN, LOGIN_OK, SEND};
use iris_ring::{Completion, Ring, RingConfig};

/// Above any token of a connection.
const LISTENER: u64 = 1 << 32;
/// Completions handled before what got dirty is flushed. It exceeds what the buffers let a turn
/// gather: the larger a turn, the more messages share a send (with turns of 512 at 1,000
/// connections a message costs three times as much).
const TURN_MAX: usize = 16384;
/// Receive buffers. Half of them are what a turn gathers at most, and so they are many: with 1,024
/// a message of 64 bytes costs twice as much at 1,000 connections x 16.
const BUFFERS: u16 = 8192;
/// Bytes of each. In pieces of 1 KiB a message of 64 KiB costs 2.3 times as much, one of 16 KiB
/// twice as much, and a limit that is no limit flatters who is held against it. Messages of 64
/// bytes cost the same either way.
const BUFFER_BYTES: u32 = 16 * 1024;
/// Spare chunks kept for the next outbox; the last one used is the next one taken.
const SPARES_MAX: usize = 4096;

#[derive(Default)]
struct Connection {
    outbox: Option<Rc<Vec<u8>>>,
    partial: Vec<u8>,
    /// Bytes of the chunk in flight that the socket has taken.
    taken: usize,
    sending: bool,
    dirty: bool,
}

#[derive(Default)]
struct Router {
    /// By slot.
    connections: Vec<Connection>,
    /// The slot of a name.
    users: AHashMap<Box<[u8]>, u32>,
    dirty: Vec<u32>,
    spares: Vec<Rc<Vec<u8>>>,
}

/// Routes until the process is ended.
pub(crate) fn run(listener: &TcpListener, slots: u32) -> Result<(), crate::BenchError> {
    let mut ring = Ring::open(&RingConfig {
        submission_entries: 4096,
        completion_entries: 32768,
        slots,
        buffer_count: BUFFERS,
        buffer_bytes: BUFFER_BYTES,
        ..RingConfig::default()
    })?;
    let mut router = Router::default();
    router
        .connections
        .resize_with(slots as usize, Connection::default);
    ring.accept(listener.as_fd(), LISTENER);
    loop {
        ring.submit_and_wait(Duration::from_secs(1))?;
        for _ in 0..TURN_MAX {
            let Some(completion) = ring.next() else { break };
            router.handle(completion, &mut ring)?;
        }
        for slot in router.dirty.drain(..) {
            let connection = &mut router.connections[slot as usize];
            connection.dirty = false;
            if !connection.sending
                && let Some(chunk) = connection.outbox.take()
            {
                connection.sending = true;
                ring.send(slot, chunk, 0, slot.into());
            }
        }
    }
}

impl Router {
    fn handle(&mut self, completion: Completion, ring: &mut Ring) -> io::Result<()> {
        match completion {
            Completion::Received {
                token,
                buffer,
                more,
                ..
            } => {
                self.received(token as u32, ring.bytes(&buffer));
                ring.recycle(buffer);
                if !more {
                    ring.recv_multishot(token as u32, token);
                }
            }
            Completion::Sent {
                token,
                mut chunk,
                result,
            } => {
                let connection = &mut self.connections[token as usize];
                match result {
                    Ok(sent) if connection.taken + sent < chunk.len() => {
                        // The socket was full. What is left goes before anything else.
                        connection.taken += sent;
                        ring.send(token as u32, chunk, connection.taken, token);
                    }
                    _ => {
                        connection.taken = 0;
                        connection.sending = false;
                        if connection.outbox.is_some() && !connection.dirty {
                            connection.dirty = true;
                            self.dirty.push(token as u32);
                        }
                        if self.spares.len() < SPARES_MAX {
                            Rc::make_mut(&mut chunk).clear();
                            self.spares.push(chunk);
                        }
                    }
                }
            }
            Completion::Accepted { slot, .. } => ring.recv_multishot(slot, slot.into()),
            Completion::ReceiveEnded { token, result } => match result {
                Err(error) if error.kind() != io::ErrorKind::ConnectionReset => {
                    // Every buffer was lent.
                    ring.recv_multishot(token as u32, token);
                }
                _ => {
                    self.connections[token as usize] = Connection::default();
                    ring.close(token as u32, token);
                }
            },
            Completion::AcceptEnded { error, .. } => return Err(error),
            _ => {}
        }
        Ok(())
    }

    fn received(&mut self, slot: u32, bytes: &[u8]) {
        let mut partial = std::mem::take(&mut self.connections[slot as usize].partial);
        if partial.is_empty() {
            let used = self.route(slot, bytes);
            partial.extend_from_slice(&bytes[used..]);
        } else {
            partial.extend_from_slice(bytes);
            let used = self.route(slot, &partial);
            partial.drain(..used);
        }
        self.connections[slot as usize].partial = partial;
    }

    /// Routes every whole command; answers how many bytes these took.
    fn route(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some((&command, rest)) = bytes[at..].split_first() {
            match command {
                SEND => {
                    let Some((target, rest)) = field(rest) else {
                        break;
                    };
                    let Some((payload, rest)) = field(rest) else {
                        break;
                    };
                    at = bytes.len() - rest.len();
                    if let Some(&reader) = self.users.get(target) {
                        self.deliver(reader, payload);
                    }
                }
                LOGIN => {
                    let len = rest.iter().position(|&byte| byte < 0x20);
                    let name = &rest[..len.unwrap_or(rest.len())];
                    self.users.insert(name.into(), slot);
                    self.deliver(slot, LOGIN_OK);
                    at += 1 + name.len();
                }
                ACK => return bytes.len(),
                _ => return bytes.len(),
            }
        }
        at
    }

    fn deliver(&mut self, slot: u32, bytes: &[u8]) {
        let connection = &mut self.connections[slot as usize];
        let outbox = connection
            .outbox
            .get_or_insert_with(|| self.spares.pop().unwrap_or_default());
        Rc::make_mut(outbox).extend_from_slice(bytes);
        if !connection.dirty && !connection.sending {
            connection.dirty = true;
            self.dirty.push(slot);
        }
    }
}

/// A length of two bytes and as many bytes, off the front.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*len).into())
}
