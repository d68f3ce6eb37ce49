//! Builds the databases of a data folder anew from whatever can be read of them.
//!
//! Used by `iris store repair`, offline. Every block of every table is taken on its own checksum, every journal as at a
//! start, and no manifest is needed. The new database is built beside the old one, which moves to `damaged/` whole. Killed
//! anywhere, the folder can be repaired again. Memory: that of an open database, one table's file beside it on disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::PersistMode;
use tracing::info;

use super::blocks;
use super::journal::Journal;
use super::survey::{Survey, survey};
use super::synced::Synced;
use super::writer::Writer;
use super::{DAMAGED, list, unfinished};
use crate::clock;
use crate::database;
use crate::error::StoreError;
use crate::folder::{Folder, UNFINISHED_SUFFIX};
use crate::options::StoreOptions;
use crate::reclaim::Reclaim;
use crate::sequence::SequenceCounter;
use crate::synced_file;

/// A database that was built and has yet to take its place.
pub(crate) const REBUILT_SUFFIX: &str = "rebuilt";
/// Keyspaces are numbered in the order of their creation.
const MESSAGES_ID: u64 = 1;
const USERS_ID: u64 = 2;

/// What a repair did.
#[derive(Clone, Debug, Default)]
pub struct Repair {
    /// Messages that were kept.
    pub messages: u64,
    /// Accounts that were kept.
    pub accounts: u64,
    /// Messages that were stored and are not there: lost, or expired and destroyed before.
    pub messages_missing: u64,
    /// Stretches of tables that could not be read.
    pub blocks_lost: u64,
    /// Bytes of tables and journals that could not be read.
    pub bytes_lost: u64,
    /// What the folder holds now.
    pub survey: Survey,
    /// Where the old databases are.
    pub kept_in: Vec<PathBuf>,
}

/// Repairs a data folder that no process has open.
///
/// # Errors
/// If the folder is locked or cannot be written, or if neither FORMAT nor a SYNCED file tells its seed.
pub fn repair(path: &Path) -> Result<Repair, StoreError> {
    let folder = Folder::open_to_repair(path)?;
    let options = StoreOptions {
        databases: folder.databases(),
        ..StoreOptions::new(path)
    };
    let mut repair = Repair::default();
    let mut sequence = 0;
    for number in 0..folder.databases() {
        let known = Synced::read(&folder.synced_path(number)).map_or(0, |synced| synced.sequence);
        sequence = sequence.max(known);
        rebuild(&folder, number, &options, &mut repair, &mut sequence)?;
    }
    SequenceCounter::raise_above(&folder.sequence_path(), sequence)?;
    Ok(repair)
}

