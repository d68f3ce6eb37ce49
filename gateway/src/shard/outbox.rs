//! The outbox of one connection: bytes on their way to the socket, and the
//! messages among them whose reader has not acknowledged them yet.
//!
//! Owner: the shard of the connection's core. Bytes lie in chunks that never
//! move; a chunk out at the ring is shared with it (`Rc`) and therefore sealed
//! until the ring lets go. Invariants: a message's bytes lie whole within one
//! chunk; a chunk is given back to the pool only when every byte of it was sent
//! and no message in it that is nowhere else waits for its acknowledgement;
//! messages that are nowhere else stand behind those that are; messages are
//! acknowledged in the order in which they were pushed.
//!
//! What is in the store, or on its way there, does not return from here: its
//! bytes are let go of as soon as they are sent. So a drain goes on as fast as
//! its reader takes it, however late it is acknowledged.

use std::hint::black_box;
use std::rc::Rc;

use iris_protocol::framed::Answer;

use super::chunks::{Chunk, Chunks};
use super::entries::Entries;
use super::pool::{CHUNK_BYTES, Pool};
use super::slots::Key;
use super::steps::Steps;
use super::unacked::{Entry, Ms48, NO_REPLY, Passport, ReplyTo, Stored, Unacked};

/// Bytes of names that are done with before the others move to the front.
const COMPACT_AFTER: usize = 256;

/// Bytes and messages of one connection; see the module's text. What a delivery
/// touches stands on the first two cache lines.
#[repr(C, align(64))]
pub struct Outbox {
    chunks: Chunks,
    /// Stream position behind the last byte pushed.
    end: u64,
    /// Stream position behind which nothing is sent any more: [`OPEN`] until a close
    /// is due.
    sealed_at: u64,
    unacked: Entries,
    /// Names of their senders, each behind its length; before them, `senders_gone`
    /// bytes of those that are done with.
    senders: Vec<u8>,
    /// Stream position up to which the kernel has taken the bytes.
    sent: u64,
    /// Stream position from which on the bytes are kept.
    kept_from: u64,
    senders_gone: u32,
    /// How many of the oldest in `unacked` are in the store, or on their way there.
    unstored: u32,
    /// Messages in it whose senders wait for an answer.
    awaited: u32,
    /// Messages pushed since the kernel was last asked what the peer has, as far as
    /// it matters.
    unasked: u16,
    in_flight: bool,
    /// What came before `unacked`, is in the store, and is not acknowledged either.
    steps: Steps,
    /// Answers to the peer's sends, on their way into one frame at the end of the turn.
    pub answers: Vec<Answer>,
    /// Stream position behind the last bytes that are no message: those are
    /// answers, which must reach the peer.
    answers_end: u64,
}

/// No stream gets here.
const OPEN: u64 = u64::MAX;

impl Default for Outbox {
    fn default() -> Self {
        Outbox {
            chunks: Chunks::default(),
            end: 0,
            sealed_at: OPEN,
            unacked: Entries::default(),
            senders: Vec::new(),
            sent: 0,
            kept_from: 0,
            senders_gone: 0,
            unstored: 0,
            awaited: 0,
            unasked: 0,
            in_flight: false,
            steps: Steps::default(),
            answers: Vec::new(),
            answers_end: 0,
        }
    }
}

impl Outbox {
    /// Brings it near: see [`ahead`](super::ahead).
    #[inline(always)]
    pub fn touch(&self) {
        black_box((self.end, self.unasked));
    }

    /// The same for where the next message goes.
    #[inline(always)]
    pub fn touch_back(&self) {
        black_box((
            self.chunks
                .newest()
                .map(|chunk| chunk.bytes.last().copied()),
            self.senders.last(),
            self.unacked.spare().map(|entry| entry.end),
        ));
    }

    /// The same for what is sent or acknowledged next.
    #[inline(always)]
    pub fn touch_front(&self) {
        black_box((
            self.oldest().map(|entry| entry.payload_len),
            self.chunks.oldest().map(Chunk::end),
        ));
    }

