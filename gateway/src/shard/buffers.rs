//! Buffers for input that waits: the rest of a command that has not wholly arrived, segments of a connection that is
//! not read. One pool for each core.
//!
//! Owner: the shard. Invariants: a buffer is of the smallest size class that holds what is in it, but that a frame of
//! known length gets its whole length once a fair part of it is there; every buffer, lent or kept, is in the budget
//! with its capacity.

use super::budget::Budget;

/// Smallest class. There are four to each doubling, as the allocator has them.
const CLASS_BYTES_MIN: usize = 64;
/// Largest buffer that is kept: a frame with a payload of 64 KiB fits.
const KEPT_CLASS_BYTES_MAX: usize = 80 << 10;
/// Classes up to that one.
const CLASSES: usize = 42;
/// Bytes of buffers kept for reuse: enough for a turn in which a thousand connections are cut by the end of a segment.
const KEPT_BYTES_MAX: u64 = 2 << 20;
/// Part of a frame that has to be there before its whole length is made room for: whoever announces much holds
/// at most four times what it said.
const FAIR_PART: usize = 4;

/// Input buffers of a core.
pub struct Buffers {
    free: [Vec<Vec<u8>>; CLASSES],
    kept_bytes: u64,
    /// What the buffers are counted in.
    pub(super) budget: Budget,
}

/// The class that holds `len` bytes, and its size.
fn class_of(len: usize) -> (usize, usize) {
    if len <= CLASS_BYTES_MIN {
        return (0, CLASS_BYTES_MIN);
    }
    let doublings = (len - 1).ilog2();
    let (base, quarter) = (1 << doublings, 1 << (doublings - 2));
    let quarters = (len - base).div_ceil(quarter);
    let first = 4 * (doublings - CLASS_BYTES_MIN.ilog2()) as usize;
    (first + quarters, base + quarters * quarter)
}

impl Buffers {
    pub(super) fn new(budget: Budget) -> Buffers {
        Buffers {
            free: std::array::from_fn(|_| Vec::new()),
            kept_bytes: 0,
            budget,
        }
    }

    /// An empty buffer for `len` bytes.
    fn take(&mut self, len: usize) -> Vec<u8> {
        let (class, size) = class_of(len);
        if let Some(buffer) = self.free.get_mut(class).and_then(Vec::pop) {
            self.kept_bytes -= buffer.capacity() as u64;
            return buffer;
        }
        let buffer = Vec::with_capacity(size);
        self.budget.charge(buffer.capacity() as u64);
        buffer
    }

    /// A buffer with these bytes.
    pub(super) fn of(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.take(bytes.len());
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Appends to a buffer, whose first command is `whole` bytes long if that is known.
    pub(super) fn append(&mut self, buffer: &mut Vec<u8>, bytes: &[u8], whole: Option<usize>) {
        let len = buffer.len() + bytes.len();
        if len > buffer.capacity() {
            let wanted = match whole {
                Some(whole) if len >= whole / FAIR_PART && !self.budget.is_short() => {
                    whole.max(len)
                }
                _ => len,
            };
            let mut larger = self.take(wanted);
            larger.extend_from_slice(buffer);
            self.put(std::mem::replace(buffer, larger));
        }
        buffer.extend_from_slice(bytes);
    }

    /// Takes a buffer back.
    pub(super) fn put(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity() as u64;
        if capacity == 0 {
            return;
        }
        if buffer.capacity() <= KEPT_CLASS_BYTES_MAX
            && self.kept_bytes + capacity <= KEPT_BYTES_MAX
            && !self.budget.is_short()
        {
            buffer.clear();
            self.kept_bytes += capacity;
            self.free[class_of(buffer.capacity()).0].push(buffer);
        } else {
            self.budget.release(capacity);
        }
    }

    /// Frees what is kept.
    pub(super) fn keep_none(&mut self) {
        self.free.iter_mut().for_each(Vec::clear);
        self.budget.release(std::mem::take(&mut self.kept_bytes));
        self.budget.look();
    }

    /// Memory that connections hold.
    pub(super) fn lent_bytes(&self) -> u64 {
        self.budget.used() - self.kept_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::alone;
    use super::*;

    fn buffers(max: u64) -> Buffers {
        Buffers::new(alone::budgets(max, 0).input)
    }

    #[test]
    fn a_class_holds_what_it_is_for_and_a_quarter_more_at_most() {
        let mut before = (0, 0);
        for len in 1..200_000 {
            let (class, size) = class_of(len);
            assert!(size >= len);
            assert!(
                size <= CLASS_BYTES_MIN.max(len + len / 4 + 1),
                "{len}: {size}"
            );
            assert!(class == before.0 || class == before.0 + 1);
            assert_eq!(class == before.0, size == before.1 || len == 1);
            assert_eq!(class_of(size), (class, size));
            before = (class, size);
        }
        assert_eq!(class_of(KEPT_CLASS_BYTES_MAX).0, CLASSES - 1);
    }

    #[test]
    fn one_byte_never_holds_what_a_frame_needed() {
        let mut buffers = buffers(1 << 30);
        let large = buffers.of(&[0; 65_000]);
        assert!(buffers.lent_bytes() >= 65_000);
        buffers.put(large);
        assert_eq!(buffers.lent_bytes(), 0);
        let small = buffers.of(&[0]);
        assert_eq!(small.capacity(), 64);
        assert_eq!(buffers.lent_bytes(), 64);
        assert!(buffers.budget.used() > 65_000, "what is kept counts");
    }

    #[test]
    fn a_frame_grows_by_classes_until_a_fair_part_is_there() {
        let mut buffers = buffers(1 << 30);
        let mut frame = buffers.of(&[0; 10]);
        let mut held = Vec::new();
        for _ in 0..64 {
            buffers.append(&mut frame, &[0; 1000], Some(64_010));
            let (len, capacity) = (frame.len(), frame.capacity());
            assert!(
                capacity <= len * 5 && capacity <= 80 << 10,
                "{len}: {capacity}"
            );
            assert_eq!(buffers.lent_bytes(), capacity as u64);
            held.push(capacity);
        }
        held.dedup();
        assert_eq!(held.last(), Some(&(64 << 10)));
        assert_eq!(held[held.len() - 2], 16 << 10, "sized once");
    }

    #[test]
    fn what_is_kept_is_bounded_and_goes_when_memory_is_short() {
        let mut pool = buffers(1 << 30);
        let lent: Vec<_> = (0..100).map(|_| pool.of(&[0; 60_000])).collect();
        lent.into_iter().for_each(|buffer| pool.put(buffer));
        assert!(pool.budget.used() <= KEPT_BYTES_MAX && pool.budget.used() > KEPT_BYTES_MAX / 2);
        pool.keep_none();
        assert_eq!(pool.budget.used(), 0);
        let mut pool = buffers(100_000);
        let lent = pool.of(&[0; 60_000]);
        pool.put(lent);
        assert_eq!(pool.budget.used(), 0);
    }
}
