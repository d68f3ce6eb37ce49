//! What clients write: one dialect and one outbox for each connection.
//!
//! Owner: the engine's thread. Invariants: bytes of a connection leave in the order they were
//! written; a connection has at most one send in flight. An outbox is as large as what its
//! scenario lets be in flight: nothing else bounds it.

use std::rc::Rc;

use super::message::Message;
use super::names::Names;
use crate::dialect::{Dialect, Garbled, Heard, Protocol};

/// Spare chunks kept for the next outbox.
const SPARES_MAX: usize = 4096;

/// The writing side of all clients of an engine. Clients are told apart by index.
pub struct Post {
    protocol: Protocol,
    names: Names,
    lines: Vec<Line>,
    dirty: Vec<u32>,
    spares: Vec<Rc<Vec<u8>>>,
    /// The message that is written, as long as the longest one was; behind its head always zeroes.
    payload: Vec<u8>,
    owed: Vec<u8>,
}

struct Line {
    dialect: Box<dyn Dialect>,
    outbox: Option<Rc<Vec<u8>>>,
    sending: bool,
    dirty: bool,
}

impl Post {
    pub(super) fn new(protocol: Protocol, names: Names) -> Self {
        Self {
            protocol,
            names,
            lines: Vec::new(),
            dirty: Vec::new(),
            spares: Vec::new(),
            payload: Vec::new(),
            owed: Vec::new(),
        }
    }

    /// Sends `message`, `len` bytes of it, from client `client` to user `reader`. `number` is the
    /// sender's own, see [`Dialect::send`].
    // Inlined, like `Streams::send`, which makes the message.
    #[inline(always)]
    pub fn send(&mut self, client: u32, number: u64, reader: u32, message: &Message, len: u32) {
        let mut payload = std::mem::take(&mut self.payload);
        let bytes = message.encode_over(&mut payload, len);
        let reader = self.names.of(reader);
        self.write(client, |dialect, outbox| {
            dialect.send(number, reader.as_str(), bytes, outbox);
        });
        self.payload = payload;
    }

    /// Asks for the presence of user `about`. `false`: the protocol has none.
    pub fn ask_presence(&mut self, client: u32, about: u32) -> bool {
        let about = self.names.of(about);
        let mut asked = false;
        self.write(client, |dialect, outbox| {
            asked = dialect.ask_presence(about.as_str(), outbox);
        });
        asked
    }

    /// A new connection for client `client`, which begins with the login of `user`.
    pub(super) fn log_in(&mut self, client: u32, user: u32) {
        let line = Line {
            dialect: self.protocol.client(),
            outbox: None,
            // Until it has a slot: see `connected`.
            sending: true,
            dirty: false,
        };
        match self.lines.get_mut(client as usize) {
            Some(old) => *old = line,
            None => self.lines.push(line),
        }
        let user = self.names.of(user);
        self.write(client, |dialect, outbox| {
            dialect.login(user.as_str(), outbox);
        });
    }

    /// The connection can be written to from now on.
    pub(super) fn connected(&mut self, client: u32) {
        self.idle(client);
    }

    /// Shows a client what it received; answers how much of it was used up.
    pub(super) fn receive(
        &mut self,
        client: u32,
        bytes: &[u8],
        heard: &mut Vec<Heard>,
    ) -> Result<usize, Garbled> {
        self.lines[client as usize].dialect.receive(bytes, heard)
    }

    /// Has a client write what it owes for what it heard.
    pub(super) fn owe(&mut self, client: u32) {
        self.lines[client as usize].dialect.owe(&mut self.owed);
        if !self.owed.is_empty() {
            let mut owed = std::mem::take(&mut self.owed);
            self.write(client, |_, outbox| outbox.extend_from_slice(&owed));
            owed.clear();
            self.owed = owed;
        }
    }

    /// Takes the next client whose outbox is to be sent, and the bytes.
    pub(super) fn next_due(&mut self) -> Option<(u32, Rc<Vec<u8>>)> {
        loop {
            let client = self.dirty.pop()?;
            let line = &mut self.lines[client as usize];
            line.dirty = false;
            // A connection that ended takes its outbox with it.
            if !line.sending
                && let Some(chunk) = line.outbox.take()
            {
                line.sending = true;
                return Some((client, chunk));
            }
        }
    }

    /// A send of a client has ended; its chunk comes back.
    pub(super) fn sent(&mut self, client: u32, chunk: Rc<Vec<u8>>) {
        self.spare(chunk);
        self.idle(client);
    }

    /// Nothing of a client is being sent.
    fn idle(&mut self, client: u32) {
        let line = &mut self.lines[client as usize];
        line.sending = false;
        if line.outbox.is_some() && !line.dirty {
            line.dirty = true;
            self.dirty.push(client);
        }
    }

    /// Whether a client has bytes that are not sent yet.
    pub(super) fn is_waiting(&self, client: u32) -> bool {
        let line = &self.lines[client as usize];
        line.sending || line.outbox.is_some()
    }

    /// Keeps a chunk for later.
    pub(super) fn spare(&mut self, mut chunk: Rc<Vec<u8>>) {
        if self.spares.len() < SPARES_MAX {
            Rc::make_mut(&mut chunk).clear();
            self.spares.push(chunk);
        }
    }

    fn write(&mut self, client: u32, write: impl FnOnce(&mut dyn Dialect, &mut Vec<u8>)) {
        let Self {
            lines,
            dirty,
            spares,
            ..
        } = self;
        let line = &mut lines[client as usize];
        let outbox = line
            .outbox
            .get_or_insert_with(|| spares.pop().unwrap_or_default());
        let outbox = Rc::make_mut(outbox);
        write(&mut *line.dialect, outbox);
        if outbox.is_empty() {
            spares.extend(line.outbox.take());
        } else if !line.dirty && !line.sending {
            line.dirty = true;
            dirty.push(client);
        }
    }
}
