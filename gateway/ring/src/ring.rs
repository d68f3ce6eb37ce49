//! The ring itself: set-up, the submission queue, waiting, and the orderly end.
//!
//! Owner: the thread that opened it. Invariants:
//! - Every entry that reaches the submission queue was built by `operations` (or by `Drop`), so its
//!   memory is a loan or a provided buffer; see `enqueue`.
//! - `in_flight` counts the operations whose last completion was not reaped yet, cancellations
//!   apart (they touch no memory).
//! - When the kernel will take no more entries, they wait in `backlog`, in order. It is bounded by
//!   what the owner queues between two submits.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use crate::buffers::{Buffers, LARGE, SMALL};
use crate::completion::CANCEL_USER_DATA;
use crate::gathered::Gathered;
use crate::loans::Loans;
use crate::{Received, RingError};

/// How long `Drop` waits for the kernel before it leaks the memory instead.
const QUIESCE_MAX: Duration = Duration::from_secs(5);
/// Entries that post nothing, after which work that the kernel flags is taken to be none. One is not
/// enough: the 20 items that it ran may all have been wake-ups for bytes that were received before.
const DRY_ENTRIES: usize = 2;

/// Sizes of a ring. All are fixed for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingConfig {
    /// Entries of the submission queue; rounded up to a power of two, at most 32768. More may be
    /// queued: a full queue is submitted first.
    pub submission_entries: u32,
    /// Entries of the completion queue; likewise, at most 65536. More may complete: the kernel
    /// keeps what does not fit, at a price.
    pub completion_entries: u32,
    /// Sockets the file table holds; at most the process's soft limit on descriptors, and 2^20.
    pub slots: u32,
    /// Receive buffers: a power of two, at most 32768. One submit posts completions until about
    /// half of them may be lent.
    pub buffer_count: u16,
    /// Bytes of each receive buffer.
    pub buffer_bytes: u32,
    /// Large receive buffers: none, or a power of two. With the others they are at most 32768.
    pub large_buffer_count: u16,
    /// Bytes of each large receive buffer.
    pub large_buffer_bytes: u32,
}

impl Default for RingConfig {
    /// A small ring, for tools and tests.
    fn default() -> Self {
        Self {
            submission_entries: 256,
            completion_entries: 1024,
            slots: 256,
            buffer_count: 64,
            buffer_bytes: 4096,
            large_buffer_count: 0,
            large_buffer_bytes: 0,
        }
    }
}

/// An io_uring with its file table and its receive buffers. See the crate's documentation.
#[derive(Debug)]
pub struct Ring {
    // Before the memory, so that it is dropped first.
    pub(crate) uring: Uring,
    pub(crate) buffers: Buffers,
    pub(crate) large_buffers: Option<Buffers>,
    pub(crate) loans: Loans,
    /// Lists of chunks for the next sends of several.
    #[allow(clippy::vec_box, reason = "the kernel knows where each of them is")]
    pub(crate) spares: Vec<Box<Gathered>>,
    pub(crate) slots: u32,
    /// Completions gathered before the owner is to reap: so many that neither the completion queue
    /// nor the receive buffers run out in between.
    batch: usize,
    backlog: VecDeque<squeue::Entry>,
    /// The last entry found nothing of the work that the kernel still flags.
    ran_dry: bool,
    pub(crate) in_flight: usize,
    // The kernel ties the ring to this thread.
    _not_send: PhantomData<*mut ()>,
}

/// `IoUring` with a `Debug` that says what matters.
pub(crate) struct Uring(pub(crate) IoUring);

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IoUring({})", self.0.as_raw_fd())
    }
}

impl Ring {
    /// Opens a ring for the calling thread.
    ///
    /// # Errors
    /// See [`RingError`]; nothing is left behind.
    pub fn open(config: &RingConfig) -> Result<Self, RingError> {
        if config.submission_entries == 0 || config.slots == 0 {
            return Err(RingError::Config(
                "submission_entries and slots must not be 0",
            ));
        }
        let uring = builder(config)
            .build(config.submission_entries)
            .map_err(RingError::from_setup)?;
        let (count, large_count) = (config.buffer_count, config.large_buffer_count);
        let buffers = Buffers::map(SMALL, 0, count, config.buffer_bytes)?;
        let large_buffers = (large_count > 0)
            .then(|| Buffers::map(LARGE, count, large_count, config.large_buffer_bytes))
            .transpose()?;
        let posted_max = uring.params().cq_entries().min(config.buffer_count.into());
        // From here on Drop puts things in order, whichever step fails.
        let ring = Self {
            uring: Uring(uring),
            buffers,
            large_buffers,
            loans: Loans::default(),
            spares: Vec::new(),
            slots: config.slots,
            batch: posted_max.div_ceil(2) as usize,
            backlog: VecDeque::new(),
            ran_dry: false,
            in_flight: 0,
            _not_send: PhantomData,
        };
        ring.uring
            .0
            .submitter()
            .register_files_sparse(config.slots)
            .map_err(|source| RingError::Slots {
                slots: config.slots,
                source,
            })?;
        ring.buffers.register(&ring.uring.0)?;
        if let Some(large) = &ring.large_buffers {
            large.register(&ring.uring.0)?;
        }
        Ok(ring)
    }

