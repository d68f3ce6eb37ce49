//! What a crash or a failing disk left of a database, found before fjall touches it and put right after.
//!
//! Used by the thread that opens a database. The order, so that being killed anywhere loses nothing:
//! 1. every journal file is read, and two places of every table; if something is damaged or missing, all journals and the
//!    damaged tables are copied to `damaged/` in the data folder, under a name that says `.unfinished`;
//! 2. the damaged journals are cut where the damage begins, as fjall itself would, the damaged tables are taken out of
//!    their keyspace, and fjall opens the database;
//! 3. what is sound in the tables and behind the damage of the journals is put back from the copies, synced, and the
//!    copies lose the `.unfinished`.
//!
//! Invariants: nothing is changed before it was copied; the same put back twice changes nothing; nothing is put back
//! that does not pass its CRC, nor below a head; what is lost is told in numbers.

mod blocks;
mod check;
mod copies;
mod fields;
mod found;
mod journal;
mod manifest;
mod put_back;
mod rebuild;
mod search;
mod survey;
pub(crate) mod synced;
mod tree;
mod window;
mod writer;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tracing::{error, info, warn};

use crate::database::Tables;
use crate::error::StoreError;
use crate::folder::Folder;
use crate::name_key::NameKey;
use crate::sequence::SequenceCounter;
use crate::synced_file;
use crate::totals::Totals;
use crate::user::Place;
use journal::{Ending, Journal};
use synced::Synced;
use tree::{MESSAGES_ID, Tree, USERS_ID};

pub use check::{Check, check, stats};
pub use found::Recovery;
pub(crate) use rebuild::REBUILT_SUFFIX;
pub use rebuild::{Repair, repair};
pub(crate) use search::Search;
pub use survey::{Inbox, Survey};
pub(crate) use tree::TableName;

/// What is known of a database before it is opened.
pub(crate) struct Prepared {
    found: Recovery,
    /// Copies from which something may have to be put back.
    copies: Vec<PathBuf>,
    /// The highest sequence that the database must show, as far as that is known.
    synced_to: Option<u64>,
    mark: PathBuf,
    place: Place,
    /// Up to this seqno the tables have every message.
    flushed: u64,
}