    /// Appends `len` bytes that `write` produces, contiguous in one chunk.
    #[inline(always)]
    pub fn push(&mut self, pool: &mut Pool, len: usize, write: impl FnOnce(&mut Vec<u8>)) {
        if self.sealed_at != self.end
            && let Some(chunk) = self.chunks.newest_mut()
            && let Some(bytes) = Rc::get_mut(&mut chunk.bytes)
            && bytes.capacity() - bytes.len() >= len
        {
            write(bytes);
            self.end = chunk.end();
            return;
        }
        let class = match self.retained_bytes() {
            0 => 0,
            1..=4095 => 1,
            _ => 2,
        };
        let mut bytes = pool.chunk(len, class);
        write(Rc::get_mut(&mut bytes).expect("a pooled chunk is held by nobody else"));
        let chunk = Chunk {
            bytes,
            start: self.end,
        };
        self.end = chunk.end();
        self.chunks.push(chunk);
    }

    /// Appends bytes that are no message.
    pub fn push_answer(&mut self, pool: &mut Pool, len: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.push(pool, len, write);
        self.answers_end = self.end;
    }

    /// Notes that the bytes pushed last were a message, whose payload is their tail.
    #[inline(always)]
    pub fn track(
        &mut self,
        sender: &str,
        payload_len: u32,
        stored: Stored,
        passport: Passport,
        now_ms: u64,
    ) {
        self.senders.push(sender.len() as u8);
        self.senders.extend_from_slice(sender.as_bytes());
        self.awaited += u32::from(passport.reply.is_some());
        self.unasked = self.unasked.saturating_add(1);
        if stored != Stored::No && self.unstored as usize == self.unacked.len() {
            self.unstored += 1;
        }
        let reply = passport.reply.unwrap_or(ReplyTo {
            core: NO_REPLY,
            user: Key::NONE,
        });
        self.unacked.push(Entry {
            end: self.end,
            id: passport.id,
            sent_at_ms: Ms48::of(passport.sent_at_ms),
            expires_at_ms: passport.expires_at_ms,
            stored: stored.pack(),
            reply_user: reply.user,
            payload_len,
            pushed_at_ms: now_ms as u32,
            reply_core: reply.core,
        });
    }

    /// What to send next: a sealed chunk and the offset to send it from. The
    /// caller reports back with [`Outbox::sent`] before the next one is given.
    pub fn next_chunk(&mut self) -> Option<(Rc<Vec<u8>>, usize)> {
        if self.in_flight || self.sent >= self.sealed_at.min(self.end) {
            return None;
        }
        let chunk = self.chunks.iter().find(|chunk| chunk.end() > self.sent)?;
        self.in_flight = true;
        Some((Rc::clone(&chunk.bytes), (self.sent - chunk.start) as usize))
    }

    /// The kernel took `len` bytes of the chunk in flight. The caller has let go
    /// of the chunk before.
    pub fn sent(&mut self, pool: &mut Pool, len: usize) {
        self.in_flight = false;
        self.sent += len as u64;
        self.release(pool);
    }

    /// Takes the oldest message off the queue: its reader has it.
    pub fn pop_acked(&mut self) -> Option<Unacked> {
        let entry = *self.oldest()?;
        self.awaited -= u32::from(entry.is_awaited());
        self.drop_oldest(1);
        Some(entry.view())
    }

    /// Takes the messages off the queue that end at `position` or before, if of all
    /// messages here none is in the store and nobody waits for an answer. Says how
    /// many. They are not looked at, since by now most are in no near cache.
    pub fn drop_plain_until(&mut self, position: u64) -> u64 {
        if self.awaited > 0 || self.unstored > 0 {
            return 0;
        }
        let count = self.unacked.count_until(|entry| entry.end <= position);
        self.drop_oldest(count);
        count as u64
    }

    fn drop_oldest(&mut self, count: usize) {
        self.unacked.drop_front(count);
        self.unstored = self.unstored.saturating_sub(count as u32);
        if self.unacked.is_empty() {
            self.senders.clear();
            self.senders_gone = 0;
            return;
        }
        let mut gone = self.senders_gone as usize;
        for _ in 0..count {
            gone += 1 + usize::from(self.senders[gone]);
        }
        if gone >= COMPACT_AFTER && gone * 2 >= self.senders.len() {
            self.senders.drain(..gone);
            gone = 0;
        }
        self.senders_gone = gone as u32;
    }