    /// The ring's descriptor, by which another ring hands connections over to it.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.uring.0.as_raw_fd()
    }

    /// Has an eventfd fire at every completion, so that whoever watches it may sleep. See
    /// [`Self::notify_enabled`].
    ///
    /// # Errors
    /// `EBUSY` if one is registered already.
    pub fn notify(&mut self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        self.uring
            .0
            .submitter()
            .register_eventfd(eventfd.as_raw_fd())
    }

    /// Silences the eventfd while its owner is awake, and arms it again before it sleeps. What
    /// completed in between did not fire: [`Self::submit`] after arming, and look at [`Self::is_idle`].
    pub fn notify_enabled(&mut self, enabled: bool) {
        let cq = self.uring.0.completion();
        if enabled {
            cq.enable_eventfd();
        } else {
            cq.disable_eventfd();
        }
    }

    /// Whether there is nothing to submit, nothing to run and nothing to reap, as of the last
    /// [`Self::submit`]. No system call.
    #[must_use]
    pub fn is_idle(&mut self) -> bool {
        let has_work = self.has_queued() || (self.is_flagged() && !self.ran_dry);
        !has_work && self.uring.0.completion().is_empty()
    }

    /// Submits what is queued and lets the kernel post what is ready, up to a batch: a system call
    /// or more if there is anything of either, none otherwise.
    ///
    /// # Errors
    /// Only such as no retry will mend; what is queued stays queued.
    pub fn submit(&mut self) -> io::Result<()> {
        self.ran_dry = false;
        loop {
            self.refill();
            if !self.has_queued() && !self.is_flagged() {
                return Ok(());
            }
            transient(self.uring.0.submitter().submit())?;
            if self.backlog.is_empty() || !self.uring.0.submission().is_empty() {
                // All taken, or the kernel cannot take more before completions are reaped.
                return self.gather();
            }
        }
    }

    /// Submits what is queued and waits until at least one completion can be reaped, no longer
    /// than `timeout`; then posts what is ready as [`Self::submit`] does. Waits not at all if a
    /// completion is there already. A signal ends the wait early.
    ///
    /// # Errors
    /// As for [`Self::submit`]. Running out of time is none.
    pub fn submit_and_wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.submit_and_wait_until(1, timeout)
    }

    /// The same for `count` completions more than operations are queued now: a send mostly completes
    /// with its submission, and would end the wait that begins with it. A receive that is armed now
    /// does not, so it prolongs the wait by one.
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub fn submit_and_gather(&mut self, count: usize, timeout: Duration) -> io::Result<()> {
        let queued = self.uring.0.submission().len() + self.backlog.len();
        self.submit_and_wait_until(queued + count, timeout)
    }

    fn submit_and_wait_until(&mut self, posted: usize, timeout: Duration) -> io::Result<()> {
        self.refill();
        if !self.backlog.is_empty() || !self.uring.0.completion().is_empty() {
            return self.submit();
        }
        let timeout = Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&timeout);
        let posted = posted.min(self.batch);
        transient(self.uring.0.submitter().submit_with_args(posted, &args))?;
        self.gather()
    }

    /// Has the kernel run the work it flags as ready until a batch of completions can be reaped.
    ///
    /// Since Linux 6.13 one entry runs no more than 20 items of it, and after a wait as few as
    /// were waited for. An owner that took these for all there is would handle them a handful at
    /// a time, and send each connection many small chunks instead of one.
    ///
    /// The kernel queues an item before it flags it. Where it was run in between, the flag stays
    /// for work that is not there, and no entry takes it away until there is some again.
    fn gather(&mut self) -> io::Result<()> {
        let mut dry_entries = 0;
        for _ in 0..self.batch {
            let posted = self.uring.0.completion().len();
            if !self.is_flagged() || posted >= self.batch {
                return Ok(());
            }
            if dry_entries == DRY_ENTRIES {
                self.ran_dry = true;
                return Ok(());
            }
            transient(self.uring.0.submitter().submit())?;
            dry_entries = if self.uring.0.completion().len() > posted {
                0
            } else {
                dry_entries + 1
            };
        }
        Ok(())
    }

    /// The bytes of a received buffer.
    ///
    /// # Panics
    /// If another ring received it.
    #[must_use]
    pub fn bytes(&self, received: &Received) -> &[u8] {
        self.group(received.id()).bytes(received)
    }

    /// Gives a received buffer back to the kernel.
    ///
    /// # Panics
    /// If another ring received it.
    pub fn recycle(&mut self, received: Received) {
        match &mut self.large_buffers {
            Some(large) if large.has(received.id()) => large.recycle(received),
            _ => self.buffers.recycle(received),
        }
    }

    /// The buffers that the one with this number is among.
    pub(crate) fn group(&self, id: u16) -> &Buffers {
        match &self.large_buffers {
            Some(large) if large.has(id) => large,
            _ => &self.buffers,
        }
    }

    /// Queues an entry whose completion the owner will see.
    pub(crate) fn queue(&mut self, entry: squeue::Entry) {
        self.in_flight += 1;
        self.enqueue(entry);
    }

    /// Queues an entry; a full queue is submitted first.
    pub(crate) fn enqueue(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            if self.push(&entry) {
                return;
            }
            // What fails here fails again, and is reported, at the next submit.
            let _ = self.uring.0.submitter().submit();
            if self.push(&entry) {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: entries are built in this crate only. What memory they name is a loan, which
        // `loans` keeps until the completion, or a provided buffer, which `buffers` keeps; both
        // outlive the kernel's use of them (see Drop). Descriptors are slots of this ring's table
        // or borrowed for a call that submits before it returns.
        unsafe { self.uring.0.submission().push(entry) }.is_ok()
    }

    /// Moves what waits in the backlog to the submission queue, as far as there is room.
    fn refill(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.push(&entry) {
                self.backlog.push_front(entry);
                return;
            }
        }
    }

    fn has_queued(&mut self) -> bool {
        !self.backlog.is_empty() || !self.uring.0.submission().is_empty()
    }

    /// Whether the kernel says that it has work to run for this ring, or completions it had no room for.
    fn is_flagged(&mut self) -> bool {
        let sq = self.uring.0.submission();
        sq.taskrun() || sq.cq_overflow()
    }

    /// Cancels everything and waits for it. `false` if the kernel was not done in time.
    fn quiesce(&mut self) -> bool {
        let deadline = Instant::now() + QUIESCE_MAX;
        while self.in_flight > 0 {
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::any())
                .build()
                .user_data(CANCEL_USER_DATA);
            self.enqueue(cancel);
            if self.submit_and_wait(Duration::from_millis(20)).is_err() {
                return false;
            }
            while self.next().is_some() {}
            if self.in_flight > 0 && Instant::now() > deadline {
                return false;
            }
        }
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.quiesce() {
            self.buffers.leak();
            if let Some(large) = &mut self.large_buffers {
                large.leak();
            }
            self.loans.leak();
            return;
        }
        // Closing the ring alone would close the sockets too, but later, in a kernel worker: the
        // peers would hear of it at some other time. Nothing to unregister is no matter.
        let _ = self.uring.0.submitter().unregister_files();
    }
}

