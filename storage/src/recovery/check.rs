//! Whether a data folder is sound, and what is in it.
//!
//! Used by `iris store check` and `iris store stats`, offline. First every file is read as it lies there, with nothing
//! changed. Only if that finds no fault is the store opened, as a start would, and every row of it looked at.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::journal::{Ending, Journal};
use super::survey::{Survey, survey};
use super::synced::Synced;
use super::tree::{self, Fault};
use super::{blocks, list, manifest, missing};
use crate::database;
use crate::error::StoreError;
use crate::folder::Folder;
use crate::options::StoreOptions;
use crate::reclaim::Reclaim;
use crate::sequence::SequenceCounter;
use crate::totals::Totals;

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Check {
    /// What is wrong, one line each; empty if the folder is sound.
    pub faults: Vec<String>,
    /// Table files whose every block was read.
    pub tables: u64,
    /// Journal files whose every batch was read.
    pub journals: u64,
    /// What the store holds; `None` if the files are too damaged to open it.
    pub survey: Option<Survey>,
}

/// Checks a data folder that no process has open.
///
/// # Errors
/// If there is none, it is locked, or cannot be read at all. Damage is no error.
pub fn check(path: &Path) -> Result<Check, StoreError> {
    let mut check = Check::default();
    let folder = match Folder::open_existing(path) {
        Ok(folder) => folder,
        Err(error @ StoreError::Damaged { .. }) => {
            check.faults.push(error.to_string());
            return Ok(check);
        }
        Err(error) => return Err(error),
    };
    if let Err(error) = SequenceCounter::look(&folder.sequence_path()) {
        check.faults.push(error.to_string());
    }
    for number in 0..folder.databases() {
        let synced = folder.synced_path(number);
        if synced.exists() && Synced::of(&folder, number).is_none() {
            check.faults.push(format!(
                "{}: fails its CRC, or is another database's; the next start writes it anew",
                synced.display()
            ));
        }
        check_files(&folder, number, &mut check);
    }
    if check.faults.is_empty() {
        let (found, differences) = look(&folder)?;
        check.faults.extend(found.faults());
        check.faults.extend(differences);
        check.survey = Some(found);
    }
    Ok(check)
}

/// What a data folder holds that no process has open.
///
/// # Errors
/// If there is none, it is locked, or cannot be opened.
pub fn stats(path: &Path) -> Result<(Survey, u64), StoreError> {
    let folder = Folder::open_existing(path)?;
    let (survey, _) = look(&folder)?;
    let disk = disk_bytes(path).map_err(|source| StoreError::Unwritable {
        path: path.to_path_buf(),
        action: "adding up the files",
        source,
    })?;
    Ok((survey, disk))
}

/// Opens the store's databases, as a start would, and looks at everything in them. With it, where a database's totals
/// are not the sum of its inboxes.
fn look(folder: &Folder) -> Result<(Survey, Vec<String>), StoreError> {
    let options = StoreOptions {
        databases: folder.databases(),
        ..StoreOptions::new(folder.path())
    };
    let reclaims: Vec<Arc<Reclaim>> = (0..options.databases).map(|_| Arc::default()).collect();
    let (databases, _, _) = database::open_all(folder, &options, &reclaims)?;
    let (mut all, mut differences) = (Survey::default(), Vec::new());
    for (number, tables) in databases.iter().enumerate() {
        let path = folder.database_path(number);
        let found = survey(tables, folder.name_key()).map_err(|kind| StoreError::Damaged {
            path: path.clone(),
            what: format!("its accounts are {kind}"),
        })?;
        let row = Totals::stored(tables).map_err(|source| StoreError::Database {
            path: path.clone(),
            source,
        })?;
        // Where there is none, a start makes it from the inboxes.
        if let Some(row) = row
            && (row.messages, row.bytes) != (found.messages_counted, found.bytes_counted)
        {
            differences.push(format!(
                "{}: its totals say {} messages of {} bytes, its inboxes hold {} of {}",
                path.display(),
                row.messages,
                row.bytes,
                found.messages_counted,
                found.bytes_counted
            ));
        }
        all.add(found);
    }
    Ok((all, differences))
}

fn check_files(folder: &Folder, number: usize, check: &mut Check) {
    let (database, place) = (&*folder.database_path(number), folder.place(number));
    let journals = list(database).unwrap_or_default();
    let faults: Vec<Fault> = match tree::look(database, place) {
        Ok(tree) => {
            let synced = Synced::of(folder, number);
            let (files, messages) = missing(&journals, synced.as_ref(), &tree);
            if files > 0 {
                check.faults.push(format!(
                    "{}: {files} journals are missing, the oldest of them with {messages} messages at most",
                    database.display()
                ));
            }
            tree.damaged.into_iter().map(|(_, fault)| fault).collect()
        }
        Err(fault) => vec![fault],
    };
    let told = faults.iter();
    let told = told.map(|fault| format!("{}: {}", fault.path.display(), fault.what));
    check.faults.extend(told);
    let keyspaces = fs::read_dir(database.join("keyspaces"));
    for keyspace in keyspaces.into_iter().flatten().flatten() {
        // What no manifest names is rubbish of a merge that was cut short.
        for table in manifest::tables(&keyspace.path()).unwrap_or_default() {
            let path = keyspace.path().join(format!("tables/{table}"));
            if faults.iter().any(|fault| fault.path == path) {
                continue;
            }
            check.tables += 1;
            match blocks::sieve(&path) {
                Ok(sieved) if sieved.damaged == 0 => {}
                Ok(sieved) => check.faults.push(format!(
                    "{}: {} blocks of {} bytes in all cannot be read",
                    path.display(),
                    sieved.damaged,
                    sieved.damaged_bytes
                )),
                Err(error) => check.faults.push(format!("{}: {error}", path.display())),
            }
        }
    }
    let mut seqno = None;
    for (_, path) in journals {
        check.journals += 1;
        match Journal::open(&path, place).and_then(|mut journal| journal.look(seqno)) {
            Ok(look) => {
                seqno = look.seqno;
                if look.ending == Ending::Broken {
                    check.faults.push(format!(
                        "{}: damaged from byte {} on; the next start puts back what is intact behind it",
                        path.display(),
                        look.sound_to
                    ));
                }
            }
            Err(error) => check.faults.push(format!("{}: {error}", path.display())),
        }
    }
}

fn disk_bytes(path: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;

    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            // What is really there: journals are made longer than what is in them.
            metadata.blocks() * 512
        };
    }
    Ok(bytes)
}
