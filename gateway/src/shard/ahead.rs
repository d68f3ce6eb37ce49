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
use iris_protocol::framed::{self, Decoded, Frame};
use iris_ring::prefetch;
use iris_storage::UserHash;

use super::Shard;
use super::envelope::Whom;
use super::outbox::Outbox;
use super::slots::Key;
use super::user::Sends;

/// Events that are looked at together: enough to keep the memory busy, few enough that what
/// they need, some 16 cache lines each, is still in the nearest cache when it is used.
pub const BLOCK: usize = 16;

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;
/// Cache lines of a connection in its slot.
const CONNECTION_LINES: usize = 3;
/// Cache lines of a user in its slot.
const USER_LINES: usize = 2;

/// A block of things on the stack.
struct Few<T> {
    items: [T; BLOCK],
    len: usize,
}

impl<T: Copy> Few<T> {
    fn new(filler: T) -> Few<T> {
        Few {
            items: [filler; BLOCK],
            len: 0,
        }
    }

    fn push(&mut self, item: T) {
        if let Some(free) = self.items.get_mut(self.len) {
            *free = item;
            self.len += 1;
        }
    }

    fn is_full(&self) -> bool {
        self.len == BLOCK
    }

    fn iter(&self) -> impl Iterator<Item = T> {
        self.items.iter().take(self.len).copied()
    }
}

type Keys = Few<Key>;

impl Shard {
    /// These segments will be received next, up to [`BLOCK`] of them.
    pub fn expect_received<'a>(&self, segments: impl Iterator<Item = (Key, &'a [u8])> + Clone) {
        for (id, segment) in segments.clone() {
            prefetch(segment.as_ptr());
            self.connections.prefetch(id, CONNECTION_LINES);
        }
        // Hashes first, look-ups after: in one loop there are too many instructions between
        // two look-ups for their waits to overlap.
        let mut hashes = Few::new(UserHash(0));
        let mut framed = Keys::new(Key::NONE);
        for (id, segment) in segments {
            if let Some(sender) = self.connections.get(id)
                && let Some(name) = &sender.name
            {
                prefetch(name.as_ptr());
                if sender.is_framed() {
                    self.users.prefetch(sender.user, USER_LINES);
                    framed.push(sender.user);
                }
            }
            if let Some(target) = self.first_target(segment) {
                hashes.push(self.name_key.hash(target));
            }
        }
        self.prefetch_sends(&framed);
        self.expect_readers(hashes.iter());
        self.prefetch_newest_sends(&framed);
    }

    /// These frames come next: what the readers of the first sends among them need, up to
    /// [`BLOCK`] of them in as many lines. Says how many bytes were looked at.
    pub(super) fn expect_frames(&self, input: &[u8]) -> usize {
        let limits = self.limits.decoding();
        // Decoding would wait for one line after another.
        for line in input.chunks(LINE).take(BLOCK) {
            prefetch(line.as_ptr());
        }
        let mut hashes = Few::new(UserHash(0));
        let mut at = 0;
        while !hashes.is_full()
            && at < LINE * BLOCK
            && let Ok(Decoded::Frame(frame, frame_len)) = framed::decode(&input[at..], &limits)
        {
            at += frame_len;
            if let Frame::Send { target, .. } = frame {
                hashes.push(self.name_key.hash(target));
            }
        }
        self.expect_readers(hashes.iter());
        at
    }

    /// Messages for these users come next, up to [`BLOCK`] of them.
    pub(super) fn expect_readers(&self, hashes: impl Iterator<Item = UserHash>) {
        let mut readers = Keys::new(Key::NONE);
        for user in hashes.filter_map(|hash| self.directory.get(&hash)) {
            self.users.prefetch(*user, 1);
            readers.push(*user);
        }
        let mut sessions = Keys::new(Key::NONE);
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

    /// Envelopes of another core for these users come next, up to [`BLOCK`] of them.
    pub(super) fn expect_envelopes(&self, whom: impl Iterator<Item = Whom>) {
        let mut hashes = Few::new(UserHash(0));
        let mut senders = Keys::new(Key::NONE);
        for whom in whom {
            match whom {
                Whom::Reader(hash) => hashes.push(hash),
                Whom::Sender(user) => {
                    self.users.prefetch(user, USER_LINES);
                    senders.push(user);
                }
                Whom::Other => {}
            }
        }
        self.expect_readers(hashes.iter());
        self.expect_sends_of(&senders);
    }

    /// These connections will be told what was sent or what their peers have.
    pub fn expect_progress(&self, ids: impl Iterator<Item = Key>) {
        let mut expected = Keys::new(Key::NONE);
        for id in ids {
            self.connections.prefetch(id, 1);
            expected.push(id);
        }
        self.prefetch_outboxes(&expected);
    }

    /// The next [`BLOCK`] connections with something to send will be asked for it.
    /// Says which.
    pub fn expect_sends(&self) -> impl Iterator<Item = Key> {
        let mut expected = Keys::new(Key::NONE);
        for id in self.dirty.iter().rev().take(BLOCK) {
            self.connections.prefetch(*id, 1);
            expected.push(*id);
        }
        self.prefetch_outboxes(&expected);
        expected.items.into_iter().take(expected.len)
    }

    /// The reader on this connection will acknowledge its deliveries next, up to this one: the
    /// senders of the first [`BLOCK`] of them will be told.
    pub(super) fn expect_answers(&self, id: Key, delivery: u64) {
        let mut senders = Keys::new(Key::NONE);
        if let Some(connection) = self.connections.get(id)
            && let Some(outbox) = connection.outbox.as_deref()
        {
            let oldest = connection.deliveries + 1 - outbox.unacked_len() as u64;
            let acked = (delivery + 1).saturating_sub(oldest).min(BLOCK as u64);
            for reply in outbox.awaiting(acked as usize) {
                if reply.core == self.core {
                    self.users.prefetch(reply.user, USER_LINES);
                    senders.push(reply.user);
                }
            }
        }
        self.expect_sends_of(&senders);
    }

    /// What these users have sent will be looked at, and they be answered.
    fn expect_sends_of(&self, users: &Keys) {
        let mut sessions = Keys::new(Key::NONE);
        for user in users.iter().filter_map(|key| self.users.get(key)) {
            self.connections.prefetch(user.session, 1);
            sessions.push(user.session);
        }
        self.prefetch_sends(users);
        for outbox in self.outboxes(&sessions) {
            outbox.prefetch_answers();
        }
        self.prefetch_newest_sends(users);
        for outbox in self.outboxes(&sessions) {
            prefetch(outbox.answers.as_ptr().wrapping_add(outbox.answers.len()));
        }
    }

    fn prefetch_sends(&self, users: &Keys) {
        for sends in self.sends(users) {
            prefetch(sends);
        }
    }

    fn prefetch_newest_sends(&self, users: &Keys) {
        for sends in self.sends(users) {
            sends.prefetch_newest();
        }
    }

    fn sends(&self, users: &Keys) -> impl Iterator<Item = &Sends> {
        users
            .iter()
            .filter_map(|key| self.users.get(key)?.sends.as_deref())
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
            0 => match framed::decode(segment, &self.limits.decoding()) {
                Ok(Decoded::Frame(Frame::Send { target, .. }, _)) => Some(target),
                _ => None,
            },
            _ => None,
        }
    }
}
