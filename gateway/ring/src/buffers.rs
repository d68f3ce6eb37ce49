//! The provided buffers: one mapping that holds the buffer ring and the buffers behind it.
//!
//! Owner: the ring, on its thread. Capacity: `count` buffers of `bytes_each`. When all of them are
//! lent to the caller, the kernel answers receives with `ENOBUFS` and disarms them; nothing is
//! lost, the bytes wait in the socket. A ring has one group of small buffers, and one of large
//! ones if it was asked for.
//!
//! Invariants:
//! - A buffer is at any time either the kernel's (its entry lies between the ring's head and tail)
//!   or lent to the caller as exactly one [`Received`]. A [`Received`] is made from a completion
//!   only, cannot be copied, and is used up by `recycle`.
//! - No reference into the mapping is ever made but to a lent buffer, which the kernel leaves
//!   alone.
//! - The mapping outlives the kernel's use of it, or is leaked.

use std::io;
use std::num::NonZeroU32;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::RingError;

/// The buffers that most receives take.
pub(crate) const SMALL: u16 = 0;
/// The buffers for sockets whose messages would be cut into many pieces.
pub(crate) const LARGE: u16 = 1;

/// Keeps the buffers off the page of the ring's tail. The mapping itself is aligned to the
/// machine's pages, as the kernel asks, whatever their size.
const PAGE: usize = 4096;
/// The kernel's limit on the entries of a buffer ring.
const COUNT_MAX: u16 = 1 << 15;

/// Bytes that were received, still in the ring's buffer. Read them with
/// [`Ring::bytes`](crate::Ring::bytes), then give the buffer back with
/// [`Ring::recycle`](crate::Ring::recycle); a buffer that is merely dropped is lost to the ring
/// until the ring itself is dropped.
#[derive(Debug)]
#[must_use = "a buffer that is not recycled is lost to the ring"]
pub struct Received {
    pool: NonZeroU32,
    id: u16,
    len: u32,
}

impl Received {
    /// How many bytes were received; at least one.
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn id(&self) -> u16 {
        self.id
    }
}

/// The mapping, registered with a ring as one buffer group.
#[derive(Debug)]
pub(crate) struct Buffers {
    base: NonNull<u8>,
    mapped: usize,
    /// Where the buffers begin: behind the ring's entries.
    buffers_at: usize,
    group: u16,
    /// Number of the first buffer: those of the groups of a ring follow each other, since a
    /// completion names a buffer and no group.
    first_id: u16,
    count: u16,
    bytes_each: u32,
    /// Tail of the buffer ring, as last published.
    tail: u16,
    /// Tells the buffers of one ring from those of another.
    pool: NonZeroU32,
    leaked: bool,
}

impl Buffers {
    /// Maps and fills the buffer ring. Call [`Self::register`] with the ring that will use it.
    /// `first_id` is the number of its first buffer.
    pub(crate) fn map(
        group: u16,
        first_id: u16,
        count: u16,
        bytes_each: u32,
    ) -> Result<Self, RingError> {
        static POOLS: AtomicU32 = AtomicU32::new(1);
        if !count.is_power_of_two() || count > COUNT_MAX {
            return Err(RingError::Config(
                "buffer_count must be a power of two up to 32768",
            ));
        }
        if bytes_each == 0 {
            return Err(RingError::Config("buffer_bytes must not be 0"));
        }
        let ring_bytes = usize::from(count) * size_of::<BufRingEntry>();
        let buffers_at = ring_bytes.next_multiple_of(PAGE);
        let mapped = buffers_at + usize::from(count) * bytes_each as usize;
        // SAFETY: a fresh anonymous private mapping: no address is asked for, so nothing that
        // exists is touched. The result is checked before use.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let base = NonNull::new(base.cast::<u8>()).filter(|_| base != libc::MAP_FAILED);
        let Some(base) = base else {
            return Err(RingError::Buffers {
                bytes: mapped,
                source: io::Error::last_os_error(),
            });
        };
        let pool = NonZeroU32::new(POOLS.fetch_add(1, Ordering::Relaxed)).ok_or(
            RingError::Config("too many rings were opened in one process"),
        )?;
        let mut buffers = Self {
            base,
            mapped,
            buffers_at,
            group,
            first_id,
            count,
            bytes_each,
            tail: 0,
            pool,
            leaked: false,
        };
        for id in first_id..first_id + count {
            buffers.provide(id);
        }
        Ok(buffers)
    }

