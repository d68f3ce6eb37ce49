//! What is sound in damaged tables, and behind the damage of journals, goes back into the open database.
//!
//! Used by the thread that opens a database; see `writer` for what is believed. Of a damaged table every sound row goes
//! back, and what may have been in its damaged blocks is looked for in the journals, where the youngest rows still are.

use std::io;
use std::path::{Path, PathBuf};

use fjall::PersistMode;

use super::blocks::{self, Gap};
use super::journal::{Found, Journal, Show};
use super::tree::{self, MESSAGES_ID, USERS_ID};
use super::writer::Writer;
use super::{Recovery, copies, list};
use crate::database::Tables;
use crate::error::StoreError;
use crate::name_key::NameKey;
use crate::sequence::BLOCK;
use crate::totals::{TOTALS_KEY, Totals};
use crate::user::{Place, split_message_key};

/// Puts back what a copy holds, and counts what is lost. `flushed`: up to this seqno the tables had every message before.
/// `row`: the totals as the database shows them.
pub(super) fn put_back(
    copy: &Path,
    tables: &Tables,
    (name_key, place): (NameKey, Place),
    flushed: u64,
    row: Option<Totals>,
    found: &mut Recovery,
) -> Result<(), StoreError> {
    let mut back = PutBack {
        writer: Writer::new(tables, name_key, place, PersistMode::Buffer),
        tables,
        flushed,
        found,
        are_counted: true,
        row,
    };
    back.all(copy).map_err(|source| StoreError::Unwritable {
        path: copy.to_path_buf(),
        action: "putting back what is sound in damaged files",
        source,
    })
}

struct PutBack<'a> {
    writer: Writer<'a>,
    tables: &'a Tables,
    flushed: u64,
    found: &'a mut Recovery,
    /// Every damaged table tells how many rows it had.
    are_counted: bool,
    /// The newest totals that are known.
    row: Option<Totals>,
}

