//! What the driver knows of each connection's socket: where it lives and which
//! operations are under way. 32 bytes each; everything else about a connection is
//! the shard's.
//!
//! Owner: the core's thread. Indexed like the shard's connections; an entry whose
//! generation is another connection's is no entry.

use iris_protocol::CloseReason;
use iris_ring::prefetch;

use super::addresses::Place;
use crate::shard::Key;

/// The receive of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receive {
    /// None is armed.
    Idle,
    /// One is armed.
    Armed,
    /// One is armed and was asked to end.
    Ending,
    /// The peer has finished sending, or the socket failed: none will be armed.
    Over,
}

/// What is to become of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It stays.
    Stays,
    /// It moves to this core once it is quiet.
    Moves(u16),
    /// It is on its way there.
    Moving,
    /// Its last bytes are going out.
    Flushes(CloseReason),
    /// They are out; the peer has until its deadline to end its side.
    Lingers(CloseReason),
    /// The kernel is asked what the peer has, for the last time.
    Asks(CloseReason),
}

/// State of one socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    pub(super) generation: u32,
    pub(super) slot: u32,
    /// Where its peer is, among the addresses of the process.
    pub(super) place: Place,
    pub(super) segment: u16,
    pub(super) receive: Receive,
    pub(super) fate: Fate,
    /// Receives go on from one to the next (multishot): it is at its user's home.
    pub(super) at_home: bool,
    /// It receives into large buffers.
    pub(super) large: bool,
    /// Receives in a row for which a small one would have done.
    pub(super) small_receives: u8,
    pub(super) paused: bool,
    pub(super) sending: bool,
    /// A send failed: no more are tried.
    pub(super) broken: bool,
    /// Its time to end its side is over: nothing is received any more.
    pub(super) cut: bool,
    /// The kernel is asked whether it has ended.
    pub(super) polling: bool,
    /// It had, when it was looked at last, and no operation has told.
    pub(super) found_ended: bool,
    /// Receives since it was looked at last.
    pub(super) receives: u8,
    /// The shard asks what the peer has.
    pub(super) probing: bool,
    /// Our side was shut, which the kernel counts as one more byte to acknowledge.
    pub(super) shut: bool,
    /// Shutdowns under way. The kernel does them on a thread of its own, after what
    /// was queued behind them, and looks its slot up only then: until they are done
    /// the slot must not be given to another socket.
    pub(super) shutting: u8,
}

// There may be millions: what is added here is paid for by every connection.
const _: () = assert!(size_of::<Option<Socket>>() == 32);

/// The sockets of a core.
#[derive(Default)]
pub(super) struct Sockets(Vec<Option<Socket>>);

impl Sockets {
    pub(super) fn insert(&mut self, key: Key, segment: u16, slot: u32, place: Place) {
        let index = key.index as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        self.0[index] = Some(Socket {
            generation: key.generation,
            slot,
            place,
            segment,
            receive: Receive::Idle,
            fate: Fate::Stays,
            at_home: false,
            large: false,
            small_receives: 0,
            paused: false,
            sending: false,
            broken: false,
            cut: false,
            polling: false,
            found_ended: false,
            receives: 0,
            probing: false,
            shut: false,
            shutting: 0,
        });
    }

    /// Asks the memory for these sockets, before they are used one by one; says how many.
    pub(super) fn expect(&self, keys: impl Iterator<Item = Key>) -> usize {
        let mut count = 0;
        for key in keys {
            if let Some(socket) = self.0.get(key.index as usize) {
                prefetch(socket);
            }
            count += 1;
        }
        count
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Socket> {
        self.0
            .get_mut(key.index as usize)?
            .as_mut()
            .filter(|socket| socket.generation == key.generation)
    }

    /// Places of sockets, used and free.
    pub(super) fn places(&self) -> usize {
        self.0.len()
    }

    /// The connection whose socket has this place.
    pub(super) fn key_at(&self, place: usize) -> Option<Key> {
        let socket = self.0.get(place)?.as_ref()?;
        Some(Key {
            index: place as u32,
            generation: socket.generation,
        })
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Socket> {
        self.get_mut(key)?;
        self.0[key.index as usize].take()
    }
}
