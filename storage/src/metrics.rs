//! What the store has done so far.
//!
//! Each thread keeps its own counters under a lock of its own that it takes once for each batch or page; the
//! rare reader of the metrics takes them all. Totals since the store was opened.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::disk::StoreState;
use crate::request::FailureKind;

/// Totals of a store since it was opened.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    /// Messages stored and synced.
    pub appended: u64,
    /// Bytes of their records.
    pub appended_bytes: u64,
    /// Messages burned.
    pub burned: u64,
    /// Messages that expired and that a head has passed: they are out of their inbox.
    pub expired: u64,
    /// Messages that gave way to newer ones in a full inbox.
    pub dropped: u64,
    /// Messages that stand in the inboxes now, those that expired since their head last moved among them.
    pub live_messages: u64,
    /// Bytes of their records.
    pub live_bytes: u64,
    /// Times a last-seen was noted.
    pub seen: u64,
    /// Last-seens that could not be noted: their account failed its checks, writes had failed, or a committer's queue
    /// was full.
    pub seen_lost: u64,
    /// Batches written.
    pub commits: u64,
    /// How long writing and syncing a batch took, microseconds.
    pub commit_us: Histogram<u64>,
    /// Requests in a batch.
    pub commit_requests: Histogram<u64>,
    /// Users whose place had to be looked up, because the committer did not remember it.
    pub tail_misses: u64,
    /// Pages read.
    pub pages: u64,
    /// Messages in them.
    pub page_messages: u64,
    /// Records that a page skipped because they had expired.
    pub skipped_expired: u64,
    /// Records that a page skipped because they failed their checks, or lay where a table cannot be read.
    pub lost: u64,
    /// Pages that went around a part of a table that cannot be read.
    pub pages_broken: u64,
    /// Messages that were behind damage when the store was opened or taken up again, and were put back.
    pub recovered: u64,
    /// Messages that were found lost when the store was opened or taken up again, at most; see [`Recovery`](crate::Recovery).
    pub recovery_lost: u64,
    /// Accounts looked up.
    pub accounts: u64,
    /// Requests that were not done, by reason, in the order of [`FailureKind::ALL`]. Without those that a
    /// queue did not take or gave up: these follow.
    pub failed: [u64; FailureKind::ALL.len()],
    /// Writes that were refused because a committer's queue was full.
    pub writes_refused: u64,
    /// Reads that were refused because the readers' queue was full.
    pub reads_refused: u64,
    /// Reads that were refused because their party had its share of that queue.
    pub reads_over_share: u64,
    /// Reads that were taken out of the queue because they were not wanted any more.
    pub reads_cancelled: u64,
    /// Records destroyed on disk because they were burned.
    pub reclaimed_burned: u64,
    /// Records destroyed on disk because they had expired.
    pub reclaimed_expired: u64,
    /// Requests waiting for the committers now.
    pub queued_writes: usize,
    /// Requests waiting for a reader now.
    pub queued_reads: usize,
    /// How long the oldest batch that is being written or synced now has been at it; zero if none is. The database can sleep in
    /// a write for as long as the disk is behind: watch this.
    pub commit_running: Duration,
    /// How the store is just now.
    pub state: StoreState,
    /// How often a database that had failed was taken up again.
    pub healed: u64,
    /// Bytes free on the disk of the data folder, as last seen; 0 before the first look.
    pub free_bytes: u64,
}

impl Default for StoreMetrics {
    /// All zero.
    fn default() -> Self {
        StoreMetrics {
            appended: 0,
            appended_bytes: 0,
            burned: 0,
            expired: 0,
            dropped: 0,
            live_messages: 0,
            live_bytes: 0,
            seen: 0,
            seen_lost: 0,
            commits: 0,
            commit_us: histogram(),
            commit_requests: histogram(),
            tail_misses: 0,
            pages: 0,
            page_messages: 0,
            skipped_expired: 0,
            lost: 0,
            pages_broken: 0,
            recovered: 0,
            recovery_lost: 0,
            accounts: 0,
            failed: [0; FailureKind::ALL.len()],
            writes_refused: 0,
            reads_refused: 0,
            reads_over_share: 0,
            reads_cancelled: 0,
            reclaimed_burned: 0,
            reclaimed_expired: 0,
            queued_writes: 0,
            queued_reads: 0,
            commit_running: Duration::ZERO,
            state: StoreState::Open,
            healed: 0,
            free_bytes: 0,
        }
    }
}

