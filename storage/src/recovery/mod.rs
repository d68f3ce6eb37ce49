//! What a crash or a failing disk left of a database, found before fjall touches it and put right after.
//!
//! Used by the thread that opens a database. The order, so that being killed anywhere loses nothing:
//! 1. every journal file is read; if one is damaged or missing, all of them are copied to `damaged/` in the data
//!    folder, under a name that says `.unfinished`;
//! 2. the damaged files are cut where the damage begins, as fjall itself would, and fjall opens the database;
//! 3. what is intact behind the damage is put back from the copies, synced, and the copies lose the `.unfinished`.
//!
//! Invariants: nothing is changed before it was copied; the same put back twice changes nothing; nothing is put back
//! that does not pass its CRC, nor below a head; what is lost is told in numbers.

mod blocks;
mod check;
mod fields;
mod journal;
mod put_back;
mod rebuild;
mod survey;
pub(crate) mod synced;
mod tree;
mod window;
mod writer;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use fjall::AbstractTree;
use tracing::{error, info, warn};

use crate::clock;
use crate::database::Tables;
use crate::error::StoreError;
use crate::folder::Folder;
use crate::synced_file;
use crate::totals::{TOTALS_KEY, Totals};
use journal::{Ending, Journal};
use synced::Synced;

pub use check::{Check, check, stats};
pub(crate) use rebuild::REBUILT_SUFFIX;
pub use rebuild::{Repair, repair};
pub use survey::{Inbox, Survey};

/// Folder in the data folder that keeps what was damaged, for people to look at or to delete.
pub(crate) const DAMAGED: &str = "damaged";
const PARTIAL: &str = "partial";
const UNFINISHED: &str = "unfinished";

/// What opening found wrong, and what became of it. All zeros: nothing was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Journal files with bytes that are not as they were written, or that end too early.
    pub journals_damaged: u64,
    /// Journal files that are gone.
    pub journals_missing: u64,
    /// Messages behind the damage that were put back.
    pub messages_put_back: u64,
    /// Of these, messages of users without an account: it is lost, and whose key it is gets them; or the key itself was
    /// hit, and nobody does.
    pub messages_unclaimed: u64,
    /// Accounts behind the damage that were put back.
    pub accounts_put_back: u64,
    /// Messages that the journals lost, by the gaps in their sequences. Some of them may be in a table all the same; and
    /// what was lost before a block of sequences began is not known.
    pub messages_lost: u64,
    /// Sequences at the end that were synced and are not there: at most so many messages. Each opening takes one for
    /// itself, and several databases share them.
    pub sequences_lost: u64,
    /// Bytes of the journals that could not be read.
    pub bytes_lost: u64,
    /// Users of whom something was put back.
    pub users_touched: u64,
    /// Where the damaged files were copied to.
    pub kept_in: Vec<PathBuf>,
}

impl Recovery {
    /// Whether anything was wrong.
    pub fn is_clean(&self) -> bool {
        *self == Recovery::default()
    }

    /// Adds what was found in another database.
    pub(crate) fn add(&mut self, other: Recovery) {
        self.journals_damaged += other.journals_damaged;
        self.journals_missing += other.journals_missing;
        self.messages_put_back += other.messages_put_back;
        self.messages_unclaimed += other.messages_unclaimed;
        self.accounts_put_back += other.accounts_put_back;
        self.messages_lost += other.messages_lost;
        self.sequences_lost += other.sequences_lost;
        self.bytes_lost += other.bytes_lost;
        self.users_touched += other.users_touched;
        self.kept_in.extend(other.kept_in);
    }
}

/// What is known of a database's journals before it is opened.
pub(crate) struct Prepared {
    found: Recovery,
    /// Copies from which something may have to be put back.
    copies: Vec<PathBuf>,
    /// What the database must show.
    synced: Option<Synced>,
    /// The tables of messages there were.
    tables: Vec<u64>,
}