    fn clear_unacked(&mut self) {
        self.unacked.clear();
        self.senders.clear();
        self.senders_gone = 0;
        self.unstored = 0;
    }

    /// Takes the oldest message off the queue, delivery number `delivery`, if it was
    /// sent and cannot return from here: what it still stands for is a step.
    pub fn fold_oldest(&mut self, delivery: u64) -> Option<Unacked> {
        let oldest = self.oldest()?;
        let head = match oldest.view().stored {
            Stored::At(sequence) => sequence + 1,
            Stored::Failed(_) => 0,
            Stored::No | Stored::Appending(_) => return None,
        };
        if oldest.end > self.sent {
            return None;
        }
        self.steps.push(delivery, head);
        self.pop_acked()
    }

    /// The reader has all deliveries up to this one: how many of those that were
    /// folded this settles, and how far the inbox can be burned for them.
    pub fn fold_acked(&mut self, delivery: u64) -> (u64, u64) {
        self.steps.acknowledged(delivery)
    }

    /// Gives back the chunks that nobody needs any more.
    pub fn release(&mut self, pool: &mut Pool) {
        let needed_from = self
            .unacked
            .get(self.unstored as usize)
            .map_or(self.sent, |entry| self.sent.min(entry.starts_payload_at()));
        self.kept_from = needed_from;
        while let Some(chunk) = self.chunks.pop_older_until(needed_from) {
            pool.put_chunk(chunk.bytes);
        }
        // The newest has room for what comes next: it is rewound in place.
        let is_free = !self.in_flight && self.unstored_len() == 0;
        if is_free
            && let Some(only) = self.chunks.only_mut()
            && only.end() <= needed_from
            && let Some(bytes) = Rc::get_mut(&mut only.bytes)
            && CHUNK_BYTES.contains(&bytes.capacity())
        {
            bytes.clear();
            only.start = self.end;
        }
    }

    /// How many messages are not acknowledged, without those that were folded.
    pub fn unacked_len(&self) -> usize {
        self.unacked.len()
    }

    /// How many of them are nowhere else.
    pub fn unstored_len(&self) -> usize {
        self.unacked.len() - self.unstored as usize
    }

    fn oldest(&self) -> Option<&Entry> {
        self.unacked.get(0)
    }

    /// Stream position behind the oldest message that is not acknowledged.
    pub fn oldest_end(&self) -> Option<u64> {
        self.oldest().map(|entry| entry.end)
    }

    /// How long the oldest message that is nowhere else has waited for its
    /// acknowledgement.
    pub fn unstored_age_ms(&self, now_ms: u64) -> Option<u64> {
        let entry = self.unacked.get(self.unstored as usize)?;
        Some(u64::from((now_ms as u32).wrapping_sub(entry.pushed_at_ms)))
    }

    /// Changes where the message `from_back` places before the newest stands in
    /// the store; `false` if it is not here any more. What is stored needs no
    /// further answer.
    pub fn set_stored(&mut self, from_back: u64, stored: Stored) -> bool {
        let newest = self.unacked.len().checked_sub(1);
        let at = newest.and_then(|newest| newest.checked_sub(from_back as usize));
        let Some(entry) = at.and_then(|at| self.unacked.get_mut(at)) else {
            return false;
        };
        entry.stored = stored.pack();
        if matches!(stored, Stored::At(_)) && entry.is_awaited() {
            entry.reply_core = NO_REPLY;
            self.awaited -= 1;
        }
        true
    }

