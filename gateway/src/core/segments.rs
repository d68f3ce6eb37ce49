//! The net rings of one core. One is enough as long as its table of direct
//! descriptors is; the kernel bounds a table by RLIMIT_NOFILE, so a core with
//! more connections has several rings, its *segments*.
//!
//! Owner: the core's thread. Invariants: one segment accepts at a time, and it is
//! told to stop before its table is full, because a multishot accept into a full
//! table drops the connection without a word to anyone. Two rings never wait for
//! the same listener, not even while one is being told to stop: the kernel rouses
//! only one of them for a connection, and if that one is cancelled before it takes
//! it, nobody does until the next one comes.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, RawFd};

use iris_ring::{Operation, Ring, RingConfig, RingError};

/// Submissions queued before the ring is entered early.
const SUBMISSION_ENTRIES: u32 = 2048;
/// Completions before the kernel has to set some aside.
const COMPLETION_ENTRIES: u32 = 32_768;
/// Receive buffers of the first ring: 16 MiB. A turn gathers up to half as many
/// receives, and the more it gathers, the fewer and larger its sends are; more
/// than a turn needs only cools the cache. At a thousand busy connections a
/// message cost 1.42 us with 4,096 of them and 1.26 with 16,384; with 8,192 a
/// little less still.
const BUFFERS_OF_FIRST: u16 = 8_192;
/// Receive buffers of each further ring, of which there may be a hundred.
const BUFFERS_OF_FURTHER: u16 = 1_024;
/// Size of a receive buffer: two dozen small messages, or one of a KiB. With 1 KiB a thousand users
/// with 16 messages in flight cost 1.39 times the limit, with 2 KiB 0.96; with 4 KiB 1.0 to 1.1.
pub(super) const BUFFER_BYTES: u32 = 2 << 10;
/// Large receive buffers of the first ring: 4.3 MiB. A socket whose messages are cut by small ones
/// receives into these. One that has much to say may fill all of them at once, before it can be told
/// to stop, and what is not read then is held.
const LARGE_BUFFERS_OF_FIRST: u16 = 256;
/// The same of each further ring.
const LARGE_BUFFERS_OF_FURTHER: u16 = 16;
/// Size of a large receive buffer: a message of 16 KiB.
const LARGE_BUFFER_BYTES: u32 = 17 << 10;

/// One net ring and what is known of its table.
pub(super) struct Segment {
    pub(super) ring: Ring,
    /// Slots in use, sockets on their way in by hand-over not among them.
    pub(super) used: u32,
}

/// Where connections come in.
struct Listener {
    socket: TcpListener,
    /// A ring waits for it, perhaps one that was told to stop and has not yet.
    is_awaited: bool,
}

/// All net rings of a core.
pub(super) struct Segments {
    pub(super) all: Vec<Segment>,
    /// The one that accepts.
    accepting: Option<usize>,
    listeners: Vec<Listener>,
    slots: u32,
    /// The accept that a full table ended is not armed again on that table.
    wants_accept: bool,
}

impl Segments {
    pub(super) fn new(sockets: Vec<TcpListener>, slots: u32) -> Segments {
        let listeners = sockets.into_iter().map(|socket| Listener {
            socket,
            is_awaited: false,
        });
        Segments {
            all: Vec::new(),
            accepting: None,
            listeners: listeners.collect(),
            slots,
            wants_accept: true,
        }
    }

    /// Opens one more ring; its eventfd fires with those of the others.
    pub(super) fn open(&mut self, notify: BorrowedFd<'_>) -> Result<RawFd, RingError> {
        let (buffer_count, large_buffer_count) = if self.all.is_empty() {
            (BUFFERS_OF_FIRST, LARGE_BUFFERS_OF_FIRST)
        } else {
            (BUFFERS_OF_FURTHER, LARGE_BUFFERS_OF_FURTHER)
        };
        let mut ring = Ring::open(&RingConfig {
            submission_entries: SUBMISSION_ENTRIES,
            completion_entries: COMPLETION_ENTRIES,
            slots: self.slots,
            buffer_count,
            buffer_bytes: BUFFER_BYTES,
            large_buffer_count,
            large_buffer_bytes: LARGE_BUFFER_BYTES,
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
        self.accepting = (0..self.all.len()).find(|segment| self.has_room(*segment));
        for token in 0..self.listeners.len() {
            self.accept_again(token as u64);
        }
    }

    /// The accept of a listener ended: a ring may wait for it again.
    pub(super) fn accept_ended(&mut self, token: u64) {
        if let Some(listener) = self.listeners.get_mut(token as usize) {
            listener.is_awaited = false;
        }
    }

    /// Arms the accept of a listener where connections are accepted now, if no ring waits for it.
    pub(super) fn accept_again(&mut self, token: u64) {
        if let Some(segment) = self.accepting
            && let Some(listener) = self.listeners.get_mut(token as usize)
            && !listener.is_awaited
        {
            listener.is_awaited = true;
            self.all[segment]
                .ring
                .accept(listener.socket.as_fd(), token);
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

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::thread;
    use std::time::{Duration, Instant};

    use iris_ring::Completion;
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn a_connection_that_comes_while_accepting_moves_is_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let notify = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
        let mut segments = Segments::new(vec![listener], 64);
        for _ in 0..2 {
            segments.open(notify.as_fd()).expect("a ring");
        }
        segments.all[0].used = 64;
        segments.steer_accept();
        segments.submit().expect("entered");
        // It moves from the second ring back to the first, which is entered first.
        segments.all[0].used = 0;
        segments.all[1].used = 64;
        segments.steer_accept();
        segments.all[0].ring.submit().expect("entered");
        let _client = TcpStream::connect(address).expect("connected");
        segments.all[1].ring.submit().expect("entered");
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut accepted = 0;
        while accepted == 0 {
            assert!(Instant::now() < deadline, "it waits in the accept queue");
            for segment in 0..2 {
                while let Some(completion) = segments.all[segment].ring.next() {
                    match completion {
                        Completion::Accepted { more: true, .. } => accepted += 1,
                        Completion::AcceptEnded { token, .. } => {
                            segments.accept_ended(token);
                            segments.accept_again(token);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            segments.submit().expect("entered");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
