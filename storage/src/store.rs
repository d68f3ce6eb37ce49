//! A store as a whole: opened, handed out to the cores, closed.
//!
//! Owner: the thread that starts the gateway. Threads it owns: a committer for each database and
//! `reader_threads` readers for all, and the watch over the disk; ledgers and the databases below have some of their own. Invariant: once `close` or drop returns, the folder is synced and
//! unlocked and no thread of the store runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::Sender;

use crate::client::{Envelope, Read, StoreClient, Write};
use crate::committer::{Committer, Links};
use crate::database;
use crate::databases::Databases;
use crate::disk::{
    Ballast, Condition, Notice, Order, Patient, Space, StoreState, Watch, free_bytes,
};
use crate::entrance::{Entrance, Fifo, Line};
use crate::error::StoreError;
use crate::fair_reads::FairReads;
use crate::folder::Folder;
use crate::ledger::LedgerSource;
use crate::metrics::{Counts, StoreMetrics};
use crate::name_key::NameKey;
use crate::options::StoreOptions;
use crate::outlets::{Outlets, Wake};
use crate::priority;
use crate::quota::Room;
use crate::reader::Reader;
use crate::reclaim::Reclaim;
use crate::recovery::Recovery;
use crate::upkeep::Upkeep;

/// The inbox store of one data folder.
pub struct Store {
    name_key: NameKey,
    outlets: Outlets,
    /// By the number of the database, as what follows.
    writes: Arc<[Entrance<Fifo<Write>>]>,
    reads: Entrance<FairReads>,
    databases: Arc<Databases>,
    counts: Arc<Counts>,
    condition: Arc<Condition>,
    notices: Sender<Notice>,
    watch: Option<JoinHandle<()>>,
    upkeep: Option<Upkeep>,
    committers: Vec<JoinHandle<bool>>,
    readers: Vec<JoinHandle<()>>,
    /// Last: the lock is given up when everything else is gone.
    _folder: Arc<Folder>,
}

impl Store {
    /// Opens the data folder, creating it if it is missing.
    ///
    /// # Errors
    /// One line that says what to do: locked by another process, not a folder, not ours, unwritable, of a newer
    /// version, damaged.
    pub fn open(options: StoreOptions) -> Result<Store, StoreError> {
        let folder = Arc::new(Folder::open(&options.path, options.databases)?);
        // What the folder was made with, whatever is asked for now.
        let options = StoreOptions {
            databases: folder.databases(),
            ..options
        };
        let mut ballast = Ballast::new(&options.path, options.ballast_bytes());
        let mut space = Space::new(options.free_bytes_min, options.ballast_bytes());
        if let Ok(free_bytes) = free_bytes(&options.path)
            && space.look(free_bytes, ballast.is_held()) == Order::Release
        {
            // What must be written to open the store has to fit.
            ballast.release();
        }
        let reclaims: Vec<Arc<Reclaim>> = (0..options.databases).map(|_| Arc::default()).collect();
        let (opened, sequences, recovery) = database::open_all(&folder, &options, &reclaims)?;
        let reader_threads = options.reader_threads.max(1);
        let source = LedgerSource {
            folder: Arc::clone(&folder),
            sequences,
            room: Room::new(options.quotas, options.databases),
            tails_max: options.tails_max.div_ceil(options.databases),
            outlets: Outlets::default(),
            counts: Arc::new(Counts::new(options.databases, reader_threads)),
            condition: Arc::new(Condition::new(recovery, options.databases)),
        };
        let mut ledgers = Vec::new();
        for (number, tables) in opened.iter().enumerate() {
            let ledger = source.open(number, tables);
            ledgers.push(ledger.map_err(|source| StoreError::Unwritable {
                path: folder.database_path(number),
                action: "beginning to write to",
                source,
            })?);
        }
        let (writes, write_requests): (Vec<_>, Vec<_>) = (0..options.databases)
            .map(|_| Entrance::new(Fifo::new(options.queue_requests_max)))
            .unzip();
        let (reads, read_requests) = Entrance::new(FairReads::new(options.queue_reads_max));
        let (notices, notices_received) = crossbeam_channel::unbounded();
        let mut store = Store {
            name_key: folder.name_key(),
            outlets: source.outlets.clone(),
            writes: writes.into(),
            reads,
            databases: Arc::new(Databases::new(opened.into_iter().zip(reclaims).collect())),
            counts: Arc::clone(&source.counts),
            condition: Arc::clone(&source.condition),
            notices,
            watch: None,
            upkeep: None,
            committers: Vec::new(),
            readers: Vec::new(),
            _folder: Arc::clone(&folder),
        };
        // From here on a failure drops the store, which ends what was started.
        for number in 0..reader_threads {
            let reader = Reader {
                number,
                databases: Arc::clone(&store.databases),
                requests: read_requests.clone(),
                outlets: store.outlets.clone(),
                counts: Arc::clone(&store.counts),
                condition: Arc::clone(&store.condition),
            };
            store
                .readers
                .push(spawn(format!("iris-read-{number}"), move || reader.run())?);
        }
        for (number, (ledger, requests)) in ledgers.into_iter().zip(write_requests).enumerate() {
            let links = Links {
                requests,
                answers: source.answers(number),
                notices: store.notices.clone(),
            };
            let committer = Committer::new(ledger, links, &options);
            store
                .committers
                .push(spawn(format!("iris-commit-{number}"), move || {
                    committer.run()
                })?);
        }
        store.upkeep = Some(Upkeep::start(
            &folder,
            Arc::clone(&store.databases),
            Arc::clone(&store.writes),
            Arc::clone(&store.counts),
            Arc::clone(&store.condition),
            &options,
        )?);
        let watch = Watch {
            notices: notices_received,
            folder,
            databases: Arc::clone(&store.databases),
            writes: Arc::clone(&store.writes),
            ledgers: source,
            condition: Arc::clone(&store.condition),
            space,
            ballast,
            patients: (0..options.databases).map(|_| Patient::default()).collect(),
            workers_are_new: true,
            options,
        };
        store.watch = Some(spawn("iris-watch".to_string(), move || watch.run())?);
        Ok(store)
    }

