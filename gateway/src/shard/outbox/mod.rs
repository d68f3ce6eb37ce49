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

mod messages;

use std::rc::Rc;

use iris_protocol::framed::Answer;
use iris_ring::prefetch;

use super::chunks::{Chunk, Chunks};
use super::entries::Entries;
use super::pool::{CHUNK_BYTES, Pool};
use super::steps::Steps;
use super::unacked::Entry;

/// Bytes and messages of one connection; see the module's text. What a delivery
/// touches stands on the first two cache lines.
#[repr(C, align(64))]
pub struct Outbox {
    chunks: Chunks,
    /// Stream position behind the last byte pushed.
    end: u64,
    /// Stream position behind which nothing is sent: [`OPEN`] until a close is due, or
    /// while nothing is barred.
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
    /// it matters. A long one counts as many.
    unasked: u16,
    /// Stream position behind what is in flight; that of `sent` if nothing is.
    in_flight_end: u64,
    /// Nothing behind `sealed_at` is sent before the peer has what is before it.
    barred: bool,
    /// What came before `unacked`, is in the store, and is not acknowledged either.
    steps: Steps,
    /// Answers to the peer's sends, on their way into one frame at the end of the turn.
    pub answers: Vec<Answer>,
    /// Stream position behind the last bytes that are no message: those are
    /// answers, which must reach the peer.
    answers_end: u64,
    /// Until when what is barred stays so in any case, milliseconds of the core's clock.
    barred_until_ms: u64,
    /// Bytes that are counted in the budget for what it holds besides chunks.
    counted: u32,
    /// Those of them for what is noted of its messages.
    tracked: u32,
}

const _: () = assert!(size_of::<Outbox>() <= 256);

/// A chunk is not gone on with for a new send when less than this part of it is free: the
/// send would soon be cut in two.
const TAIL_PART: usize = 8;
/// Bytes waiting to be sent from which on the next chunk is a large one, and one of the largest.
const UNSENT_LARGE: u64 = 4 << 10;
const UNSENT_LARGEST: u64 = 32 << 10;
/// Bytes behind the first chunk of a send that go with it: a socket takes about as many at once. A reader that is sent a
/// chunk in each turn and no more would fall behind.
const SEND_BYTES_MAX: u64 = 512 << 10;
/// The same in chunks, which are as short as a message while memory is: the kernel takes 1,024 at most.
const SEND_CHUNKS_MAX: usize = 63;
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
            in_flight_end: 0,
            barred: false,
            steps: Steps::default(),
            answers: Vec::new(),
            answers_end: 0,
            barred_until_ms: 0,
            counted: 0,
            tracked: 0,
        }
    }
}

impl Outbox {
    /// What is noted of one message that is not acknowledged.
    pub(super) const BYTES_OF_UNACKED: usize = size_of::<Entry>();

    /// Asks the memory for what every message needs of it: see [`ahead`](super::ahead).
    #[inline(always)]
    pub fn prefetch(&self) {
        let first = std::ptr::from_ref(self).cast::<u8>();
        prefetch(first);
        prefetch(first.wrapping_add(64));
    }

    /// The same for where answers are.
    #[inline(always)]
    pub fn prefetch_answers(&self) {
        prefetch(&self.answers);
    }

    /// The same for what tells where the newest bytes end.
    #[inline(always)]
    pub fn prefetch_chunk(&self) {
        if let Some(chunk) = self.chunks.newest() {
            prefetch(Rc::as_ptr(&chunk.bytes));
        }
    }

    /// The same for where the next message goes.
    #[inline(always)]
    pub fn prefetch_back(&self) {
        if let Some(chunk) = self.chunks.newest() {
            let end = chunk.bytes.as_ptr().wrapping_add(chunk.bytes.len());
            prefetch(end);
            prefetch(end.wrapping_add(64));
        }
        prefetch(self.senders.as_ptr().wrapping_add(self.senders.len()));
        self.unacked.prefetch_spare();
    }