impl PutBack<'_> {
    fn all(&mut self, copy: &Path) -> io::Result<()> {
        let mut journals = list(copy)?;
        let journals_are_damaged = !journals.is_empty();
        if !journals_are_damaged {
            journals = list(self.tables.path())?;
        }
        // Accounts first: they are what messages are believed by.
        let (gaps, lost) = self.tables_of(copy, USERS_ID)?;
        let of_gaps = self.accounts(&journals, journals_are_damaged, &gaps)?;
        self.found.table_accounts_lost += lost.saturating_sub(of_gaps);
        self.writer.finish()?;
        let (gaps, lost) = self.tables_of(copy, MESSAGES_ID)?;
        let of_gaps = self.messages_of_gaps(&journals, &gaps)?;
        let lost_before = self.found.table_messages_lost;
        self.found.table_messages_lost += lost.saturating_sub(of_gaps);
        if journals_are_damaged {
            self.messages_behind_damage(&journals)?;
        }
        self.writer.finish()?;
        self.writer.claim_messages()?;
        self.found.messages_unclaimed += self.writer.unclaimed;
        self.found.users_touched += self.writer.finish()?;
        // What stands in memory must be newer than the tables: inboxes are read around damage by that.
        self.tables.flush()?;
        if !self.are_counted {
            let there = super::survey::survey(self.tables, self.writer.name_key)
                .map_err(|kind| io::Error::other(format!("what is left is {kind}")))?;
            let missing = match self.row {
                Some(row) => row.messages.saturating_sub(there.messages),
                None => there.messages_missing,
            };
            self.found.table_messages_lost = lost_before + missing.max(lost);
        }
        Ok(())
    }

    /// Puts back the sound rows of the damaged tables of a keyspace. Where there may have been others, and how many
    /// those were.
    fn tables_of(&mut self, copy: &Path, keyspace: u64) -> io::Result<(Vec<Gap>, u64)> {
        let (mut gaps, mut lost) = (Vec::new(), 0u64);
        for (name, path) in copies::tables(copy)? {
            let (writer, found) = (&mut self.writer, &mut *self.found);
            let sieved = blocks::rows(&path, &mut |key, value| {
                if keyspace == USERS_ID {
                    found.accounts_put_back += writer.account(key, value)?;
                } else {
                    found.messages_put_back += writer.table_message(key, value)?;
                }
                Ok(())
            })?;
            // What a row is, its key tells: two tables may have changed places.
            if name.keyspace != keyspace {
                continue;
            }
            found.bytes_lost += sieved.damaged_bytes;
            match sieved.description {
                Some(description) if tree::is_named(&description, name, self.writer.place) => {
                    lost += description.rows.saturating_sub(sieved.rows);
                }
                _ => {
                    self.are_counted = false;
                    gaps.push(Gap::default());
                }
            }
            gaps.extend(sieved.gaps);
        }
        Ok((gaps, lost))
    }

    /// How many of those put back may have stood in a damaged table.
    fn accounts(
        &mut self,
        journals: &[(u64, PathBuf)],
        are_damaged: bool,
        gaps: &[Gap],
    ) -> io::Result<u64> {
        let mut of_gaps = 0;
        let place = self.writer.place;
        if !are_damaged && gaps.is_empty() {
            return Ok(0);
        }
        for (_, path) in journals {
            let (writer, found) = (&mut self.writer, &mut *self.found);
            let row = &mut self.row;
            let unreadable = walk(path, place, &mut |item| {
                if item.keyspace == USERS_ID && item.key == TOTALS_KEY {
                    let known = row.map_or(0, |row| row.last_sequence);
                    let later = Totals::decode(item.value).filter(|it| it.last_sequence >= known);
                    *row = later.or(*row);
                }
                let in_gap = covered(gaps, item.key);
                if item.keyspace == USERS_ID && (item.behind_damage || in_gap) {
                    let put_back = writer.account(item.key, item.value)?;
                    found.accounts_put_back += put_back;
                    of_gaps += if in_gap { put_back } else { 0 };
                }
                Ok(())
            })?;
            if are_damaged {
                self.found.bytes_lost += unreadable;
            }
        }
        Ok(of_gaps)
    }

    /// Puts back what may have stood in a damaged table. How many that were.
    fn messages_of_gaps(&mut self, journals: &[(u64, PathBuf)], gaps: &[Gap]) -> io::Result<u64> {
        let mut put_back = 0;
        let place = self.writer.place;
        if gaps.is_empty() {
            return Ok(0);
        }
        for (_, path) in journals {
            let writer = &mut self.writer;
            walk(path, place, &mut |item| {
                if item.keyspace == MESSAGES_ID && !item.behind_damage && covered(gaps, item.key) {
                    put_back += writer.message(item.key, item.value)?;
                }
                Ok(())
            })?;
        }
        self.found.messages_put_back += put_back;
        Ok(put_back)
    }

    fn messages_behind_damage(&mut self, journals: &[(u64, PathBuf)]) -> io::Result<()> {
        let mut row = Row::default();
        let place = self.writer.place;
        let mut before: Option<u64> = None;
        for (number, path) in journals {
            if before.is_some_and(|before| before + 1 != *number) {
                row.broken = true;
            }
            before = Some(*number);
            walk(path, place, &mut |item| match row.see(&item) {
                Some((message, missing)) => self.accept(message, missing),
                None => Ok(()),
            })?;
            // Whatever could not be read at its end stands before the next file's first message.
            row.broken = true;
        }
        match row.last() {
            Some((message, missing)) => self.accept(message, missing),
            None => Ok(()),
        }
    }

    fn accept(&mut self, message: Message, missing: u64) -> io::Result<()> {
        let are_in_tables = message.seqno.is_some_and(|seqno| seqno <= self.flushed);
        if !are_in_tables {
            self.found.messages_lost += missing;
        }
        if let Some((key, value)) = message.put_back {
            self.found.messages_put_back += self.writer.message(&key, &value)?;
        }
        Ok(())
    }
}

fn covered(gaps: &[Gap], key: &[u8]) -> bool {
    gaps.iter().any(|gap| gap.covers(key))
}