/// Looks at a database that is not open, and makes it ready for fjall. `damaged`: tables in which a block is known to be.
pub(crate) fn prepare(
    folder: &Folder,
    number: usize,
    damaged: &[TableName],
) -> Result<Prepared, StoreError> {
    let database = &*folder.database_path(number);
    let place = folder.place(number);
    let mark = folder.synced_path(number);
    let synced = Synced::of(folder, number);
    if synced.is_none() && mark.exists() {
        warn!(mark = %mark.display(), "fails its CRC, or is another database's; nothing is held against it this time, and it is written anew");
    }
    let failed = |action: &'static str| {
        let path = database.to_path_buf();
        move |source: io::Error| StoreError::Unwritable {
            path,
            action,
            source,
        }
    };
    let mut tree = tree::look(database, place).map_err(|fault| StoreError::Damaged {
        path: database.to_path_buf(),
        what: format!("{}: {}", fault.path.display(), fault.what),
    })?;
    let mut taken_out: Vec<TableName> = tree.damaged.iter().map(|(name, _)| *name).collect();
    let named = tree.sound.iter().map(|(name, _)| *name);
    taken_out.extend(named.filter(|name| damaged.contains(name)));
    // Holds nothing; fjall only wants it to be there.
    let lock = synced_file::to_write().open(database.join("lock"));
    lock.map_err(failed("opening the database's lock file"))?;
    let journals = list(database).map_err(failed("listing the journals"))?;
    let mut copies = copies::unfinished(folder.path(), database)
        .map_err(failed("looking for copies of damaged files"))?;
    let mut found = Recovery {
        tables_damaged: taken_out.len() as u64,
        ..Recovery::default()
    };
    let mut cuts = Vec::new();
    let mut seqno = None;
    for (nth, (number, path)) in journals.iter().enumerate() {
        let is_last = nth + 1 == journals.len();
        let known = synced.as_ref().map(|synced| synced.sequence);
        let (sound_to, is_damaged) =
            look(path, place, is_last, &mut seqno, known).map_err(failed("reading a journal"))?;
        // Cut between two batches it looks sound. What has become a table is no loss.
        let is_there = |keyspace, noted| noted <= tree.flushed(keyspace).max(seqno.unwrap_or(0));
        let noted = synced.as_ref().and_then(|synced| synced.noted(*number));
        let is_short = noted.is_some_and(|noted| {
            !is_there(MESSAGES_ID, noted.messages_seqno) || !is_there(USERS_ID, noted.users_seqno)
        });
        if is_damaged || is_short {
            found.journals_damaged += 1;
            cuts.push((path, sound_to));
        }
    }
    (found.journals_missing, found.messages_lost) = missing(&journals, synced.as_ref(), &tree);
    if journals.is_empty() {
        // A database always has one; without any, fjall would begin to count its writes anew.
        let newest = synced.as_ref().and_then(|synced| synced.journals.last());
        let path = database.join(format!("{}.jnl", newest.map_or(0, |newest| newest.number)));
        synced_file::to_write()
            .create_new(true)
            .open(&path)
            .and_then(|file| file.sync_all())
            .map_err(failed("creating a journal"))?;
    }
    if !found.is_clean() {
        error!(
            database = %database.display(),
            journals_damaged = found.journals_damaged,
            journals_missing = found.journals_missing,
            tables_damaged = ?taken_out,
            "files of the inbox store are damaged; they are kept aside, and what is sound in them is put back"
        );
        let journals_are_sound = found.journals_damaged + found.journals_missing == 0;
        let journals = if journals_are_sound {
            &[]
        } else {
            &journals[..]
        };
        let copy = copies::keep(folder.path(), database, journals, &taken_out)
            .map_err(failed("copying the damaged files"))?;
        copies.push(copy);
        for (path, sound_to) in cuts {
            cut(path, sound_to).map_err(failed("cutting a damaged journal"))?;
        }
        for keyspace in [MESSAGES_ID, USERS_ID] {
            let of_keyspace = taken_out.iter().filter(|name| name.keyspace == keyspace);
            let ids: Vec<u64> = of_keyspace.map(|name| name.id).collect();
            if !ids.is_empty() {
                manifest::take_out(&database.join(format!("keyspaces/{keyspace}")), &ids)
                    .map_err(failed("taking damaged tables out"))?;
            }
        }
    }
    tree.sound.retain(|(name, _)| !taken_out.contains(name));
    // Without a mark nobody knows what stood in a journal that is gone: no more than sequences were given out.
    let given_out = || {
        let reserve = SequenceCounter::look(&folder.sequence_path()).ok()?;
        (found.journals_missing > 0).then_some(reserve.saturating_sub(1))
    };
    let synced_to = synced.map(|synced| synced.sequence).or_else(given_out);
    Ok(Prepared {
        found,
        copies,
        synced_to,
        mark,
        place,
        flushed: tree.flushed(MESSAGES_ID),
    })
}

/// How many journals are gone though they were not written off, and how many messages the oldest of them had. Of these the
/// mark tells: what had become a table is not lost with them.
fn missing(journals: &[(u64, PathBuf)], synced: Option<&Synced>, tree: &Tree) -> (u64, u64) {
    let noted = synced.map_or(&[][..], |synced| &synced.journals);
    let (Some((first, _)), Some((last, _))) = (journals.first(), journals.last()) else {
        return (noted.len().max(1) as u64, 0);
    };
    let pairs = journals.iter().zip(journals.iter().skip(1));
    let between = pairs.map(|((number, _), (next, _))| next - number - 1);
    let (mut files, mut messages) = (between.sum(), 0);
    for noted in noted {
        // Nobody writes off the newest.
        if noted.number > *last {
            files += 1;
        } else if noted.number < *first {
            let messages_are_safe = noted.messages_seqno <= tree.flushed(MESSAGES_ID);
            let users_are_safe = noted.users_seqno <= tree.flushed(USERS_ID);
            files += u64::from(!messages_are_safe || !users_are_safe);
            messages += if messages_are_safe { 0 } else { noted.messages };
        }
    }
    (files, messages)
}