    /// Appends `len` bytes that `write` produces, contiguous in one chunk.
    #[inline(always)]
    pub fn push(&mut self, pool: &mut Pool, len: usize, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(chunk) = self.chunks.newest_mut()
            && (self.sealed_at != self.end || chunk.start == self.end)
            && let Some(bytes) = Rc::get_mut(&mut chunk.bytes)
            && let room = bytes.capacity() - bytes.len()
            && room >= len
            && (self.sent < self.end || room >= bytes.capacity() / TAIL_PART)
        {
            write(bytes);
            self.end = chunk.end();
            return;
        }
        let class = match (self.retained_bytes(), self.unsent_bytes()) {
            (0, _) => 0,
            (_, 0..UNSENT_LARGE) => 1,
            (_, UNSENT_LARGE..UNSENT_LARGEST) => 2,
            _ => 3,
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

    /// What to send next: a sealed chunk and the offset to send it from. The
    /// caller reports back with [`Outbox::sent`] before the next one is given.
    pub fn next_chunk(&mut self) -> Option<(Rc<Vec<u8>>, usize)> {
        if self.is_in_flight() || self.sent >= self.sealed_at.min(self.end) {
            return None;
        }
        let chunk = self.chunks.at(self.sent)?;
        self.in_flight_end = chunk.end();
        Some((Rc::clone(&chunk.bytes), (self.sent - chunk.start) as usize))
    }

    fn is_in_flight(&self) -> bool {
        self.in_flight_end > self.sent
    }

    /// Whether there are chunks that may go out in one send with that.
    pub fn has_chunks_behind(&self) -> bool {
        self.in_flight_end < self.sealed_at.min(self.end)
    }

    /// What goes out in one send with that: the chunks behind it.
    pub fn chunks_behind(&mut self) -> impl Iterator<Item = Rc<Vec<u8>>> {
        let (from, until) = (self.in_flight_end, self.sealed_at.min(self.end));
        let goes = move |chunk: &&Chunk| {
            (from..until).contains(&chunk.start) && chunk.start < from + SEND_BYTES_MAX
        };
        let chunks = || self.chunks.iter().filter(goes).take(SEND_CHUNKS_MAX);
        self.in_flight_end = chunks().last().map_or(from, Chunk::end);
        chunks().map(|chunk| Rc::clone(&chunk.bytes))
    }

    /// The kernel took `len` bytes of the chunks in flight. The caller has let go
    /// of them before.
    pub fn sent(&mut self, pool: &mut Pool, len: usize) {
        // What was kept when the last bytes went out is kept on: its end releases it.
        let keeps = self.kept_from < self.sent && self.unstored_len() > 0;
        self.sent += len as u64;
        self.in_flight_end = self.sent;
        if !keeps {
            self.release(pool);
        }
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
        let is_free = !self.is_in_flight() && self.unstored_len() == 0;
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

    /// Forgets every message (they were returned or are in the store), and their
    /// bytes as far as whole chunks of nothing else have not begun to be sent.
    pub fn abandon_unacked(&mut self, pool: &mut Pool) {
        self.clear_unacked();
        self.steps.clear();
        while let Some(back) = self.chunks.newest() {
            if back.start < self.in_flight_end || back.start < self.answers_end {
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

    /// Memory besides that of its chunks, as it is counted.
    pub(super) fn memory(&self) -> u64 {
        size_of::<Outbox>() as u64 + u64::from(self.counted)
    }

    /// Counts what it holds besides chunks. To be called when [`Outbox::has_grown`], and once a turn with answers.
    #[cold]
    pub(super) fn count_memory(&mut self, pool: &mut Pool) {
        let before = u64::from(self.counted);
        let answers = self.answers.capacity() * size_of::<Answer>();
        self.counted = (self.tracked_memory() + self.steps.memory() + answers) as u32;
        self.tracked = self.tracked_memory() as u32;
        pool.budget.charge(u64::from(self.counted));
        pool.budget.release(before);
    }

    fn tracked_memory(&self) -> usize {
        self.unacked.memory() + self.senders.capacity()
    }

    /// Whether what is noted of its messages takes another amount of memory than was counted last.
    #[inline(always)]
    pub(super) fn has_grown(&self) -> bool {
        self.tracked_memory() as u32 != self.tracked
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
        self.in_flight_end = 0;
        self.barred = false;
        self.kept_from = 0;
        self.unasked = 0;
        self.unacked.shrink();
        if self.senders.capacity() > 4096 || self.answers.capacity() > 256 {
            self.senders.shrink_to(256);
            self.answers.shrink_to(16);
        }
        self.count_memory(pool);
    }

    /// Nothing behind the present end will be sent: the connection is closing.
    pub fn seal(&mut self) {
        // What is barred stays behind.
        self.barred = false;
        self.sealed_at = self.sealed_at.min(self.end);
    }

    /// Nothing behind the present end is sent before the peer has all up to it, and not before
    /// `until_ms`.
    pub fn bar(&mut self, until_ms: u64) {
        if self.barred || self.sealed_at == OPEN {
            self.barred = true;
            self.sealed_at = self.end;
            self.barred_until_ms = until_ms;
        }
    }

    /// Whether anything pushed now has to wait for the peer to have what is before it.
    pub fn is_barred(&self) -> bool {
        self.barred
    }

    /// Until when what is barred, or was lately, stays so in any case.
    pub fn barred_until_ms(&self) -> u64 {
        self.barred_until_ms
    }

    /// The peer has all but `outstanding` of the bytes sent: what is barred follows, if it is time.
    /// Says whether it does.
    pub fn unbar(&mut self, outstanding: u32, now_ms: u64) -> bool {
        let is_due = self.barred
            && now_ms >= self.barred_until_ms
            && self.sealed_at + u64::from(outstanding) <= self.sent;
        if is_due {
            self.barred = false;
            self.sealed_at = OPEN;
        }
        is_due
    }

    /// Whether all that may be sent was taken by the kernel.
    pub fn is_flushed(&self) -> bool {
        !self.is_in_flight() && self.sent >= self.sealed_at.min(self.end)
    }

    /// Messages pushed since [`Outbox::asked`], of which long ones count as many.
    pub fn unasked(&self) -> u32 {
        self.unasked.into()
    }

    /// The kernel is asked what the peer has.
    pub fn asked(&mut self) {
        self.unasked = 0;
    }

    /// Whether it holds neither bytes nor messages nor answers.
    pub fn is_idle(&self) -> bool {
        self.is_flushed()
            && self.unacked_len() == 0
            && self.steps.is_empty()
            && self.answers.is_empty()
            && !self.barred
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

    /// The same with what is noted of its messages.
    pub fn retained_memory(&self) -> u64 {
        self.retained_bytes() + (self.unacked_len() * Outbox::BYTES_OF_UNACKED) as u64
    }

    /// Stream position up to which the kernel has taken the bytes.
    pub fn sent_position(&self) -> u64 {
        self.sent
    }
}

#[cfg(test)]
mod tests;