/// Of a journal that may have been written off meanwhile: then all in it stands in tables.
fn walk(path: &Path, place: Place, show: &mut Show<'_>) -> io::Result<u64> {
    match Journal::open(path, place) {
        Ok(mut journal) => journal.walk(show),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// A message of a journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    sequence: u64,
    /// Something could not be read between it and the one before.
    broken: bool,
    seqno: Option<u64>,
    /// Key and value, if it stands behind damage: then its key may itself be damaged, since no CRC covers it.
    pub(super) put_back: Option<(Vec<u8>, Vec<u8>)>,
}

/// The messages of the journals as they follow each other: their sequences rise. One behind damage whose sequence
/// does not lie between its neighbours' has a damaged key: at that place it would break the order of an inbox.
///
/// Counts the sequences that are missing where something could not be read. Those of one block are given out
/// without a gap; where the next block begins, nobody can tell how much of the last one was used.
#[derive(Default)]
pub(super) struct Row {
    last: Option<u64>,
    /// Waits for the next one, to be held against it.
    waiting: Option<Message>,
    broken: bool,
}

impl Row {
    /// The next item of a journal, of whatever keyspace; gives what [`Row::pass`] does.
    pub(super) fn see(&mut self, item: &Found<'_>) -> Option<(Message, u64)> {
        // The first that is intact behind a gap may be no message.
        self.broken |= item.after_gap;
        let (_, sequence) = split_message_key(item.key).filter(|_| item.keyspace == MESSAGES_ID)?;
        let put_back = || (item.key.to_vec(), item.value.to_vec());
        self.pass(Message {
            sequence,
            broken: false,
            seqno: item.seqno,
            put_back: item.behind_damage.then(put_back),
        })
    }

    /// The next one; gives the one before it, with how many are missing before that, if that is believed.
    fn pass(&mut self, mut next: Message) -> Option<(Message, u64)> {
        if next.put_back.is_some() && self.last.is_some_and(|last| next.sequence <= last) {
            self.broken = true;
            return None;
        }
        next.broken = std::mem::take(&mut self.broken);
        let sequence = next.sequence;
        let message = self.waiting.replace(next)?;
        if message.put_back.is_some() && message.sequence >= sequence {
            if let Some(next) = &mut self.waiting {
                next.broken = true;
            }
            return None;
        }
        Some(self.believe(message))
    }

    /// The one that nothing follows: no two that do are further apart than a block.
    pub(super) fn last(&mut self) -> Option<(Message, u64)> {
        let message = self.waiting.take()?;
        let is_far = self
            .last
            .is_some_and(|last| message.sequence - last.min(message.sequence) > BLOCK);
        (message.put_back.is_none() || !is_far).then(|| self.believe(message))
    }

    fn believe(&mut self, message: Message) -> (Message, u64) {
        let sequence = message.sequence;
        let block_began = sequence.saturating_sub(1) / BLOCK * BLOCK;
        let missing = match self.last.replace(sequence) {
            Some(last) if message.broken => sequence.saturating_sub(last.max(block_began) + 1),
            // Messages before the first may have left the journals long ago.
            _ => 0,
        };
        (message, missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is believed of these (sequence, whether something before it could not be read), all behind damage, and
    /// how many are missing before each.
    fn believed(messages: &[(u64, bool)]) -> Vec<(u64, u64)> {
        let mut row = Row::default();
        let mut believed = Vec::new();
        for (sequence, broken) in messages {
            row.broken |= broken;
            believed.extend(row.pass(Message {
                sequence: *sequence,
                broken: false,
                seqno: None,
                put_back: Some((Vec::new(), Vec::new())),
            }));
        }
        believed.extend(row.last());
        let told = believed.into_iter();
        told.map(|(message, missing)| (message.sequence, missing))
            .collect()
    }

    #[test]
    fn only_what_is_missing_around_a_break_is_counted() {
        let block = BLOCK;
        let found = believed(&[
            (7, true),
            (8, false),
            (12, true),
            // Not around a break: a batch that failed used these up.
            (20, false),
            // A block begins: what came before it is unknown, what is missing of it is not.
            (block + 1, true),
            (2 * block + 3, true),
            (2 * block + 5, false),
        ]);
        let missing: Vec<u64> = found.iter().map(|(_, missing)| *missing).collect();
        assert_eq!(missing, [0, 0, 3, 0, 0, 2, 0]);
    }

    #[test]
    fn a_sequence_that_does_not_fit_its_neighbours_is_not_believed() {
        let whole = [(7, 0), (8, 0), (10, 1), (11, 0)];
        for hit in [9 ^ 1 << 3, 9 ^ 1 << 6, 9 ^ 1 << 40] {
            let found = believed(&[
                (7, true),
                (8, false),
                (hit, false),
                (10, false),
                (11, false),
            ]);
            assert_eq!(found, whole, "{hit}");
        }
        assert_eq!(believed(&[(7, true), (8 ^ 1 << 40, false)]), [(7, 0)]);
    }
}
