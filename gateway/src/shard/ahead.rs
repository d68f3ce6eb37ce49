//! Looking ahead: what the next few events will need is asked of the memory before they
//! are handled one by one.
//!
//! With a thousand users and more, what a message needs (sender, directory entry,
//! reader, outbox) is in no near cache, and each step waits for the one before it.
//! Prefetched for a block of events at a time, step by step, these waits overlap; what
//! nothing else hangs on is not waited for at all. What it guesses wrong costs nothing
//! but time.
//!
//! Owner: the shard.

use iris_protocol::classic::{self, Command};
use iris_protocol::framed::{self, DecodeLimits, Decoded, Frame};
use iris_ring::prefetch;
use iris_storage::{UserHash, user_hash};

use super::Shard;
use super::outbox::Outbox;
use super::slots::Key;

/// Events that are looked at together: enough to keep the memory busy, few enough that what
/// they need, some 16 cache lines each, is still in the nearest cache when it is used.
pub const BLOCK: usize = 16;

/// Cache lines of a connection in its slot.
const CONNECTION_LINES: usize = 3;

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
    pub fn expect_received<'a>(&self, segments: impl Iterator<Item = (Key, &'a [u8])> + Clone) {
        for (id, segment) in segments.clone() {
            prefetch(segment.as_ptr());
            self.connections.prefetch(id, CONNECTION_LINES);
        }
        // Hashes first, look-ups after: in one loop there are too many instructions between
        // two look-ups for their waits to overlap.
        let mut hashes = [UserHash(0); BLOCK];
        let mut len = 0;
        for (id, segment) in segments {
            if let Some(name) = self
                .connections
                .get(id)
                .and_then(|sender| sender.name.as_ref())
            {
                // Its counts, which stand before it, are written.
                prefetch(name.as_ptr());
            }
            if let Some(target) = self.first_target(segment)
                && let Some(free) = hashes.get_mut(len)
            {
                *free = user_hash(self.seed, target);
                len += 1;
            }
        }
        self.expect_readers(hashes[..len].iter().copied());
    }

    /// Messages for these users come next, up to [`BLOCK`] of them.
    pub(super) fn expect_readers(&self, hashes: impl Iterator<Item = UserHash>) {
        let mut readers = Keys::new();
        for user in hashes.filter_map(|hash| self.directory.get(&hash)) {
            self.users.prefetch(*user, 1);
            readers.push(*user);
        }
        let mut sessions = Keys::new();
        for user in readers.iter().filter_map(|key| self.users.get(key)) {
            prefetch(user.name.as_ptr());
            self.connections.prefetch(user.session, 1);
            sessions.push(user.session);
        }
        self.prefetch_outboxes(&sessions);
        for outbox in self.outboxes(&sessions) {
            outbox.prefetch_back();
        }
    }

    /// These connections will be told what was sent or what their peers have.
    pub fn expect_progress(&self, ids: impl Iterator<Item = Key>) {
        let mut expected = Keys::new();
        for id in ids {
            self.connections.prefetch(id, 1);
            expected.push(id);
        }
        self.prefetch_outboxes(&expected);
    }

    /// The next [`BLOCK`] connections with something to send will be asked for it.
    /// Says which.
    pub fn expect_sends(&self) -> impl Iterator<Item = Key> {
        let mut expected = Keys::new();
        for id in self.dirty.iter().rev().take(BLOCK) {
            self.connections.prefetch(*id, 1);
            expected.push(*id);
        }
        self.prefetch_outboxes(&expected);
        expected.keys.into_iter().take(expected.len)
    }

    /// The outboxes of these connections, and what stands around their newest bytes.
    #[inline(always)]
    fn prefetch_outboxes(&self, ids: &Keys) {
        for outbox in self.outboxes(ids) {
            outbox.prefetch();
        }
        for outbox in self.outboxes(ids) {
            outbox.prefetch_chunk();
        }
    }

    #[inline(always)]
    fn outboxes(&self, ids: &Keys) -> impl Iterator<Item = &Outbox> {
        ids.iter()
            .filter_map(|id| self.connections.get(id)?.outbox.as_deref())
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
