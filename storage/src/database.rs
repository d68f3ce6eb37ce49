//! The fjall database below the store: how it is created, opened and tuned.
//!
//! Used while the store opens. Two keyspaces: `messages` (user key and sequence -> record) and `users`
//! (user key -> account). Invariant: a folder named `inbox-0` (and so on) is a database that was created completely. fjall
//! cannot go on from a creation that was cut short, so a new one is made under another name and renamed.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fjall::compaction::Leveled;
use fjall::config::{CompressionPolicy, FilterPolicy};
use fjall::{
    AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode,
};

use crate::durable::DurableAccounts;
use crate::error::StoreError;
use crate::folder::{Folder, UNFINISHED_SUFFIX};
use crate::options::StoreOptions;
use crate::pace::Progress;
use crate::reclaim::Reclaim;
use crate::recovery::{self, REBUILT_SUFFIX, Recovery, Search, TableName};
use crate::sequence::{SequenceCounter, Sequences};
use crate::synced_file;

pub(crate) const MESSAGES: &str = "messages";
pub(crate) const USERS: &str = "users";
/// Accounts are few and small beside messages.
const USERS_MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
/// Runs in level 0 that are merged into level 1 together. As many as have time to gather meanwhile lie between it and
/// what lets writes wait ([`crate::backpressure::L0_RUNS_MAX`]).
pub(crate) const L0_THRESHOLD: u8 = 12;
/// With it the goal for level 1 is three quarters of a gigabyte, twice what level 0 brings: the larger level 1, the fewer of
/// its tables go further down, but the longer a merge of level 0 takes.
const TABLE_BYTES: u64 = 64 * 1024 * 1024;

/// A size of tables for which no level is ever too large; 255 of them are a number yet.
const NEVER_BYTES: u64 = 1 << 50;
/// fjall's threads for each database. They write tables, and merge those of accounts. One of them takes no merges, and spins
/// while all others are merging; merges of accounts are few.
const WORKERS: usize = 4;

const OPEN_TABLES_MAX: usize = 512;
/// Between two looks at a flush.
const FLUSH_PAUSE: Duration = Duration::from_millis(1);

/// The open database and its keyspaces.
#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) database: Database,
    pub(crate) messages: Keyspace,
    pub(crate) users: Keyspace,
    pub(crate) durable: DurableAccounts,
    /// Of the merges of messages.
    pub(crate) progress: Arc<Progress>,
    /// At which size fjall begins a new memtable of messages.
    pub(crate) memtable_bytes: u64,
    has_failed_merge: Arc<AtomicBool>,
    /// Whether the database is given up, or closed: then merges give themselves up.
    pub(crate) is_left: Arc<AtomicBool>,
}

/// The part of its size by which a memtable may outgrow it before the committer itself begins a new one. Else a worker of
/// fjall's does, under the journal's lock, which a committer that has much to write and shares a cpu with that worker
/// hardly lets go of: the memtable was seen to grow to gigabytes. With a quarter the store took a hundred megabytes more
/// beside a flood: up to eight memtables are in memory at a time.
const OUTGROWS_BY: u64 = 16;
impl Tables {
    /// Begins new memtables where those in use have outgrown their size.
    pub(crate) fn leave_outgrown(&self) -> fjall::Result<()> {
        let keyspaces = [
            (&self.messages, self.memtable_bytes),
            (&self.users, USERS_MEMTABLE_BYTES),
        ];
        for (keyspace, bytes) in keyspaces {
            if keyspace.tree.active_memtable().size() > bytes + bytes / OUTGROWS_BY {
                keyspace.rotate_memtable()?;
            }
        }
        Ok(())
    }

    /// Its folder.
    pub(crate) fn path(&self) -> &Path {
        let keyspaces = self.messages.path().parent();
        let database = keyspaces.and_then(Path::parent);
        database.expect("a keyspace's folder is two below the database's")
    }

    /// Turns what stands in memory into tables.
    pub(crate) fn flush(&self) -> io::Result<()> {
        for keyspace in [&self.messages, &self.users] {
            keyspace.rotate_memtable().map_err(io::Error::other)?;
        }
        let sealed = || self.messages.sealed_memtable_count() + self.users.sealed_memtable_count();
        while sealed() > 0 {
            self.check().map_err(io::Error::other)?;
            thread::sleep(FLUSH_PAUSE);
        }
        Ok(())
    }

    /// The highest seqno that stands in memory, of the messages and of the users.
    pub(crate) fn seqnos_in_memory(&self) -> [Option<u64>; 2] {
        [&self.messages, &self.users].map(|keyspace| keyspace.tree.get_highest_memtable_seqno())
    }

    /// Merges messages on this thread for as long as a merge of level 0 is due: for who writes while nobody else does.
    pub(crate) fn merge_due(&self) -> fjall::Result<()> {
        let tree = &self.messages.tree;
        while tree.l0_run_count() >= usize::from(L0_THRESHOLD) {
            let version = tree.current_version().id();
            tree.compact(merges(), 0)?;
            if tree.current_version().id() == version {
                break;
            }
        }
        Ok(())
    }

