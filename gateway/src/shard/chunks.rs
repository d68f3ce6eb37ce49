//! The bytes of one outbox, oldest first, in chunks that never move.
//!
//! Owner: the outbox. Invariant: each begins in the stream where the one before it ends.
//! The newest chunk stands apart: nearly always it is the only one,
//! and what is delivered goes into it.

use std::collections::VecDeque;
use std::rc::Rc;

/// Bytes that lie together, and where in the stream they stand.
pub(super) struct Chunk {
    pub(super) bytes: Rc<Vec<u8>>,
    /// Stream position of the first byte.
    pub(super) start: u64,
}

impl Chunk {
    /// Stream position behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Chunks {
    newest: Option<Chunk>,
    /// Oldest first.
    #[expect(
        clippy::box_collection,
        reason = "most outboxes never have any, and what a delivery touches shall fit two cache lines"
    )]
    older: Option<Box<VecDeque<Chunk>>>,
}

impl Chunks {
    /// Appends a chunk.
    pub(super) fn push(&mut self, chunk: Chunk) {
        if let Some(older) = self.newest.replace(chunk) {
            self.older.get_or_insert_default().push_back(older);
        }
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Chunk> {
        self.older
            .iter()
            .flat_map(|older| older.iter())
            .chain(&self.newest)
    }

    /// The chunk that has the byte at `position`. Mostly it is the newest, and no other is
    /// looked at.
    pub(super) fn at(&self, position: u64) -> Option<&Chunk> {
        let newest = self.newest.as_ref()?;
        if newest.start <= position {
            return (newest.end() > position).then_some(newest);
        }
        self.iter().find(|chunk| chunk.end() > position)
    }

    pub(super) fn newest(&self) -> Option<&Chunk> {
        self.newest.as_ref()
    }

    pub(super) fn newest_mut(&mut self) -> Option<&mut Chunk> {
        self.newest.as_mut()
    }

    /// The newest, if there is no other.
    pub(super) fn only_mut(&mut self) -> Option<&mut Chunk> {
        match &self.older {
            Some(older) if !older.is_empty() => None,
            _ => self.newest.as_mut(),
        }
    }

    /// Takes off the oldest if it is not the newest as well and ends at `position` or before.
    pub(super) fn pop_older_until(&mut self, position: u64) -> Option<Chunk> {
        let older = self.older.as_mut()?;
        // Where the next one starts is where it ends, and costs no look at its bytes.
        let next = older.get(1).or(self.newest.as_ref())?;
        if next.start > position {
            return None;
        }
        older.pop_front()
    }

    pub(super) fn pop_newest(&mut self) -> Option<Chunk> {
        let before = self.older.as_mut().and_then(|older| older.pop_back());
        std::mem::replace(&mut self.newest, before)
    }
}
