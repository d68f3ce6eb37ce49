//! What the rings tell: completions become what a scenario hears.
//!
//! Owner: the engine's thread. Invariant: a completion of an earlier connection of the same client
//! is never taken for one of the present.

use std::io;
use std::rc::Rc;

use iris_ring::{Completion, Received};
use rustix::io::Errno;

use super::{Clients, Closing, End, FINISHING, Handler, State, Wire};
use crate::dialect::Heard;
use crate::engine::rings::Place;

impl Clients {
    /// The client of a token, if it is still the connection that the token was made for.
    fn present(&self, token: u64) -> Option<u32> {
        let client = token as u32;
        let wire = self.wires.get(client as usize)?;
        (wire.token(client) == token && wire.state != State::Closed).then_some(client)
    }

    pub(super) fn handle(
        &mut self,
        ring: usize,
        completion: Completion,
        now_ns: u64,
        handler: &mut impl Handler,
    ) {
        match completion {
            Completion::Received {
                token,
                buffer,
                more,
                ..
            } => {
                let mut used = Ok(());
                if let Some(client) = self.present(token) {
                    used = self.received(client, ring, &buffer, now_ns, handler);
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
            } => self.sent(token, chunk, result, handler),
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
        buffer: &Received,
        now_ns: u64,
        handler: &mut impl Handler,
    ) -> Result<(), ()> {
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
        handler.expect(heard, all);
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
        chunk: Rc<Vec<u8>>,
        result: io::Result<usize>,
        handler: &mut impl Handler,
    ) {
        let Some(client) = self.present(token) else {
            self.post.spare(chunk);
            return;
        };
        let wire = &mut self.wires[client as usize];
        let State::Open(place) = wire.state else {
            return;
        };
        match result {
            Ok(sent) if wire.taken + sent < chunk.len() => {
                // The socket was full. What is left goes before anything else.
                wire.taken += sent;
                let ring = self.rings.of(place.ring);
                ring.send(place.slot, chunk, wire.taken, token);
            }
            Ok(_) => {
                wire.taken = 0;
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