    /// Calls `visit` with each unacknowledged message, oldest first, and with the
    /// sender and payload of those that are nowhere else; it answers where the
    /// message stands in the store now.
    pub fn visit_unacked(
        &mut self,
        mut visit: impl FnMut(&Unacked, Option<(&str, &[u8])>) -> Stored,
    ) {
        let mut senders = &self.senders[self.senders_gone as usize..];
        let mut chunks = self.chunks.iter().peekable();
        for at in 0..self.unacked.len() {
            let Some(entry) = self.unacked.get_mut(at) else {
                break;
            };
            let (len, rest) = senders.split_first().expect("every message has a sender");
            let (sender, rest) = rest.split_at(usize::from(*len));
            senders = rest;
            if at < self.unstored as usize {
                entry.stored = visit(&entry.view(), None).pack();
                continue;
            }
            while chunks.peek().is_some_and(|chunk| chunk.end() < entry.end) {
                chunks.next();
            }
            let chunk = chunks
                .peek()
                .expect("chunks are kept while a message is nowhere else");
            let end = (entry.end - chunk.start) as usize;
            let payload = &chunk.bytes[end - entry.payload_len as usize..end];
            let sender =
                std::str::from_utf8(sender).expect("names were valid when they were pushed");
            entry.stored = visit(&entry.view(), Some((sender, payload))).pack();
        }
        while let Some(entry) = self.unacked.get(self.unstored as usize)
            && entry.view().stored != Stored::No
        {
            self.unstored += 1;
        }
    }

    /// Forgets every message (they were returned or are in the store), and their
    /// bytes as far as whole chunks of nothing else have not begun to be sent.
    pub fn abandon_unacked(&mut self, pool: &mut Pool) {
        self.clear_unacked();
        self.steps.clear();
        self.awaited = 0;
        while let Some(back) = self.chunks.newest() {
            let untouched = back.start > self.sent || (back.start == self.sent && !self.in_flight);
            if !untouched || back.start < self.answers_end {
                break;
            }
            self.end = back.start;
            // What will not be sent is not waited for.
            if self.sealed_at != OPEN {
                self.sealed_at = self.sealed_at.min(self.end);
            }
            if let Some(chunk) = self.chunks.pop_newest() {
                pool.put_chunk(chunk.bytes);
            }
        }
        self.release(pool);
    }

    /// Forgets everything, for the next use.
    pub(super) fn empty(&mut self, pool: &mut Pool) {
        while let Some(chunk) = self.chunks.pop_newest() {
            pool.put_chunk(chunk.bytes);
        }
        self.clear_unacked();
        self.steps.clear();
        self.answers.clear();
        self.sent = 0;
        self.end = 0;
        self.answers_end = 0;
        self.sealed_at = OPEN;
        self.in_flight = false;
        self.awaited = 0;
        self.kept_from = 0;
        self.unasked = 0;
        self.unacked.shrink();
        if self.senders.capacity() > 4096 || self.answers.capacity() > 256 {
            self.senders.shrink_to(256);
            self.answers.shrink_to(16);
        }
    }

    /// Nothing behind the present end will be sent: the connection is closing.
    pub fn seal(&mut self) {
        self.sealed_at = self.sealed_at.min(self.end);
    }

    /// Whether all that shall be sent was taken by the kernel.
    pub fn is_flushed(&self) -> bool {
        !self.in_flight && self.sent >= self.sealed_at.min(self.end)
    }

    /// Messages pushed since [`Outbox::asked`].
    pub fn unasked(&self) -> u32 {
        self.unasked.into()
    }

    /// The kernel is asked what the peer has.
    pub fn asked(&mut self) {
        self.unasked = 0;
    }

    /// Messages in it whose senders wait for an answer.
    pub fn awaited(&self) -> u32 {
        self.awaited
    }

    /// Whether it holds neither bytes nor messages nor answers.
    pub fn is_idle(&self) -> bool {
        self.is_flushed()
            && self.unacked_len() == 0
            && self.steps.is_empty()
            && self.answers.is_empty()
    }

    /// Bytes not yet taken by the kernel.
    pub fn unsent_bytes(&self) -> u64 {
        self.end - self.sent
    }

    /// Bytes that cannot be released yet, because they are unsent or their
    /// message is neither acknowledged nor anywhere else.
    pub fn retained_bytes(&self) -> u64 {
        self.end - self.kept_from
    }

    /// Stream position up to which the kernel has taken the bytes.
    pub fn sent_position(&self) -> u64 {
        self.sent
    }
}

#[cfg(test)]
mod tests;