    /// The key of this data folder, under which users' names are hashed.
    pub fn name_key(&self) -> NameKey {
        self.name_key
    }

    /// What opening found damaged, and what became of it; each healing adds to it.
    pub fn recovery(&self) -> Recovery {
        self.condition.recovery()
    }

    /// A handle for one core. `wake` is called on a thread of the store after replies were queued, once for
    /// each batch of them (and on the caller's own thread when a request is refused at once). It must not block.
    pub fn client(&self, wake: Wake) -> StoreClient {
        StoreClient::new(
            &self.outlets,
            Arc::clone(&self.writes),
            self.reads.clone(),
            wake,
        )
    }

    /// Totals since the store was opened.
    pub fn metrics(&self) -> StoreMetrics {
        let mut metrics = self.counts.total();
        for counts in self.databases.reclaimed() {
            metrics.reclaimed_burned += counts.burned.load(Ordering::Relaxed);
            metrics.reclaimed_expired += counts.expired.load(Ordering::Relaxed);
        }
        let recovery = self.condition.recovery();
        metrics.recovered = recovery.messages_put_back;
        metrics.recovery_lost = recovery.lost();
        for writes in self.writes.iter() {
            writes.with(|line| {
                metrics.queued_writes += line.len();
                metrics.writes_refused += line.refused;
                metrics.seen_lost += line.seen_lost;
            });
        }
        self.reads.with(|line| {
            metrics.queued_reads = line.len();
            metrics.reads_refused = line.refused_full;
            metrics.reads_over_share = line.refused_share;
            metrics.reads_cancelled = line.cancelled;
        });
        metrics.state = self.state();
        metrics.healed = self.condition.healed();
        metrics.free_bytes = self.condition.free_bytes();
        metrics
    }

    /// How the store is just now. Cheap enough to ask often.
    pub fn state(&self) -> StoreState {
        if !self.databases.are_open() {
            StoreState::Reopening
        } else if self.counts.is_stopped() {
            StoreState::Stopped
        } else if self.condition.is_refusing() {
            StoreState::Refusing
        } else {
            StoreState::Open
        }
    }

    /// Writes and answers what is queued, syncs, ends the threads and unlocks the folder.
    ///
    /// Let the cores finish first: what a client submits while the store closes may get no answer, and what it
    /// submits afterwards gets [`FailureKind::Closed`](crate::FailureKind::Closed). Nothing of either is
    /// acknowledged.
    ///
    /// # Errors
    /// If writes had failed before, or a thread had died. Everything is closed all the same.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.shut()
    }

    fn shut(&mut self) -> Result<(), StoreError> {
        let mut died = false;
        if let Some(watch) = self.watch.take() {
            // First, so that nothing is opened any more. If nobody receives it, the thread has ended already.
            let _ended = self.notices.send(Notice::Close);
            died |= watch.join().is_err();
        }
        if let Some(mut upkeep) = self.upkeep.take() {
            died |= !upkeep.end();
        }
        // All are told before the first is waited for: they finish side by side.
        for writes in self.writes.iter().take(self.committers.len()) {
            // If nobody receives it, the thread has ended already.
            let _ended = writes.put(Envelope {
                client: 0,
                request: Write::Close,
            });
        }
        for committer in self.committers.drain(..) {
            died |= !committer.join().unwrap_or(false);
        }
        for _ in 0..self.readers.len() {
            let _ended = self.reads.put(Envelope {
                client: 0,
                request: Read::Close,
            });
        }
        for reader in self.readers.drain(..) {
            died |= reader.join().is_err();
        }
        self.databases.close();
        if died {
            return Err(StoreError::Stopped {
                what: "writes had failed; the log says why",
            });
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.shut() {
            tracing::error!(%error, "closing the inbox store");
        }
    }
}

fn spawn<T: Send + 'static>(
    name: String,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StoreError> {
    let run = || {
        priority::stand_back();
        run()
    };
    Builder::new()
        .name(name.clone())
        .spawn(run)
        .map_err(|source| StoreError::Thread { name, source })
}
