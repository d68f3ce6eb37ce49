//! Chunks and emptied outboxes between two uses, one pool for each core: what was
//! used last is used next, while it is warm in the cache.
//!
//! Owner: the shard. Bounded; what comes back beyond the bounds is freed, and so is all that comes back while the budget
//! of outboxes is short. Every chunk and outbox, lent or kept, is in that budget.

use std::rc::Rc;

use super::budget::Budget;
use super::outbox::Outbox;

/// Chunk sizes. A quiet connection gets by with one small chunk. A busy one uses the middle
/// ones, which hold about what its reader's acknowledgement is waited for: larger ones would
/// come round so late that no cache has them any more. The large ones are for one that has
/// much to be sent, so that a send carries many messages. The largest hold a message of 64 KiB,
/// with its frame and the longest name, or four of 16 KiB.
pub(super) const CHUNK_BYTES: [usize; CHUNK_SIZES] = [512, 8 << 10, 32 << 10, 80 << 10];
const CHUNK_SIZES: usize = 4;
/// Empty chunks of each size kept for reuse, per core (2, 16, 8 and 10 MiB).
const POOLED_CHUNKS_MAX: [usize; CHUNK_SIZES] = [4096, 2048, 256, 128];
/// Emptied outboxes kept for reuse, per core.
const POOLED_OUTBOXES_MAX: usize = 4096;

/// Chunks and outboxes waiting for their next use, one pool for each core.
pub struct Pool {
    chunks: [Vec<Rc<Vec<u8>>>; CHUNK_SIZES],
    // Boxed because connections hold a pointer: most are idle and have none.
    #[allow(clippy::vec_box)]
    outboxes: Vec<Box<Outbox>>,
    lent_bytes: u64,
    /// What all of it is counted in, and what outboxes hold besides chunks.
    pub(super) budget: Budget,
}

impl Pool {
    pub(super) fn new(budget: Budget) -> Pool {
        Pool {
            chunks: Default::default(),
            outboxes: Vec::new(),
            lent_bytes: 0,
            budget,
        }
    }

    /// Memory of all chunks in outboxes.
    pub fn lent_bytes(&self) -> u64 {
        self.lent_bytes
    }

    /// A chunk of this class, or no larger than it must be while memory is short.
    pub(super) fn chunk(&mut self, wanted: usize, class: usize) -> Rc<Vec<u8>> {
        let chunk = self.pooled_chunk(wanted, class);
        self.lent_bytes += chunk.capacity() as u64;
        chunk
    }

    fn pooled_chunk(&mut self, wanted: usize, class: usize) -> Rc<Vec<u8>> {
        let mut classes = if self.budget.is_short() {
            0..1
        } else {
            class..CHUNK_BYTES.len()
        };
        let class = classes.find(|class| wanted <= CHUNK_BYTES[*class]);
        if let Some(kept) = class.and_then(|class| self.chunks[class].pop()) {
            return kept;
        }
        let chunk = Vec::with_capacity(class.map_or(wanted, |class| CHUNK_BYTES[class]));
        self.budget.charge(chunk.capacity() as u64);
        Rc::new(chunk)
    }

    pub(super) fn put_chunk(&mut self, mut chunk: Rc<Vec<u8>>) {
        let capacity = chunk.capacity();
        self.lent_bytes -= capacity as u64;
        // One that is still out at the ring (the connection ended) is freed there.
        if let Some(bytes) = Rc::get_mut(&mut chunk)
            && !self.budget.is_short()
            && let Some(class) = CHUNK_BYTES.iter().position(|size| *size == capacity)
            && self.chunks[class].len() < POOLED_CHUNKS_MAX[class]
        {
            bytes.clear();
            self.chunks[class].push(chunk);
        } else {
            self.budget.release(capacity as u64);
        }
    }

    /// An empty outbox.
    pub fn outbox(&mut self) -> Box<Outbox> {
        self.outboxes.pop().unwrap_or_else(|| {
            self.budget.charge(size_of::<Outbox>() as u64);
            Box::default()
        })
    }

    /// Frees what is kept.
    pub(super) fn keep_none(&mut self) {
        for chunk in self.chunks.iter_mut().flat_map(std::mem::take) {
            self.budget.release(chunk.capacity() as u64);
        }
        for outbox in std::mem::take(&mut self.outboxes) {
            self.budget.release(outbox.memory());
        }
        self.budget.look();
    }

    /// Takes an outbox back, whatever is still in it.
    pub fn put_outbox(&mut self, mut outbox: Box<Outbox>) {
        outbox.empty(self);
        if self.outboxes.len() < POOLED_OUTBOXES_MAX && !self.budget.is_short() {
            self.outboxes.push(outbox);
        } else {
            self.budget.release(outbox.memory());
        }
    }
}