/// Reads the journals of a database that is not open, and makes them ready for fjall.
pub(crate) fn prepare(folder: &Folder, number: usize) -> Result<Prepared, StoreError> {
    let database = &*folder.database_path(number);
    let mark = folder.synced_path(number);
    let synced = Synced::read(&mark);
    if synced.is_none() && mark.exists() {
        warn!(mark = %mark.display(), "fails its CRC; nothing is held against it this time, and it is written anew");
    }
    let failed = |action: &'static str| {
        let path = database.to_path_buf();
        move |source: io::Error| StoreError::Unwritable {
            path,
            action,
            source,
        }
    };
    tree::check(database).map_err(|fault| StoreError::Damaged {
        path: database.to_path_buf(),
        what: format!("{}: {}", fault.path.display(), fault.what),
    })?;
    let before_open = tree::tables(&database.join("keyspaces/1")).unwrap_or_default();
    // Holds nothing; fjall only wants it to be there.
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(database.join("lock"));
    lock.map_err(failed("opening the database's lock file"))?;
    let journals = list(database).map_err(failed("listing the journals"))?;
    let kept = folder.path().join(DAMAGED);
    let name = database.file_name().unwrap_or_default().to_string_lossy();
    let mut copies = unfinished(&kept, &name).map_err(failed("looking for copied journals"))?;
    let mut found = Recovery::default();
    let mut cuts = Vec::new();
    let mut seqno = None;
    let mut before: Option<u64> = None;
    for (place, (number, path)) in journals.iter().enumerate() {
        found.journals_missing += before.map_or(0, |before| number - before - 1);
        before = Some(*number);
        let is_last = place + 1 == journals.len();
        let (sound_to, is_damaged) = look(
            path,
            is_last,
            &mut seqno,
            synced.map(|synced| synced.sequence),
        )
        .map_err(failed("reading a journal"))?;
        if is_damaged {
            found.journals_damaged += 1;
            cuts.push((path, sound_to));
        }
    }
    if let (Some(synced), Some(last)) = (&synced, before) {
        // Those before the first may have been written off; nobody writes off the newest.
        found.journals_missing += synced.last_journal.saturating_sub(last);
    }
    if journals.is_empty() {
        // A database always has one; without any, fjall would begin to count its writes anew.
        found.journals_missing += 1;
        let name = synced.map_or(0, |synced| synced.last_journal);
        let path = database.join(format!("{name}.jnl"));
        File::create_new(&path)
            .and_then(|file| file.sync_all())
            .map_err(failed("creating a journal"))?;
    }
    if !found.is_clean() {
        error!(
            database = %database.display(),
            damaged = found.journals_damaged,
            missing = found.journals_missing,
            "journals of the inbox store are damaged; they are copied, and what is intact behind the damage is put back"
        );
        let copy = keep(&kept, &name, &journals).map_err(failed("copying the damaged journals"))?;
        copies.push(copy);
        for (path, sound_to) in cuts {
            cut(path, sound_to).map_err(failed("cutting a damaged journal"))?;
        }
    }
    Ok(Prepared {
        found,
        copies,
        synced,
        tables: before_open,
    })
}

/// Puts back what is intact behind the damage, once the database is open.
pub(crate) fn finish(
    prepared: Prepared,
    tables: &Tables,
    seed: u64,
) -> Result<Recovery, StoreError> {
    let Prepared {
        mut found,
        copies,
        synced,
        tables: before_open,
    } = prepared;
    let flushed = flushed(tables, &before_open);
    let failed = |source| StoreError::Database {
        path: tables.users.path().to_path_buf(),
        source,
    };
    let row = tables.users.get(TOTALS_KEY).map_err(failed)?;
    let shown = row.and_then(|row| Totals::decode(&row));
    let shown = shown.map_or(0, |row| row.last_sequence);
    let is_short = synced.is_some_and(|synced| synced.sequence > shown);
    if is_short || !copies.is_empty() {
        // Neither what the damage took nor what is put back is in it.
        Totals::forget(tables).map_err(failed)?;
    }
    for copy in copies {
        let journals = list(&copy).map_err(|source| StoreError::Unwritable {
            path: copy.clone(),
            action: "listing the copied journals",
            source,
        })?;
        put_back::put_back(&journals, tables, seed, flushed, &mut found)?;
        let done = copy.with_extension("");
        fs::rename(&copy, &done)
            .and_then(|()| synced_file::sync_folder_of(&done))
            .map_err(|source| StoreError::Unwritable {
                path: copy.clone(),
                action: "renaming the copied journals",
                source,
            })?;
        found.kept_in.push(done);
    }
    if let Some(synced) = synced
        && is_short
    {
        // The tables may show more than the row did, which stood in the journal.
        let shown = Totals::load(tables).map_err(failed)?.last_sequence;
        found.sequences_lost = synced.sequence.saturating_sub(shown);
        if found.sequences_lost > 0 {
            error!(
                synced = synced.sequence,
                shown, "the database does not show what was synced: its newest messages are lost"
            );
        }
    }
    if !found.is_clean() {
        warn!(
            messages_put_back = found.messages_put_back,
            messages_unclaimed = found.messages_unclaimed,
            accounts_put_back = found.accounts_put_back,
            messages_lost = found.messages_lost,
            sequences_lost = found.sequences_lost,
            bytes_lost = found.bytes_lost,
            users_touched = found.users_touched,
            kept_in = ?found.kept_in,
            "the inbox store was opened in spite of damaged journals"
        );
    }
    Ok(found)
}

