//! The messages of one outbox that are not acknowledged, oldest first: a ring of
//! entries.
//!
//! Owner: the outbox. A ring of its own, because the place that is written next can be
//! prefetched (see [`ahead`](super::ahead)), and a queue of the library does not say where
//! that is: a write to memory that is far away holds up all that are behind it. What was
//! taken off stays in its place until it is written over.

use iris_ring::prefetch;

use super::search::partition_point;
use super::unacked::Entry;

/// Places of a ring that was never used.
const PLACES_MIN: usize = 16;
/// Places that an empty ring keeps at most.
const PLACES_KEPT: usize = 256;

/// See the module's text.
#[derive(Default)]
pub(super) struct Entries {
    /// As many as a power of two, or none.
    places: Vec<Entry>,
    /// Where the oldest is, counted on without end.
    front: u32,
    len: u32,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// Bytes it takes.
    #[inline(always)]
    pub(super) fn memory(&self) -> usize {
        self.places.capacity() * size_of::<Entry>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The place of entry `at`, counted from the oldest.
    fn place(&self, at: u32) -> usize {
        self.front.wrapping_add(at) as usize & self.places.len().wrapping_sub(1)
    }

    pub(super) fn get(&self, at: usize) -> Option<&Entry> {
        if at >= self.len() {
            return None;
        }
        self.places.get(self.place(at as u32))
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Entry> {
        if at >= self.len() {
            return None;
        }
        let place = self.place(at as u32);
        self.places.get_mut(place)
    }

    /// Asks the memory for the place that is written next.
    #[inline(always)]
    pub(super) fn prefetch_spare(&self) {
        prefetch(self.places.as_ptr().wrapping_add(self.place(self.len)));
    }

    #[inline(always)]
    pub(super) fn push(&mut self, entry: Entry) {
        if self.len() == self.places.len() {
            self.grow(entry);
        }
        let place = self.place(self.len);
        self.places[place] = entry;
        self.len += 1;
    }

    /// Twice the places; those that are free hold `filler`.
    #[cold]
    fn grow(&mut self, filler: Entry) {
        let len = self.len();
        let front = self.place(0);
        self.places.rotate_left(front.min(len));
        self.places.resize((len * 2).max(PLACES_MIN), filler);
        self.front = 0;
    }

    /// Takes `count` off the front.
    pub(super) fn drop_front(&mut self, count: usize) {
        let count = (count as u32).min(self.len);
        self.front = self.front.wrapping_add(count);
        self.len -= count;
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// How many of the oldest `is_before` holds for; it holds for none behind the first
    /// that it does not hold for.
    pub(super) fn count_until(&self, is_before: impl Fn(&Entry) -> bool) -> usize {
        partition_point(0..self.len(), |at| self.get(at).is_some_and(&is_before))
    }

    /// Gives back what a burst took; to be called when it is empty.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() && self.places.len() > PLACES_KEPT {
            self.places.truncate(PLACES_MIN);
            self.places.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::super::ids::Origin;
    use super::super::slots::Key;
    use super::super::unacked::{Ms48, NO_REPLY};
    use super::*;

    fn entry(end: u64) -> Entry {
        Entry {
            end,
            origin: Origin {
                sender: 0,
                number: end,
            },
            sent_at_ms: Ms48::of(0),
            expires_at_ms: 0,
            stored: 0,
            reply_user: Key::NONE,
            payload_len: 0,
            pushed_at_ms: 0,
            reply_core: NO_REPLY,
        }
    }

    proptest! {
        #[test]
        fn a_ring_is_a_queue(steps in prop::collection::vec((0u8..8, 0usize..40), 1..400)) {
            let mut entries = Entries::default();
            let mut model = VecDeque::new();
            let mut end = 0;
            for (step, count) in steps {
                match step {
                    0..5 => for _ in 0..count {
                        end += 1;
                        entries.push(entry(end));
                        model.push_back(end);
                    },
                    5 => {
                        entries.clear();
                        entries.shrink();
                        model.clear();
                    }
                    _ => {
                        entries.drop_front(count);
                        model.drain(..count.min(model.len()));
                    }
                }
                let until = end.saturating_sub(count as u64);
                let older = model.iter().filter(|end| **end <= until).count();
                prop_assert_eq!(entries.count_until(|entry| entry.end <= until), older);
                let seen = (0..).map_while(|at| entries.get(at).map(|entry| entry.end));
                prop_assert!(seen.eq(model.iter().copied()));
                prop_assert_eq!(entries.len(), model.len());
            }
        }
    }
}