    /// Makes the buffers known to the kernel.
    ///
    /// The mapping must outlive `uring`'s use of it: the ring that owns both sees to that.
    pub(crate) fn register(&self, uring: &IoUring) -> Result<(), RingError> {
        // SAFETY: the address is that of a page-aligned mapping with room for `count` entries,
        // which stays mapped until the ring was unregistered and quiesced (Ring's Drop), or for
        // good if it is leaked.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                self.base.as_ptr() as u64,
                self.count,
                self.group,
                0,
            )
        }
        .map_err(|source| RingError::Buffers {
            bytes: self.mapped,
            source,
        })
    }

    /// The handle of a buffer that a completion names. `None` if the kernel named one that does
    /// not exist, or more bytes than it holds.
    pub(crate) fn lend(&self, id: u16, len: u32) -> Option<Received> {
        (self.has(id) && len <= self.bytes_each).then_some(Received {
            pool: self.pool,
            id,
            len,
        })
    }

    /// Whether a buffer is of this group.
    pub(crate) fn has(&self, id: u16) -> bool {
        (self.first_id..self.first_id + self.count).contains(&id)
    }

    /// What one buffer holds.
    pub(crate) fn bytes_each(&self) -> u32 {
        self.bytes_each
    }

    /// The bytes of a lent buffer.
    pub(crate) fn bytes(&self, received: &Received) -> &[u8] {
        assert_eq!(
            received.pool, self.pool,
            "a buffer is read by the ring that received it"
        );
        // SAFETY: `lend` made sure that buffer and length lie inside the mapping. The buffer is
        // lent: the kernel took its entry off the ring and writes to it no more, and it cannot
        // be recycled while `received` and `self` are borrowed. The mapping began zeroed, so
        // every byte is initialised.
        unsafe { std::slice::from_raw_parts(self.buffer(received.id), received.len as usize) }
    }

    /// Takes a lent buffer back and gives it to the kernel.
    pub(crate) fn recycle(&mut self, received: Received) {
        assert_eq!(
            received.pool, self.pool,
            "a buffer is recycled by the ring that received it"
        );
        self.provide(received.id);
    }

    /// Keeps the mapping for good, because the kernel may still write to it.
    pub(crate) fn leak(&mut self) {
        self.leaked = true;
    }

    fn buffer(&self, id: u16) -> *mut u8 {
        let offset = self.buffers_at + usize::from(id - self.first_id) * self.bytes_each as usize;
        // `wrapping_add` needs no promise; callers' SAFETY comments say why it is in bounds.
        self.base.as_ptr().wrapping_add(offset)
    }

    /// Appends the entry of buffer `id`, which is not the kernel's now, and publishes it.
    fn provide(&mut self, id: u16) {
        let address = self.buffer(id) as u64;
        let index = self.tail & (self.count - 1);
        let entries = self.base.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `index` < count, so the entry lies inside the mapping, which is page-aligned and
        // zeroed (a valid entry). There are no more than `count` buffers, and each is either in
        // the ring or lent, so this entry is free: the kernel reads it only once the tail passed
        // it. The fields that are written exclude the 16 bits of the tail, which overlay the
        // `resv` field of entry 0.
        unsafe {
            let entry = &mut *entries.add(usize::from(index));
            entry.set_addr(address);
            entry.set_len(self.bytes_each);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in entry 0 of the mapping, is 16 bits wide and aligned to them,
        // and is shared with the kernel, which only reads it: an atomic view of it is sound. The
        // Release order publishes the entry before the tail.
        unsafe {
            let tail = AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut());
            tail.store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: the mapping is ours and is unmapped once; the ring has quiesced, so the kernel
        // holds no operation that could write to it, and no reference outlives `self`.
        let _ = unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_sizes_the_kernel_would_refuse() {
        for (count, bytes) in [(0, 1), (3, 1), (8, 0)] {
            let refused = Buffers::map(SMALL, 0, count, bytes);
            assert!(
                matches!(refused, Err(RingError::Config(_))),
                "{count} x {bytes}"
            );
        }
    }

    #[test]
    fn lends_nothing_outside_the_mapping() {
        let buffers = Buffers::map(SMALL, 0, 8, 64).expect("a small mapping");
        assert!(buffers.lend(7, 64).is_some());
        assert!(buffers.lend(8, 1).is_none());
        assert!(buffers.lend(0, 65).is_none());
        let behind = Buffers::map(LARGE, 8, 4, 640).expect("a small mapping");
        assert!(behind.lend(7, 1).is_none());
        assert!(behind.lend(8, 640).is_some());
        assert!(behind.lend(12, 1).is_none());
    }

    #[test]
    #[should_panic(expected = "the ring that received it")]
    fn another_rings_buffer_is_not_read() {
        let ours = Buffers::map(SMALL, 0, 8, 64).expect("a small mapping");
        let theirs = Buffers::map(SMALL, 0, 8, 64).expect("a small mapping");
        let received = theirs.lend(0, 1).expect("in range");
        let _ = ours.bytes(&received);
    }
}