    /// From now on it takes no writes.
    pub(crate) fn note_failed_merge(&self) {
        self.has_failed_merge.store(true, Ordering::Relaxed);
    }

    /// Whether the database still takes writes: none after a failed one, or once a worker of it, or a merge, has failed.
    pub(crate) fn check(&self) -> fjall::Result<()> {
        if self.has_failed_merge.load(Ordering::Relaxed) {
            return Err(fjall::Error::Poisoned);
        }
        self.database.persist(PersistMode::Buffer)
    }
}

/// Opens the databases of the folder, side by side, or creates them if the folder is new, with their sequence
/// counter. The reclaim of a database's number is asked about each message when its tables are merged. With it goes
/// what was found damaged.
pub(crate) fn open_all(
    folder: &Folder,
    options: &StoreOptions,
    reclaims: &[Arc<Reclaim>],
) -> Result<(Vec<Tables>, Sequences, Recovery), StoreError> {
    let sequence_path = folder.sequence_path();
    let counted = SequenceCounter::exists(&sequence_path);
    let create_or_open = |(number, reclaim): (usize, &Arc<Reclaim>)| {
        let path = folder.database_path(number);
        if !path.exists() {
            let rebuilt = path.with_extension(REBUILT_SUFFIX);
            if rebuilt.exists() {
                // A repair was killed just before this.
                fs::rename(&rebuilt, &path)
                    .and_then(|()| synced_file::sync_folder_of(&path))
                    .map_err(|source| StoreError::Unwritable {
                        path: path.clone(),
                        action: "finishing a repair",
                        source,
                    })?;
            } else if counted {
                let what = "the database is missing, though sequences were given out".to_string();
                return Err(StoreError::Damaged { path, what });
            } else {
                create(&path, options, reclaim)?;
            }
        }
        open_one(folder, number, options, reclaim, &[])
    };
    let opened = thread::scope(|scope| {
        let opening: Vec<_> = reclaims
            .iter()
            .enumerate()
            .map(|of_one| scope.spawn(move || create_or_open(of_one)))
            .collect();
        opening
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect::<Result<Vec<_>, StoreError>>()
    })?;
    let mut recovery = Recovery::default();
    let opened: Vec<Tables> = opened
        .into_iter()
        .map(|(tables, found)| {
            recovery.add(found);
            tables
        })
        .collect();
    let counter = if counted {
        SequenceCounter::open(&sequence_path)?
    } else if let Some(number) = first_used(folder, &opened)? {
        let database = folder.database_path(number);
        let what = format!("missing, though {} holds users", database.display());
        return Err(StoreError::Damaged {
            path: sequence_path,
            what,
        });
    } else {
        SequenceCounter::create(&sequence_path)?
    };
    Ok((opened, Sequences::new(counter), recovery))
}

/// Opens a database that exists, with whatever can be put right in it. `damaged`: tables that are known to be.
///
/// A damaged block that shows only when the database is open already, because a merge meets it, makes it fail. Then all
/// tables are read, and it is opened without those that are damaged.
pub(crate) fn open_one(
    folder: &Folder,
    number: usize,
    options: &StoreOptions,
    reclaim: &Arc<Reclaim>,
    damaged: &[TableName],
) -> Result<(Tables, Recovery), StoreError> {
    let path = folder.database_path(number);
    let open = |damaged: &[TableName]| {
        let prepared = recovery::prepare(folder, number, damaged)?;
        let tables = open(&path, options, reclaim)?;
        let found = recovery::finish(prepared, &tables, folder.name_key())?;
        Ok((tables, found))
    };
    let error = match open(damaged) {
        Err(error @ StoreError::Damaged { .. }) => return Err(error),
        Err(error) => error,
        opened => return opened,
    };
    let mut search = Search::begin(&path);
    while search.step() {}
    match search.found() {
        [] => Err(error),
        found => open(found),
    }
}

fn create(path: &Path, options: &StoreOptions, reclaim: &Arc<Reclaim>) -> Result<(), StoreError> {
    let unfinished = path.with_extension(UNFINISHED_SUFFIX);
    let failed = |action| {
        let path = unfinished.clone();
        move |source: io::Error| StoreError::Unwritable {
            path,
            action,
            source,
        }
    };
    if unfinished.exists() {
        // Nothing was ever acknowledged from it: it never got its name.
        fs::remove_dir_all(&unfinished).map_err(failed("removing an unfinished database"))?;
    }
    drop(open(&unfinished, options, reclaim)?);
    // fjall does not sync all the names that it makes; a database whose parts have no names is lost with the power.
    synced_file::sync_tree(&unfinished).map_err(failed("syncing the new database"))?;
    fs::rename(&unfinished, path).map_err(failed("naming the new database"))?;
    synced_file::sync_folder_of(path).map_err(failed("syncing the data folder"))
}

