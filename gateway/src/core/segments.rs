//! The net rings of one core. One is enough as long as its table of direct
//! descriptors is; the kernel bounds a table by RLIMIT_NOFILE, so a core with
//! more connections has several rings, its *segments*.
//!
//! Owner: the core's thread. Invariant: exactly one segment accepts at a time,
//! and it is told to stop before its table is full, because a multishot accept
//! into a full table drops the connection without a word to anyone.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, RawFd};

use iris_ring::{Operation, Ring, RingConfig, RingError};

/// Submissions queued before the ring is entered early.
const SUBMISSION_ENTRIES: u32 = 2048;
/// Completions before the kernel has to set some aside.
const COMPLETION_ENTRIES: u32 = 32_768;
/// Receive buffers of the first ring: 8 MiB. A turn gathers up to half as many
/// receives, and the more it gathers, the fewer and larger its sends are; more
/// than a turn needs only cools the cache. At a thousand busy connections a
/// message cost 1.42 us with 4,096 of them and 1.26 with 16,384; with 8,192 a
/// little less still.
const BUFFERS_OF_FIRST: u16 = 8_192;
/// Receive buffers of each further ring, of which there may be a hundred.
const BUFFERS_OF_FURTHER: u16 = 1_024;
/// Size of a receive buffer: a dozen small messages.
const BUFFER_BYTES: u32 = 1024;

/// One net ring and what is known of its table.
pub(super) struct Segment {
    pub(super) ring: Ring,
    /// Slots in use, sockets on their way in by hand-over not among them.
    pub(super) used: u32,
}

/// All net rings of a core.
pub(super) struct Segments {
    pub(super) all: Vec<Segment>,
    /// The one that accepts.
    accepting: Option<usize>,
    listeners: Vec<TcpListener>,
    slots: u32,
    /// The accept that a full table ended is not armed again on that table.
    wants_accept: bool,
}

impl Segments {
    pub(super) fn new(listeners: Vec<TcpListener>, slots: u32) -> Segments {
        Segments {
            all: Vec::new(),
            accepting: None,
            listeners,
            slots,
            wants_accept: true,
        }
    }

    /// Opens one more ring; its eventfd fires with those of the others.
    pub(super) fn open(&mut self, notify: BorrowedFd<'_>) -> Result<RawFd, RingError> {
        let buffer_count = if self.all.is_empty() {
            BUFFERS_OF_FIRST
        } else {
            BUFFERS_OF_FURTHER
        };
        let mut ring = Ring::open(&RingConfig {
            submission_entries: SUBMISSION_ENTRIES,
            completion_entries: COMPLETION_ENTRIES,
            slots: self.slots,
            buffer_count,
            buffer_bytes: BUFFER_BYTES,
        })?;
        ring.notify(notify).map_err(RingError::Setup)?;
        // The core is awake. A ring that fires what it watches itself would ring on
        // and on.
        ring.notify_enabled(false);
        let fd = ring.fd();
        self.all.push(Segment { ring, used: 0 });
        Ok(fd)
    }

    /// Slots left free in a table when accepting moves on: accepts that are under
    /// way, and sockets handed over, still find room.
    fn reserve(&self) -> u32 {
        (self.slots / 8).clamp(1, 1024)
    }

    fn has_room(&self, segment: usize) -> bool {
        self.all[segment].used + self.reserve() < self.slots
    }

    /// Whether every table is nearly full, so that one more ring is due.
    pub(super) fn is_crowded(&self) -> bool {
        (0..self.all.len()).all(|segment| !self.has_room(segment))
    }

    /// Sees to it that a segment with room accepts, or none if none has.
    pub(super) fn steer_accept(&mut self) {
        if let Some(current) = self.accepting {
            if self.wants_accept && self.has_room(current) {
                return;
            }
            self.accepting = None;
            for token in 0..self.listeners.len() {
                self.all[current]
                    .ring
                    .cancel(Operation::Accept, token as u64);
            }
        }
        if !self.wants_accept {
            return;
        }
        if let Some(next) = (0..self.all.len()).find(|segment| self.has_room(*segment)) {
            self.accepting = Some(next);
            for (token, listener) in self.listeners.iter().enumerate() {
                self.all[next].ring.accept(listener.as_fd(), token as u64);
            }
        }
    }

    /// Arms the accept of a listener again, if this segment still accepts.
    pub(super) fn accept_again(&mut self, segment: usize, token: u64) {
        if self.accepting == Some(segment)
            && let Some(listener) = self.listeners.get(token as usize)
        {
            self.all[segment].ring.accept(listener.as_fd(), token);
        }
    }

    /// Accepts no more.
    pub(super) fn stop_accepting(&mut self) {
        self.wants_accept = false;
        self.steer_accept();
        self.listeners.clear();
    }

    /// Lets every ring submit what is queued and post what is ready.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.all
            .iter_mut()
            .try_for_each(|segment| segment.ring.submit())
    }

    /// Whether no ring has anything to do.
    pub(super) fn is_idle(&mut self) -> bool {
        self.all.iter_mut().all(|segment| segment.ring.is_idle())
    }

    /// Has the further rings fire the eventfd that the first one watches, or not.
    pub(super) fn notify_enabled(&mut self, enabled: bool) {
        for segment in self.all.iter_mut().skip(1) {
            segment.ring.notify_enabled(enabled);
        }
    }
}
