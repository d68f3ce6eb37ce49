//! Generational slots: a table of things that come and go, addressed by keys
//! that never meet a later tenant of the same slot.
//!
//! Owner: the shard of one core. Memory grows by pages of 1,024 entries that
//! never move, so that a million connections cost no doubling copy, and a freed
//! slot is used again before a new one is opened.

use iris_ring::prefetch;

/// Entries to a page: small enough that a nearly empty shard costs little,
/// large enough that the page table stays short.
const PAGE_ENTRIES: usize = 1024;
/// Generations wrap here, so that a key fits the 56-bit tokens of the net ring.
const GENERATION_MAX: u32 = (1 << 24) - 1;

/// The address of one entry: its slot and how often that slot was let before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Key {
    /// Slot number.
    pub index: u32,
    /// Tenancy of the slot, at most 24 bits.
    pub generation: u32,
}

impl Key {
    /// A key that no entry ever has.
    pub const NONE: Key = Key {
        index: u32::MAX,
        generation: GENERATION_MAX,
    };

    /// The key as a 56-bit token.
    pub fn token(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    /// The key that [`Key::token`] made this token from.
    pub fn from_token(token: u64) -> Key {
        Key {
            index: (token & u64::from(u32::MAX)) as u32,
            generation: (token >> 32) as u32 & GENERATION_MAX,
        }
    }
}

/// Begins a cache line, so that what its value has first is on the line that the
/// generation is on.
#[repr(C, align(64))]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// A table of `T` with generational keys.
pub struct Slots<T> {
    pages: Vec<Vec<Entry<T>>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots {
            pages: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Slots<T> {
    /// Takes a slot for `value`.
    pub fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if let Some(index) = self.free.pop() {
            let entry =
                &mut self.pages[index as usize / PAGE_ENTRIES][index as usize % PAGE_ENTRIES];
            entry.value = Some(value);
            return Key {
                index,
                generation: entry.generation,
            };
        }
        if self
            .pages
            .last()
            .is_none_or(|page| page.len() == PAGE_ENTRIES)
        {
            self.pages.push(Vec::with_capacity(PAGE_ENTRIES));
        }
        let page_number = self.pages.len() - 1;
        let page = &mut self.pages[page_number];
        let index = (page_number * PAGE_ENTRIES + page.len()) as u32;
        page.push(Entry {
            generation: 0,
            value: Some(value),
        });
        Key {
            index,
            generation: 0,
        }
    }

    fn entry(&self, key: Key) -> Option<&Entry<T>> {
        let entry = self
            .pages
            .get(key.index as usize / PAGE_ENTRIES)?
            .get(key.index as usize % PAGE_ENTRIES)?;
        (entry.generation == key.generation).then_some(entry)
    }

    fn entry_mut(&mut self, key: Key) -> Option<&mut Entry<T>> {
        let entry = self
            .pages
            .get_mut(key.index as usize / PAGE_ENTRIES)?
            .get_mut(key.index as usize % PAGE_ENTRIES)?;
        (entry.generation == key.generation).then_some(entry)
    }

    /// The entry of this key, if it is still the same tenant.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        self.entry(key)?.value.as_ref()
    }

    /// The entry of this key, if it is still the same tenant.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.entry_mut(key)?.value.as_mut()
    }

    /// Asks the memory for the first so many cache lines of an entry.
    #[inline(always)]
    pub fn prefetch(&self, key: Key, lines: usize) {
        if let Some(entry) = self
            .pages
            .get(key.index as usize / PAGE_ENTRIES)
            .and_then(|page| page.get(key.index as usize % PAGE_ENTRIES))
        {
            let first = std::ptr::from_ref(entry).cast::<u8>();
            for line in 0..lines {
                prefetch(first.wrapping_add(line * 64));
            }
        }
    }

    /// Ends the tenancy and gives the value back.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entry_mut(key)?;
        let value = entry.value.take()?;
        entry.generation = (entry.generation + 1) % GENERATION_MAX;
        self.free.push(key.index);
        self.len -= 1;
        Some(value)
    }

    /// How many slots are let.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no slot is let.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next entry that is `wanted`, of `count` slots from this one on and around; and how many were looked at.
    pub fn find_within(
        &self,
        first: u32,
        count: u32,
        wanted: impl Fn(&T) -> bool,
    ) -> (Option<Key>, u32) {
        let end = self
            .pages
            .last()
            .map_or(0, |last| (self.pages.len() - 1) * PAGE_ENTRIES + last.len())
            as u32;
        let count = count.min(end);
        for looked in 0..count {
            let index = first.wrapping_add(looked) % end;
            let entry = &self.pages[index as usize / PAGE_ENTRIES][index as usize % PAGE_ENTRIES];
            if entry.value.as_ref().is_some_and(&wanted) {
                let generation = entry.generation;
                return (Some(Key { index, generation }), looked + 1);
            }
        }
        (None, count)
    }

    /// The keys of all entries, in slot order.
    pub fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }

    /// All entries, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.pages
            .iter()
            .enumerate()
            .flat_map(|(page_number, page)| {
                page.iter().enumerate().filter_map(move |(offset, entry)| {
                    let value = entry.value.as_ref()?;
                    let key = Key {
                        index: (page_number * PAGE_ENTRIES + offset) as u32,
                        generation: entry.generation,
                    };
                    Some((key, value))
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_meets_a_later_tenant() {
        let mut slots = Slots::default();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn a_search_goes_as_far_as_it_may_and_around() {
        let mut slots = Slots::default();
        assert_eq!(slots.find_within(7, 100, |_: &u32| true), (None, 0));
        let keys: Vec<Key> = (0..2000).map(|n| slots.insert(n)).collect();
        slots.remove(keys[1500]);
        let found = |n: usize, looked| (Some(keys[n]), looked);
        assert_eq!(slots.find_within(1500, 2, |_| true), found(1501, 2));
        assert_eq!(slots.find_within(1500, 1, |_| true), (None, 1));
        assert_eq!(slots.find_within(1500, 9999, |n| *n < 3), found(0, 501));
        assert_eq!(slots.find_within(1500, 500, |n| *n < 3), (None, 500));
        assert_eq!(
            slots.find_within(3999, 9999, |n| *n == 1999),
            found(1999, 1)
        );
        assert_eq!(slots.find_within(1500, 9999, |n| *n == 1500), (None, 2000));
    }

    #[test]
    fn keys_survive_the_trip_through_a_token() {
        let mut slots = Slots::default();
        let keys: Vec<Key> = (0..3000).map(|n| slots.insert(n)).collect();
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(slots.get(Key::from_token(key.token())), Some(&n));
        }
        assert_eq!(slots.keys(), keys);
        assert_eq!(Key::from_token(Key::NONE.token()), Key::NONE);
    }
}