/// Opens a database, or begins one under this name.
pub(crate) fn open(
    path: &Path,
    options: &StoreOptions,
    reclaim: &Arc<Reclaim>,
) -> Result<Tables, StoreError> {
    let open = || {
        let (progress, filters) = (reclaim.progress(), Arc::clone(reclaim));
        let database = Database::builder(path)
            .cache_size(options.cache_bytes / options.databases.max(1) as u64)
            .journal_compression(CompressionType::None)
            // Each batch says itself how durable it is.
            .manual_journal_persist(true)
            .max_journaling_size(options.journal_bytes_max)
            .max_cached_files(Some(OPEN_TABLES_MAX))
            .worker_threads(WORKERS)
            .with_compaction_filter_factories(Arc::new(move |keyspace| {
                (keyspace == MESSAGES).then(|| Arc::clone(&filters) as _)
            }))
            .open()?;
        let messages = database.keyspace(MESSAGES, || messages_options(options))?;
        let users = database.keyspace(USERS, users_options)?;
        Ok(Tables {
            database,
            messages,
            durable: DurableAccounts::of(&users),
            users,
            progress,
            memtable_bytes: options.memtable_bytes,
            has_failed_merge: Arc::default(),
            is_left: Arc::default(),
        })
    };
    // fjall asserts much of what it reads. What can be looked at was looked at before; this is for the rest.
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => opened.map_err(|source| StoreError::Database {
            path: path.to_path_buf(),
            source,
        }),
        Err(_) => Err(StoreError::Damaged {
            path: path.to_path_buf(),
            what: "the database panicked while it opened".to_string(),
        }),
    }
}

/// Messages are written once, read in ranges, and short-lived: no filter, no compression.
fn messages_options(options: &StoreOptions) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(options.memtable_bytes)
        .compaction_strategy(left_to_the_merger())
        .data_block_compression_policy(CompressionPolicy::disabled())
        .index_block_compression_policy(CompressionPolicy::disabled())
        .filter_policy(FilterPolicy::disabled())
        .manual_journal_persist(true)
}

/// Accounts are looked up one by one, often for users who have none: fjall's filters stay on.
fn users_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(USERS_MEMTABLE_BYTES)
        .compaction_strategy(merges())
        .data_block_compression_policy(CompressionPolicy::disabled())
        .index_block_compression_policy(CompressionPolicy::disabled())
        .manual_journal_persist(true)
}

/// What fjall is told of messages: it may move a lone table down, and finds a merge to do in 255 tables of level 0 only,
/// which it lets nobody write.
fn left_to_the_merger() -> Arc<Leveled> {
    let leveled = Leveled::default().with_l0_threshold(u8::MAX);
    Arc::new(leveled.with_table_target_size(NEVER_BYTES))
}

/// When tables are merged, of either keyspace.
pub(crate) fn merges() -> Arc<Leveled> {
    let leveled = Leveled::default().with_l0_threshold(L0_THRESHOLD);
    Arc::new(leveled.with_table_target_size(TABLE_BYTES))
}

/// The number of a database that holds anything.
fn first_used(folder: &Folder, databases: &[Tables]) -> Result<Option<usize>, StoreError> {
    for (number, tables) in databases.iter().enumerate() {
        let is_empty = || Ok(tables.users.is_empty()? && tables.messages.is_empty()?);
        let is_empty = is_empty().map_err(|source| StoreError::Database {
            path: folder.database_path(number),
            source,
        })?;
        if !is_empty {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

#[cfg(test)]
impl Tables {
    /// Those of a new database, and the folder it lives in.
    pub(crate) fn of_new() -> (tempfile::TempDir, Tables) {
        Tables::of_new_with(Arc::default())
    }

    /// The same, with merges that ask this one.
    pub(crate) fn of_new_with(reclaim: Arc<Reclaim>) -> (tempfile::TempDir, Tables) {
        let folder = tempfile::tempdir().expect("a folder");
        let options = StoreOptions::new(folder.path());
        let path = folder.path().join("database");
        let tables = open(&path, &options, &reclaim).expect("opened");
        (folder, tables)
    }
}

#[cfg(test)]
/// Runs of level 0 with so many rows each, which overlap from two on. Not by way of the database, whose workers would look at them.
pub(crate) fn write_runs(keyspace: &Keyspace, runs: usize, rows: u64) {
    for run in 0..runs as u64 {
        for row in 0..rows {
            let mut key = [1; 20];
            key[4..12].copy_from_slice(&row.to_be_bytes());
            key[12..].copy_from_slice(&(run * rows + row + 1).to_be_bytes());
            keyspace.insert(key, "a").expect("written");
        }
        keyspace.tree.flush_active_memtable(0).expect("a table");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memtable_that_is_not_left_in_time_is_left() {
        let (_folder, mut tables) = Tables::of_new();
        // fjall leaves it much later.
        tables.memtable_bytes = 1_000;
        let size = |tables: &Tables| tables.messages.tree.active_memtable().size();
        tables.messages.insert([1; 20], [7; 500]).expect("written");
        tables.leave_outgrown().expect("looked");
        assert!(size(&tables) > 500);
        tables.messages.insert([2; 20], [7; 800]).expect("written");
        tables.leave_outgrown().expect("looked");
        assert_eq!(size(&tables), 0);
    }
}