/// Puts back what is sound in the copies, once the database is open.
pub(crate) fn finish(
    prepared: Prepared,
    tables: &Tables,
    name_key: NameKey,
) -> Result<Recovery, StoreError> {
    let Prepared {
        mut found,
        copies,
        synced_to,
        mark,
        place,
        flushed,
    } = prepared;
    let failed = |source| StoreError::Database {
        path: tables.users.path().to_path_buf(),
        source,
    };
    let row = Totals::stored(tables).map_err(failed)?;
    let shown = row.map_or(0, |row| row.last_sequence);
    let is_short = synced_to.is_some_and(|synced_to| synced_to > shown);
    if is_short || !copies.is_empty() {
        // Neither what the damage took nor what is put back is in it.
        Totals::forget(tables).map_err(failed)?;
    }
    for copy in copies {
        put_back::put_back(&copy, tables, (name_key, place), flushed, row, &mut found)?;
        let done = copies::finish(&copy).map_err(|source| StoreError::Unwritable {
            path: copy.clone(),
            action: "renaming the copies of damaged files",
            source,
        })?;
        found.kept_in.push(done);
    }
    if let Some(synced_to) = synced_to
        && is_short
    {
        // The tables may show more than the row did, which stood in the journal.
        let shown = Totals::load(tables).map_err(failed)?.last_sequence;
        found.sequences_lost = synced_to.saturating_sub(shown);
        if found.sequences_lost > 0 {
            error!(
                synced_to,
                shown, "the database does not show what was synced: its newest messages are lost"
            );
        }
    }
    if !found.is_clean() {
        // What it says of the journals is not true any more. The committer writes it anew.
        match fs::remove_file(&mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(%error, mark = %mark.display(), "the mark of what was synced cannot be removed");
            }
            _ => {}
        }
        warn!(
            messages_put_back = found.messages_put_back,
            messages_unclaimed = found.messages_unclaimed,
            accounts_put_back = found.accounts_put_back,
            messages_lost = found.messages_lost,
            table_messages_lost = found.table_messages_lost,
            table_accounts_lost = found.table_accounts_lost,
            sequences_lost = found.sequences_lost,
            bytes_lost = found.bytes_lost,
            users_touched = found.users_touched,
            kept_in = ?found.kept_in,
            "the inbox store was opened in spite of damaged files"
        );
    }
    Ok(found)
}

/// Where the sound part of a journal ends, and whether more than a crash could leave is wrong with it.
fn look(
    path: &Path,
    place: Place,
    is_last: bool,
    seqno: &mut Option<u64>,
    synced: Option<u64>,
) -> io::Result<(u64, bool)> {
    let mut journal = Journal::open(path, place)?;
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
pub(crate) fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
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

fn cut(journal: &Path, len: u64) -> io::Result<()> {
    let file = File::options().write(true).open(journal)?;
    file.set_len(len)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::blocks::Description;
    use crate::recovery::synced::Noted;

    #[test]
    fn a_journal_that_is_gone_is_missing_unless_tables_have_what_was_in_it() {
        let noted = |number: u64| Noted {
            number,
            messages: 10 * number,
            messages_seqno: 100 * number,
            users_seqno: 100 * number + 1,
        };
        let synced = Synced {
            name_key: NameKey::new(1),
            databases: 1,
            number: 0,
            sequence: 0,
            journals: (3..=6).map(noted).collect(),
        };
        // What is left, up to where the tables of messages and users go, and what that means.
        type Case = (&'static [u64], [u64; 2], (u64, u64));
        let cases: [Case; 8] = [
            (&[3, 4, 5, 6], [0, 0], (0, 0)),
            (&[4, 5, 6], [300, 301], (0, 0)),
            (&[4, 5, 6], [0, 0], (1, 30)),
            (&[4, 5, 6], [900, 300], (1, 0)),
            (&[4, 5, 6], [299, 301], (1, 30)),
            (&[5, 6], [300, 301], (1, 40)),
            (&[3, 5], [900, 900], (2, 0)),
            (&[], [900, 900], (4, 0)),
        ];
        for (left, flushed, expected) in cases {
            let journals: Vec<(u64, PathBuf)> = left
                .iter()
                .map(|number| (*number, PathBuf::new()))
                .collect();
            let sound = [MESSAGES_ID, USERS_ID].into_iter().zip(flushed);
            let sound = sound.map(|(keyspace, seqno)| {
                let description = Description {
                    id: 1,
                    rows: 1,
                    seqno,
                    first_key: [].into(),
                    last_key: [].into(),
                };
                (TableName { keyspace, id: 1 }, description)
            });
            let tree = Tree {
                sound: sound.collect(),
                damaged: Vec::new(),
            };
            let found = missing(&journals, Some(&synced), &tree);
            assert_eq!(found, expected, "{left:?} {flushed:?}");
        }
    }
}
