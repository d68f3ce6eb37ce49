//! Looking ahead: what the next few events will need is touched before they are
//! handled one by one.
//!
//! With ten thousand users and more, what a message needs (sender, directory entry,
//! reader, outbox) is in no near cache, and each step waits for the one before it.
//! Touched for a block of events at a time, step by step, these waits overlap. It
//! only reads, and what it guesses wrong costs nothing but time.
//!
//! Owner: the shard.

use std::hint::black_box;

use iris_protocol::classic::{self, Command};
use iris_protocol::framed::{self, DecodeLimits, Decoded, Frame};
use iris_storage::{UserHash, user_hash};

use super::Shard;
use super::outbox::Outbox;
use super::slots::Key;

/// Events that are looked at together: enough to keep the memory busy, few enough
/// that what was touched is still near when it is used.
pub const BLOCK: usize = 32;

/// A few keys on the stack.
struct Keys {
    keys: [Key; BLOCK],
    len: usize,
}

impl Keys {
    fn new() -> Keys {
        Keys {
            keys: [Key::NONE; BLOCK],
            len: 0,
        }
    }

    fn push(&mut self, key: Key) {
        if let Some(free) = self.keys.get_mut(self.len) {
            *free = key;
            self.len += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = Key> {
        self.keys.iter().take(self.len).copied()
    }
}

impl Shard {
    /// These segments will be received next, up to [`BLOCK`] of them.
    pub fn expect_received<'a>(&self, segments: impl Iterator<Item = (Key, &'a [u8])>) {
        self.expect_readers(segments.filter_map(|(id, segment)| {
            if let Some(connection) = self.connections.get(id) {
                connection.touch();
            }
            Some(user_hash(self.seed, self.first_target(segment)?))
        }));
    }

    /// Messages for these users come next, up to [`BLOCK`] of them.
    pub(super) fn expect_readers(&self, hashes: impl Iterator<Item = UserHash>) {
        let mut readers = Keys::new();
        hashes
            .filter_map(|hash| self.directory.get(&hash))
            .for_each(|user| readers.push(*user));
        let mut sessions = Keys::new();
        for user in readers.iter().filter_map(|key| self.users.get(key)) {
            black_box(user.name.as_bytes().first());
            sessions.push(user.session);
        }
        self.expect_outboxes(&sessions, Outbox::touch_back);
    }

    /// These connections will be told what was sent or what their peers have.
    pub fn expect_progress(&self, ids: impl Iterator<Item = Key>) {
        let mut expected = Keys::new();
        ids.for_each(|id| expected.push(id));
        self.expect_outboxes(&expected, Outbox::touch_front);
    }

    /// The next [`BLOCK`] connections with something to send will be asked for it.
    /// Says which.
    pub fn expect_sends(&self) -> impl Iterator<Item = Key> {
        let mut expected = Keys::new();
        let next = self.dirty.iter().rev().take(BLOCK);
        next.for_each(|id| expected.push(*id));
        self.expect_outboxes(&expected, Outbox::touch_front);
        expected.keys.into_iter().take(expected.len)
    }

    #[inline(always)]
    fn expect_outboxes(&self, ids: &Keys, touch: impl Fn(&Outbox)) {
        for connection in ids.iter().filter_map(|id| self.connections.get(id)) {
            connection.touch();
        }
        let outboxes = || {
            ids.iter()
                .filter_map(|id| self.connections.get(id)?.outbox.as_deref())
        };
        outboxes().for_each(|outbox| outbox.touch());
        outboxes().for_each(touch);
    }

    /// Whom the first command of a segment is for, if it is a send.
    fn first_target<'a>(&self, segment: &'a [u8]) -> Option<&'a [u8]> {
        match *segment.first()? {
            classic::SEND => match classic::decode(segment) {
                Ok(Some((Command::Send { target, .. }, _))) => Some(target.as_bytes()),
                _ => None,
            },
            // The length of a frame begins with it, and no classic command does.
            0 => {
                let payload_bytes_max = self.limits.payload_bytes_max;
                match framed::decode(segment, &DecodeLimits { payload_bytes_max }) {
                    Ok(Decoded::Frame(Frame::Send { target, .. }, _)) => Some(target),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}