/// The flags every ring of ours has.
pub(crate) fn builder(config: &RingConfig) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .dontfork()
        .setup_cqsize(config.completion_entries.max(config.submission_entries));
    builder
}

/// Keeps the errors that a later attempt will not mend.
fn transient(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        // Out of time; interrupted; no memory for requests now; completions are to be reaped first.
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::{Completion, Operation};

    #[test]
    fn quiescing_leaves_nothing_in_flight_and_no_loan() {
        let mut ring = Ring::open(&RingConfig::default()).expect("a ring");
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let flags = rustix::event::EventfdFlags::empty();
        let wake = rustix::event::eventfd(0, flags).expect("an eventfd");
        ring.adopt(ours.into(), 1);
        ring.submit_and_wait(QUIESCE_MAX).expect("an entered ring");
        assert!(matches!(
            ring.next(),
            Some(Completion::Adopted { result: Ok(0), .. })
        ));
        ring.watch(wake.as_fd(), 2);
        ring.recv_multishot(0, 3);
        for token in 0..100 {
            ring.send(0, vec![0; 1 << 20], 0, token);
        }
        assert!(ring.in_flight > 100);
        assert!(ring.quiesce());
        assert_eq!(ring.in_flight, 0);
        assert_eq!(ring.loans.find(Operation::Watch, 2), None);
        assert_eq!(ring.loans.find(Operation::Send, 99), None);
    }
}