/// The part of a committer and its sync thread.
pub(crate) struct CommitterCounts {
    pub(crate) appended: u64,
    pub(crate) appended_bytes: u64,
    pub(crate) burned: u64,
    pub(crate) expired: u64,
    pub(crate) dropped: u64,
    pub(crate) live_messages: u64,
    pub(crate) live_bytes: u64,
    pub(crate) seen: u64,
    pub(crate) seen_lost: u64,
    pub(crate) commits: u64,
    pub(crate) commit_us: Histogram<u64>,
    pub(crate) commit_requests: Histogram<u64>,
    pub(crate) tail_misses: u64,
    pub(crate) failed: [u64; FailureKind::ALL.len()],
    /// When the batches were begun that are not synced yet, the oldest first.
    pub(crate) under_way: VecDeque<Instant>,
    pub(crate) stopped: bool,
}

impl Default for CommitterCounts {
    fn default() -> Self {
        CommitterCounts {
            appended: 0,
            appended_bytes: 0,
            burned: 0,
            expired: 0,
            dropped: 0,
            live_messages: 0,
            live_bytes: 0,
            seen: 0,
            seen_lost: 0,
            commits: 0,
            commit_us: histogram(),
            commit_requests: histogram(),
            tail_misses: 0,
            failed: [0; FailureKind::ALL.len()],
            under_way: VecDeque::new(),
            stopped: false,
        }
    }
}

impl CommitterCounts {
    fn add_to(&self, total: &mut StoreMetrics) {
        total.appended += self.appended;
        total.appended_bytes += self.appended_bytes;
        total.burned += self.burned;
        total.expired += self.expired;
        total.dropped += self.dropped;
        total.live_messages += self.live_messages;
        total.live_bytes += self.live_bytes;
        total.seen += self.seen;
        total.seen_lost += self.seen_lost;
        total.commits += self.commits;
        add_histogram(&mut total.commit_us, &self.commit_us);
        add_histogram(&mut total.commit_requests, &self.commit_requests);
        total.tail_misses += self.tail_misses;
        for (sum, count) in total.failed.iter_mut().zip(self.failed) {
            *sum += count;
        }
        let running = self.under_way.front().map(Instant::elapsed);
        total.commit_running = total.commit_running.max(running.unwrap_or_default());
    }
}

/// A reader's part.
#[derive(Default)]
pub(crate) struct ReaderCounts {
    pub(crate) pages: u64,
    pub(crate) page_messages: u64,
    pub(crate) expired: u64,
    pub(crate) lost: u64,
    pub(crate) broken: u64,
    pub(crate) accounts: u64,
    pub(crate) failed: [u64; FailureKind::ALL.len()],
}

/// The parts of all threads.
pub(crate) struct Counts {
    /// By the number of the database.
    pub(crate) committers: Vec<Mutex<CommitterCounts>>,
    pub(crate) readers: Vec<Mutex<ReaderCounts>>,
}

impl Counts {
    pub(crate) fn new(committers: usize, readers: usize) -> Counts {
        Counts {
            committers: (0..committers).map(|_| Mutex::default()).collect(),
            readers: (0..readers).map(|_| Mutex::default()).collect(),
        }
    }

    /// Whether a committer takes no more writes.
    pub(crate) fn is_stopped(&self) -> bool {
        self.committers
            .iter()
            .any(|committer| lock(committer).stopped)
    }

    /// Adds up everything but what the queues, the reclaiming and the watch know.
    pub(crate) fn total(&self) -> StoreMetrics {
        let mut total = StoreMetrics::default();
        for committer in &self.committers {
            lock(committer).add_to(&mut total);
        }
        for reader in &self.readers {
            let reader = lock(reader);
            total.pages += reader.pages;
            total.page_messages += reader.page_messages;
            total.skipped_expired += reader.expired;
            total.lost += reader.lost;
            total.pages_broken += reader.broken;
            total.accounts += reader.accounts;
            for (sum, count) in total.failed.iter_mut().zip(reader.failed) {
                *sum += count;
            }
        }
        total
    }
}

/// Counters are plain numbers, sound at every moment: a thread that died holding the lock left nothing half done.
pub(crate) fn lock<T>(counts: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add_histogram(sum: &mut Histogram<u64>, part: &Histogram<u64>) {
    sum.add(part)
        .expect("all histograms here have the same bounds");
}

/// Three digits up to about 17 minutes in microseconds; what is above counts as that.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1 << 30, 3)
        .expect("bounds and digits are constants within the allowed")
}
