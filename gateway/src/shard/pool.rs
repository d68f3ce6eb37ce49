//! Chunks and emptied outboxes between two uses, one pool for each core: what was
//! used last is used next, while it is warm in the cache.
//!
//! Owner: the shard. Bounded; what comes back beyond the bounds is freed.

use std::rc::Rc;

use super::outbox::Outbox;

/// Chunk sizes. A quiet connection gets by with one small chunk. A busy one uses the middle
/// ones, which hold about what its reader's acknowledgement is waited for: larger ones would
/// come round so late that no cache has them any more. The large ones are for one that has
/// much to be sent, so that a send carries many messages.
pub(super) const CHUNK_BYTES: [usize; 3] = [512, 8 << 10, 32 << 10];
/// Empty chunks of each size kept for reuse, per core (2, 16 and 8 MiB).
const POOLED_CHUNKS_MAX: [usize; 3] = [4096, 2048, 256];
/// Emptied outboxes kept for reuse, per core.
const POOLED_OUTBOXES_MAX: usize = 4096;

/// Chunks and outboxes waiting for their next use, one pool for each core.
#[derive(Default)]
pub struct Pool {
    chunks: [Vec<Rc<Vec<u8>>>; 3],
    // Boxed because connections hold a pointer: most are idle and have none.
    #[allow(clippy::vec_box)]
    outboxes: Vec<Box<Outbox>>,
    lent_bytes: u64,
}

impl Pool {
    /// Memory of all chunks in outboxes.
    pub fn lent_bytes(&self) -> u64 {
        self.lent_bytes
    }

    pub(super) fn chunk(&mut self, wanted: usize, class: usize) -> Rc<Vec<u8>> {
        let chunk = self.pooled_chunk(wanted, class);
        self.lent_bytes += chunk.capacity() as u64;
        chunk
    }

    fn pooled_chunk(&mut self, wanted: usize, class: usize) -> Rc<Vec<u8>> {
        match (class..CHUNK_BYTES.len()).find(|class| wanted <= CHUNK_BYTES[*class]) {
            Some(class) => self.chunks[class]
                .pop()
                .unwrap_or_else(|| Rc::new(Vec::with_capacity(CHUNK_BYTES[class]))),
            None => Rc::new(Vec::with_capacity(wanted)),
        }
    }

    pub(super) fn put_chunk(&mut self, mut chunk: Rc<Vec<u8>>) {
        self.lent_bytes -= chunk.capacity() as u64;
        let Some(bytes) = Rc::get_mut(&mut chunk) else {
            // Still out at the ring (the connection ended): freed there.
            return;
        };
        bytes.clear();
        if let Some(class) = CHUNK_BYTES
            .iter()
            .position(|size| *size == bytes.capacity())
            && self.chunks[class].len() < POOLED_CHUNKS_MAX[class]
        {
            self.chunks[class].push(chunk);
        }
    }

    /// An empty outbox.
    pub fn outbox(&mut self) -> Box<Outbox> {
        self.outboxes.pop().unwrap_or_default()
    }

    /// Takes an outbox back, whatever is still in it.
    pub fn put_outbox(&mut self, mut outbox: Box<Outbox>) {
        outbox.empty(self);
        if self.outboxes.len() < POOLED_OUTBOXES_MAX {
            self.outboxes.push(outbox);
        }
    }
}
