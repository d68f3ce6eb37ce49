//! The fjall database below the store: how it is created, opened and tuned.
//!
//! Used while the store opens. Two keyspaces: `messages` (user key and sequence -> record) and `users`
//! (user key -> account). Invariant: a folder named `inbox` is a database that was created completely. fjall
//! cannot go on from a creation that was cut short, so a new one is made under another name and renamed.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::compaction::filter::Factory;
use fjall::config::{CompressionPolicy, FilterPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions};

use crate::error::StoreError;
use crate::folder::{Folder, UNFINISHED_SUFFIX};
use crate::options::StoreOptions;
use crate::sequence::SequenceCounter;
use crate::synced_file;

const MESSAGES: &str = "messages";
const USERS: &str = "users";
/// Accounts are few and small beside messages.
const USERS_MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
const L0_THRESHOLD: u8 = 8;
const OPEN_TABLES_MAX: usize = 512;

/// The open database and its keyspaces.
#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) database: Database,
    pub(crate) messages: Keyspace,
    pub(crate) users: Keyspace,
}

/// Opens the database of the folder, or creates it if the folder is new, with its sequence counter.
/// `reclaim` is asked about each message when tables of `messages` are merged.
pub(crate) fn open(
    folder: &Folder,
    options: &StoreOptions,
    reclaim: Arc<dyn Factory>,
) -> Result<(Tables, SequenceCounter), StoreError> {
    let path = folder.database_path();
    let sequence_path = folder.sequence_path();
    let counted = SequenceCounter::exists(&sequence_path);
    if !path.exists() {
        if counted {
            let what = "the database is missing, though sequences were given out".to_string();
            return Err(StoreError::Damaged { path, what });
        }
        create(&path, options, Arc::clone(&reclaim))?;
    }
    let tables = open_tables(&path, options, reclaim)?;
    let sequence = if counted {
        SequenceCounter::open(&sequence_path)?
    } else if is_empty(&tables).map_err(|source| StoreError::Database {
        path: path.clone(),
        source,
    })? {
        SequenceCounter::create(&sequence_path)?
    } else {
        let what = "missing, though the database holds users".to_string();
        return Err(StoreError::Damaged {
            path: sequence_path,
            what,
        });
    };
    Ok((tables, sequence))
}

fn create(
    path: &Path,
    options: &StoreOptions,
    reclaim: Arc<dyn Factory>,
) -> Result<(), StoreError> {
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
    drop(open_tables(&unfinished, options, reclaim)?);
    File::open(&unfinished)
        .and_then(|file| file.sync_all())
        .map_err(failed("syncing the new database"))?;
    fs::rename(&unfinished, path).map_err(failed("naming the new database"))?;
    synced_file::sync_folder_of(path).map_err(failed("syncing the data folder"))
}

fn open_tables(
    path: &Path,
    options: &StoreOptions,
    reclaim: Arc<dyn Factory>,
) -> Result<Tables, StoreError> {
    let open = || {
        let database = Database::builder(path)
            .cache_size(options.cache_bytes)
            .journal_compression(CompressionType::None)
            // Each batch says itself how durable it is.
            .manual_journal_persist(true)
            .max_journaling_size(options.journal_bytes_max)
            .max_cached_files(Some(OPEN_TABLES_MAX))
            .worker_threads(options.worker_threads)
            .with_compaction_filter_factories(Arc::new(move |keyspace| {
                (keyspace == MESSAGES).then(|| Arc::clone(&reclaim))
            }))
            .open()?;
        let messages = database.keyspace(MESSAGES, || messages_options(options))?;
        let users = database.keyspace(USERS, users_options)?;
        Ok(Tables {
            database,
            messages,
            users,
        })
    };
    open().map_err(|source| StoreError::Database {
        path: path.to_path_buf(),
        source,
    })
}

/// Messages are written once, read in ranges, and short-lived: no filter, no compression.
fn messages_options(options: &StoreOptions) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(options.memtable_bytes)
        .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(L0_THRESHOLD)))
        .data_block_compression_policy(CompressionPolicy::disabled())
        .index_block_compression_policy(CompressionPolicy::disabled())
        .filter_policy(FilterPolicy::disabled())
        .manual_journal_persist(true)
}

/// Accounts are looked up one by one, often for users who have none: fjall's filters stay on.
fn users_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(USERS_MEMTABLE_BYTES)
        .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(L0_THRESHOLD)))
        .data_block_compression_policy(CompressionPolicy::disabled())
        .index_block_compression_policy(CompressionPolicy::disabled())
        .manual_journal_persist(true)
}

fn is_empty(tables: &Tables) -> fjall::Result<bool> {
    Ok(tables.users.is_empty()? && tables.messages.is_empty()?)
}