/// Up to which seqno the tables had every message before the database was opened. Its workers write new ones at once,
/// and merge; `None` if that made one of the old ones go already.
fn flushed(tables: &Tables, before_open: &[u64]) -> Option<u64> {
    let version = tables.messages.tree.current_version();
    let seqnos: Vec<u64> = version
        .iter_tables()
        .filter(|table| before_open.contains(&table.id()))
        .map(|table| table.get_highest_seqno())
        .collect();
    (seqnos.len() == before_open.len()).then(|| seqnos.into_iter().max().unwrap_or(0))
}

/// Where the sound part of a journal ends, and whether more than a crash could leave is wrong with it.
fn look(
    path: &Path,
    is_last: bool,
    seqno: &mut Option<u64>,
    synced: Option<u64>,
) -> io::Result<(u64, bool)> {
    let mut journal = Journal::open(path)?;
    let look = journal.look(*seqno)?;
    *seqno = look.seqno;
    let is_damaged = match look.ending {
        Ending::Clean => false,
        Ending::Broken => true,
        // Only the last file is written to; a full one was synced before the next was begun.
        Ending::Unfinished if !is_last => true,
        Ending::Unfinished => {
            // A crash cuts what nobody was told of. What was acknowledged was synced, and cannot be cut.
            let acknowledged = match (synced, journal.first_sequence_behind(look.sound_to)?) {
                (Some(synced), Some(first)) => first <= synced,
                (Some(synced), None) => look.sequence != 0 && look.sequence < synced,
                (None, _) => false,
            };
            if !acknowledged {
                info!(journal = %path.display(), at = look.sound_to, "the last batch was cut short; nobody was told of it");
            }
            acknowledged
        }
    };
    Ok((look.sound_to, is_damaged))
}

/// The journals of a folder by number, oldest first. Others are left to fjall to complain about.
fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
        journals.extend(number.map(|number| (number, path)));
    }
    journals.sort_unstable();
    Ok(journals)
}

/// Those of a database that can be listed.
fn journal_paths(database: &Path) -> Vec<(u64, PathBuf)> {
    list(database).unwrap_or_default()
}

/// Copies of this database from which something may have to be put back.
fn unfinished(kept: &Path, database: &str) -> io::Result<Vec<PathBuf>> {
    let mut copies = Vec::new();
    let entries = match fs::read_dir(kept) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(copies),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let of_this = path
            .file_stem()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.ends_with(&format!("-{database}")));
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(UNFINISHED) if of_this => copies.push(path),
            Some(PARTIAL) if of_this => fs::remove_dir_all(&path)?,
            _ => {}
        }
    }
    copies.sort();
    Ok(copies)
}

/// Copies the journals aside. On disk when it returns.
fn keep(kept: &Path, database: &str, journals: &[(u64, PathBuf)]) -> io::Result<PathBuf> {
    fs::create_dir_all(kept)?;
    synced_file::sync_folder_of(kept)?;
    let name = kept.join(format!("{}-{database}", clock::now_ms()));
    let partial = name.with_extension(PARTIAL);
    fs::create_dir(&partial)?;
    for (number, path) in journals {
        let copy = partial.join(format!("{number}.jnl"));
        fs::copy(path, &copy)?;
        File::open(&copy)?.sync_all()?;
    }
    File::open(&partial)?.sync_all()?;
    let unfinished = name.with_extension(UNFINISHED);
    fs::rename(&partial, &unfinished)?;
    synced_file::sync_folder_of(&unfinished)?;
    Ok(unfinished)
}

fn cut(journal: &Path, len: u64) -> io::Result<()> {
    let file = File::options().write(true).open(journal)?;
    file.set_len(len)?;
    file.sync_all()
}
