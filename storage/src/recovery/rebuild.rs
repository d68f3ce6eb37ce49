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
use super::put_back::Row;
use super::survey::{Survey, survey};
use super::synced::Synced;
use super::tree::{MESSAGES_ID, USERS_ID};
use super::writer::Writer;
use super::{copies, list};
use crate::database;
use crate::error::StoreError;
use crate::folder::{Folder, UNFINISHED_SUFFIX};
use crate::options::StoreOptions;
use crate::reclaim::Reclaim;
use crate::sequence::SequenceCounter;
use crate::synced_file;
use crate::user::Place;

/// A database that was built and has yet to take its place.
pub(crate) const REBUILT_SUFFIX: &str = "rebuilt";

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
/// If the folder is locked or cannot be written, or if neither FORMAT nor a SYNCED file tells its key.
pub fn repair(path: &Path) -> Result<Repair, StoreError> {
    let folder = Folder::open_to_repair(path)?;
    let options = StoreOptions {
        databases: folder.databases(),
        ..StoreOptions::new(path)
    };
    let mut repair = Repair::default();
    let mut sequence = 0;
    for number in 0..folder.databases() {
        let known = Synced::of(&folder, number).map_or(0, |synced| synced.sequence);
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
    let tables = database::open(&new, options, &Arc::new(Reclaim::default()))?;
    let mut writer = Writer::new(
        &tables,
        folder.name_key(),
        folder.place(number),
        PersistMode::Buffer,
    );
    if old.exists() {
        let sources = Sources::find(folder, number).map_err(failed("looking for what is left"))?;
        let mut accounts = 0;
        let mut take = |key: &[u8], value: &[u8]| {
            accounts += writer.account(key, value)?;
            Ok(())
        };
        sources
            .read(USERS_ID, repair, &mut take)
            .and_then(|()| writer.finish())
            .map_err(failed("putting accounts into the new database"))?;
        let mut messages = 0;
        let mut take = |key: &[u8], value: &[u8]| {
            messages += writer.message(key, value)?;
            Ok(())
        };
        sources
            .read(MESSAGES_ID, repair, &mut take)
            .and_then(|()| writer.finish())
            .and_then(|_| writer.claim_messages())
            .and_then(|()| writer.finish())
            .map_err(failed("putting messages into the new database"))?;
        info!(database = %old.display(), accounts, messages, "rebuilt");
    }
    *sequence = writer.sequence.max(*sequence);
    drop(writer);
    let found = survey(&tables, folder.name_key()).map_err(|kind| StoreError::Damaged {
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
        let aside = copies::keep_whole(folder.path(), &old);
        repair
            .kept_in
            .push(aside.map_err(failed("moving the old database aside"))?);
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
    /// Of all keyspaces: what a row is, its key tells.
    tables: Vec<PathBuf>,
    journals: Vec<PathBuf>,
    place: Place,
}

impl Sources {
    fn find(folder: &Folder, number: usize) -> io::Result<Sources> {
        let database = &*folder.database_path(number);
        let copies = copies::unfinished(folder.path(), database)?;
        let (mut tables, mut journals) = (Vec::new(), Vec::new());
        for copy in &copies {
            let of_copy = copies::tables(copy)?;
            tables.extend(of_copy.into_iter().map(|(_, path)| path));
        }
        for keyspace in [MESSAGES_ID, USERS_ID] {
            let folder = database.join(format!("keyspaces/{keyspace}/tables"));
            match fs::read_dir(&folder) {
                Ok(entries) => {
                    for entry in entries {
                        tables.push(entry?.path());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        tables.sort();
        for folder in copies.iter().map(|copy| &**copy).chain([database]) {
            journals.extend(list(folder)?.into_iter().map(|(_, path)| path));
        }
        Ok(Sources {
            tables,
            journals,
            place: folder.place(number),
        })
    }

    /// Shows all rows of a keyspace, and those of the others' tables. What cannot be read is counted with the accounts
    /// only.
    fn read(&self, keyspace: u64, repair: &mut Repair, take: &mut Take<'_>) -> io::Result<()> {
        let mut lost = (0, 0);
        for table in &self.tables {
            let sieved = blocks::rows(table, &mut |key, value| take(key, value))?;
            lost.0 += sieved.damaged;
            lost.1 += sieved.damaged_bytes;
        }
        for journal in &self.journals {
            // A key is not covered by the CRC of its value: behind damage a message must fit between its neighbours.
            let mut row = Row::default();
            lost.1 += Journal::open(journal, self.place)?.walk(&mut |item| {
                if keyspace == MESSAGES_ID
                    && let Some((message, _)) = row.see(&item)
                    && let Some((key, value)) = message.put_back
                {
                    take(&key, &value)?;
                }
                if item.keyspace == keyspace && !(item.behind_damage && keyspace == MESSAGES_ID) {
                    take(item.key, item.value)?;
                }
                Ok(())
            })?;
            if let Some((message, _)) = row.last()
                && let Some((key, value)) = message.put_back
            {
                take(&key, &value)?;
            }
        }
        if keyspace == USERS_ID {
            repair.blocks_lost += lost.0;
            repair.bytes_lost += lost.1;
        }
        Ok(())
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
