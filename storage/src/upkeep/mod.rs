//! The thread that gives space back: it moves heads past what has expired, and shrinks databases that hold far more
//! than what is live.
//!
//! Everything it writes goes through the committers; what it asks of the database takes no lock that a commit waits
//! for longer than for a sync. Invariants: it borrows a database only for moments, but for a merge of all tables,
//! which ends itself when the database is to be closed, the store closes or writes would have to wait for it; every
//! round is bounded; when it cannot do something now, it does it in a later round.

mod shrink;
mod sweep;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::client::{Envelope, Write};
use crate::databases::Databases;
use crate::disk::Condition;
use crate::entrance::{Entrance, Fifo};
use crate::error::StoreError;
use crate::folder::Folder;
use crate::metrics::{Counts, lock};
use crate::options::StoreOptions;
use crate::priority;
use crate::user::UserKey;

/// Longer than a committer is behind; what does not pass by then has a later round.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// The thread as the store holds it.
pub(crate) struct Upkeep {
    closing: Arc<AtomicBool>,
    /// Dropped to wake it.
    bell: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    pub(crate) fn start(
        folder: &Folder,
        databases: Arc<Databases>,
        writes: Arc<[Entrance<Fifo<Write>>]>,
        counts: Arc<Counts>,
        condition: Arc<Condition>,
        options: &StoreOptions,
    ) -> Result<Upkeep, StoreError> {
        let closing = Arc::new(AtomicBool::new(false));
        let (bell, rings) = bounded(1);
        let keeper = |number| Keeper {
            number,
            path: folder.database_path(number),
            cursor: None,
            appended_bytes: 0,
            looked_at: Instant::now(),
            is_idle: false,
            bytes_per_second: 0,
            journal_filled_at: None,
            rotations: 0,
            leftover_bytes: 0,
            merge_failed_at: None,
        };
        let mut round = Round {
            keepers: (0..options.databases).map(keeper).collect(),
            databases,
            writes,
            counts,
            condition,
            closing: Arc::clone(&closing),
            memtable_bytes: options.memtable_bytes,
            slack_bytes: options.space_slack_bytes,
            journal_interval: options.journal_interval,
        };
        let interval = options.upkeep_interval;
        let name = "iris-upkeep".to_string();
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                priority::stand_far_back();
                round.run(&rings, interval);
            })
            .map_err(|source| StoreError::Thread { name, source })?;
        Ok(Upkeep {
            closing,
            bell: Some(bell),
            thread: Some(thread),
        })
    }

    /// Ends the thread, a merge under way included. False if it had died.
    pub(crate) fn end(&mut self) -> bool {
        self.closing.store(true, Ordering::Relaxed);
        self.bell = None;
        self.thread
            .take()
            .is_none_or(|thread| thread.join().is_ok())
    }
}

/// What is remembered of a database from round to round.
struct Keeper {
    number: usize,
    path: PathBuf,
    /// Up to where the accounts have been looked at in this pass.
    cursor: Option<UserKey>,
    /// At the last look.
    appended_bytes: u64,
    looked_at: Instant,
    /// Hardly anything was appended since the look before.
    is_idle: bool,
    bytes_per_second: u64,
    journal_filled_at: Option<Instant>,
    /// Rotations that were made to be rid of files no version needs any more.
    rotations: u8,
    /// Bytes of such files that do not go: what came to nothing.
    leftover_bytes: u64,
    /// A merge came to nothing then.
    merge_failed_at: Option<Instant>,
}

struct Round {
    keepers: Vec<Keeper>,
    databases: Arc<Databases>,
    writes: Arc<[Entrance<Fifo<Write>>]>,
    counts: Arc<Counts>,
    condition: Arc<Condition>,
    closing: Arc<AtomicBool>,
    memtable_bytes: u64,
    slack_bytes: u64,
    journal_interval: Duration,
}

impl Round {
    fn run(&mut self, rings: &Receiver<()>, interval: Duration) {
        let mut keepers = std::mem::take(&mut self.keepers);
        while rings.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            for keeper in &mut keepers {
                self.note_traffic(keeper);
                self.sweep(keeper);
                self.shrink(keeper);
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    fn note_traffic(&self, keeper: &mut Keeper) {
        let appended_bytes = self.appended_bytes(keeper.number);
        let fresh = appended_bytes - keeper.appended_bytes;
        let elapsed_ms = keeper.looked_at.elapsed().as_millis().max(1) as u64;
        keeper.bytes_per_second = fresh * 1000 / elapsed_ms;
        keeper.is_idle = fresh < self.slack_bytes / 8;
        keeper.appended_bytes = appended_bytes;
        keeper.looked_at = Instant::now();
    }

    fn appended_bytes(&self, number: usize) -> u64 {
        let committer = self.counts.committers.get(number);
        committer.map_or(0, |counts| lock(counts).appended_bytes)
    }

    fn live_bytes(&self, number: usize) -> u64 {
        let committer = self.counts.committers.get(number);
        committer.map_or(0, |counts| lock(counts).live_bytes)
    }

    /// Hands the committer a write and waits until it is synced. False if it was not, or not in time.
    fn commit(&self, number: usize, request: impl FnOnce(Sender<()>) -> Write) -> bool {
        let (done, committed) = bounded(1);
        let envelope = Envelope {
            client: 0,
            request: request(done),
        };
        self.writes
            .get(number)
            .is_some_and(|writes| writes.put(envelope).is_ok())
            && committed.recv_timeout(PATIENCE) == Ok(())
    }

    /// Waits, but not for ever. False if it did not become so.
    fn wait_until(&self, mut is_so: impl FnMut() -> bool) -> bool {
        let until = Instant::now() + PATIENCE;
        while !is_so() {
            if self.is_closing() || Instant::now() > until {
                return false;
            }
            thread::sleep(PAUSE);
        }
        true
    }
}