fn rebuild(
    folder: &Folder,
    number: usize,
    options: &StoreOptions,
    repair: &mut Repair,
    sequence: &mut u64,
) -> Result<(), StoreError> {
    let old = folder.database_path(number);
    let failed = |action: &'static str| {
        let path = old.clone();
        move |source: io::Error| StoreError::Unwritable {
            path,
            action,
            source,
        }
    };
    let new = old.with_extension(UNFINISHED_SUFFIX);
    let rebuilt = old.with_extension(REBUILT_SUFFIX);
    if rebuilt.exists() {
        if old.exists() {
            fs::remove_dir_all(&rebuilt).map_err(failed("removing an earlier repair"))?;
        } else {
            fs::rename(&rebuilt, &old).map_err(failed("finishing an earlier repair"))?;
        }
    }
    if new.exists() {
        fs::remove_dir_all(&new).map_err(failed("removing an unfinished database"))?;
    }
    let tables = database::open(&new, options, Arc::new(Reclaim::default()))?;
    let mut writer = Writer::new(&tables, folder.seed(), PersistMode::Buffer);
    if old.exists() {
        let sources = Sources::find(folder, &old).map_err(failed("looking for what is left"))?;
        let beside = new.join("blocks");
        let mut accounts = 0;
        let mut take = |key: &[u8], value: &[u8]| {
            accounts += writer.account(key, value)?;
            Ok(())
        };
        sources
            .read(USERS_ID, &beside, repair, &mut take)
            .and_then(|()| writer.finish())
            .map_err(failed("putting accounts into the new database"))?;
        let mut messages = 0;
        let mut take = |key: &[u8], value: &[u8]| {
            messages += writer.message(key, value)?;
            Ok(())
        };
        sources
            .read(MESSAGES_ID, &beside, repair, &mut take)
            .and_then(|()| writer.finish())
            .map_err(failed("putting messages into the new database"))?;
        info!(database = %old.display(), accounts, messages, "rebuilt");
    }
    *sequence = writer.sequence.max(*sequence);
    drop(writer);
    let found = survey(&tables, folder.seed()).map_err(|kind| StoreError::Damaged {
        path: new.clone(),
        what: format!("the new database is {kind}"),
    })?;
    drop(tables);
    repair.messages += found.messages;
    repair.accounts += found.users;
    repair.messages_missing += found.messages_missing;
    repair.survey.add(found);
    sync_folder(&new)
        .and_then(|()| fs::rename(&new, &rebuilt))
        .and_then(|()| synced_file::sync_folder_of(&rebuilt))
        .map_err(failed("naming the new database"))?;
    if old.exists() {
        let name = old.file_name().unwrap_or_default().to_string_lossy();
        let kept = folder.path().join(DAMAGED);
        let aside = kept.join(format!("{}-{name}-whole", clock::now_ms()));
        fs::create_dir_all(&kept)
            .and_then(|()| fs::rename(&old, &aside))
            .and_then(|()| synced_file::sync_folder_of(&aside))
            .map_err(failed("moving the old database aside"))?;
        repair.kept_in.push(aside);
    }
    // What was synced is not all there any more, and that was told.
    let mark = folder.synced_path(number);
    if mark.exists() {
        fs::remove_file(&mark).map_err(failed("removing the mark of what was synced"))?;
    }
    fs::rename(&rebuilt, &old)
        .and_then(|()| synced_file::sync_folder_of(&old))
        .map_err(failed("putting the new database in its place"))
}

/// Who is given a key and its value.
type Take<'a> = dyn FnMut(&[u8], &[u8]) -> io::Result<()> + 'a;

/// Where rows of a database may still be found.
struct Sources {
    database: PathBuf,
    journals: Vec<PathBuf>,
}

impl Sources {
    fn find(folder: &Folder, database: &Path) -> io::Result<Sources> {
        let name = database.file_name().unwrap_or_default().to_string_lossy();
        let mut folders = unfinished(&folder.path().join(DAMAGED), &name)?;
        folders.push(database.to_path_buf());
        let mut journals = Vec::new();
        for folder in folders {
            journals.extend(list(&folder)?.into_iter().map(|(_, path)| path));
        }
        Ok(Sources {
            database: database.to_path_buf(),
            journals,
        })
    }

    /// Shows all rows of a keyspace. What cannot be read of journals is counted with the accounts only.
    fn read(
        &self,
        keyspace: u64,
        beside: &Path,
        repair: &mut Repair,
        take: &mut Take<'_>,
    ) -> io::Result<()> {
        let folder = self.database.join(format!("keyspaces/{keyspace}/tables"));
        let mut tables: Vec<PathBuf> = match fs::read_dir(&folder) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<_>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        tables.sort();
        for table in tables {
            let sieved = blocks::rows(&table, beside, &mut |key, value| take(&key, &value))?;
            repair.blocks_lost += sieved.damaged;
            repair.bytes_lost += sieved.damaged_bytes;
        }
        for journal in &self.journals {
            let unreadable = Journal::open(journal)?.walk(&mut |item| {
                if item.keyspace == keyspace {
                    take(item.key, item.value)?;
                }
                Ok(())
            })?;
            if keyspace == USERS_ID {
                repair.bytes_lost += unreadable;
            }
        }
        Ok(())
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
