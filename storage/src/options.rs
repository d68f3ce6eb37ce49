//! How a store is set up: every figure with its reason.
//!
//! Plain data, read once at open. The sizes of memtables and tables are kept in the database when it is
//! created; changing them here later has no effect on a folder that exists.

use std::path::PathBuf;
use std::time::Duration;

use crate::quota::Quotas;

/// Most databases of a folder: one for each four cores of the largest machine the gateway runs on.
pub(crate) const DATABASES_MAX: usize = 256;
/// Cores whose messages one committer and one journal can take: well above what four cores receive.
const CORES_PER_DATABASE: usize = 4;

/// The ballast's part of `free_bytes_min`.
const BALLAST_PART: u64 = 8;

/// Settings of a store. [`StoreOptions::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The data folder; created if missing.
    pub path: PathBuf,
    /// Databases of a new folder, each with a committer of its own; a user's inbox lies in one of them. A folder that
    /// exists keeps the number it was made with. At most 256.
    pub databases: usize,
    /// What an inbox, and all of them together, may hold.
    pub quotas: Quotas,
    /// How long the committer waits for company after the first request of a batch. Zero: it takes what is there.
    /// What arrives while a batch is written makes the next one, so under load batches are large without any wait.
    pub commit_window: Duration,
    /// Most requests in one batch: bounds the time to the sync. A full batch is begun during a sync, too.
    pub commit_requests_max: usize,
    /// Most bytes of records in one batch (one more record may go over it): bounds memory with large messages.
    pub commit_bytes_max: usize,
    /// Requests waiting for each committer; what comes on top is answered [`Overloaded`](crate::FailureKind::Overloaded).
    pub queue_requests_max: usize,
    /// Pages and accounts waiting for a reader; on top: overloaded, as is what a party asks beyond its share.
    pub queue_reads_max: usize,
    /// Threads that read pages and accounts.
    pub reader_threads: usize,
    /// Users whose place in the inbox the committers remember, so that an append needs no look-up; about 150
    /// bytes each. Shared out among the databases.
    pub tails_max: usize,
    /// Block cache, shared out among the databases.
    pub cache_bytes: u64,
    /// Messages a database keeps in memory before they are written as a table.
    pub memtable_bytes: u64,
    /// Journal files of a database on disk, at least 64 MiB: bounds the time a recovery takes.
    pub journal_bytes_max: u64,
    /// What must be free on the disk for a message to be taken, in bytes; 0: no matter. It must hold what the
    /// databases write by themselves (memtables as tables, merges), and what is written between two looks at the
    /// disk. An eighth of it is held by a ballast file, which is given up when the disk is full all the same.
    pub free_bytes_min: u64,
    /// Between two rounds of the upkeep: the search for expired messages, and a look at how much the databases hold
    /// beyond what is live.
    pub upkeep_interval: Duration,
    /// Bytes that a database may hold beyond twice what is live before it is shrunk.
    pub space_slack_bytes: u64,
    /// Least time between two times that a database without traffic fills its journal up to be rid of it: each
    /// writes up to 64 MB.
    pub journal_interval: Duration,
}

impl StoreOptions {
    /// The defaults for a data folder: 150 to 390 MiB of memory for each database.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        StoreOptions {
            path: path.into(),
            databases: 1,
            quotas: Quotas::default(),
            commit_window: Duration::ZERO,
            commit_requests_max: 4096,
            commit_bytes_max: 8 * 1024 * 1024,
            queue_requests_max: 65_536,
            queue_reads_max: 16_384,
            reader_threads: 2,
            tails_max: 131_072,
            cache_bytes: 32 * 1024 * 1024,
            memtable_bytes: 32 * 1024 * 1024,
            journal_bytes_max: 256 * 1024 * 1024,
            free_bytes_min: 512 * 1024 * 1024,
            upkeep_interval: Duration::from_secs(10),
            space_slack_bytes: 8 * 1024 * 1024,
            journal_interval: Duration::from_secs(3600),
        }
    }

    pub(crate) fn ballast_bytes(&self) -> u64 {
        self.free_bytes_min / BALLAST_PART
    }

    /// What suits a gateway of so many cores: a database for each four cores begun, and readers to match.
    #[must_use]
    pub fn for_cores(self, cores: usize) -> Self {
        let databases = cores.div_ceil(CORES_PER_DATABASE).clamp(1, DATABASES_MAX);
        StoreOptions {
            databases,
            reader_threads: self.reader_threads.max(databases),
            ..self
        }
    }
}
