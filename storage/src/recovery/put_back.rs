//! What is intact behind damage in the journals goes back into the open database.
//!
//! Used by the thread that opens a database; see `writer` for what is believed.

use std::io;
use std::path::PathBuf;

use fjall::PersistMode;

use super::Recovery;
use super::journal::Journal;
use super::writer::Writer;
use crate::database::Tables;
use crate::error::StoreError;
use crate::sequence::BLOCK;
use crate::user::split_message_key;

/// Puts back what the copied journals hold behind their damage, and counts what they do not. `flushed`: up to this
/// seqno the tables had everything before.
pub(super) fn put_back(
    journals: &[(u64, PathBuf)],
    tables: &Tables,
    seed: u64,
    flushed: Option<u64>,
    found: &mut Recovery,
) -> Result<(), StoreError> {
    let mut writer = Writer::new(tables, seed, PersistMode::SyncData);
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source: io::Error| StoreError::Unwritable {
            path,
            action: "putting back what a damaged journal holds",
            source,
        }
    };
    for (_, path) in journals {
        let mut walk = || {
            Journal::open(path)?.walk(&mut |item| {
                if item.keyspace == tables.users.id() && item.behind_damage {
                    found.accounts_put_back += writer.account(item.key, item.value)?;
                }
                Ok(())
            })
        };
        found.bytes_lost += walk().map_err(failed(path))?;
    }
    let path = tables.messages.path().to_path_buf();
    writer.finish().map_err(failed(&path))?;
    let mut row = Row::default();
    let mut accept = |message: Message, missing: u64, found: &mut Recovery| {
        let are_in_tables = message
            .seqno
            .zip(flushed)
            .is_some_and(|(seqno, flushed)| seqno <= flushed);
        if !are_in_tables {
            found.messages_lost += missing;
        }
        if let Some((key, value)) = message.put_back {
            found.messages_put_back += writer.message(&key, &value)?;
        }
        Ok(())
    };
    let mut before: Option<u64> = None;
    for (number, path) in journals {
        if before.is_some_and(|before| before + 1 != *number) {
            row.broken = true;
        }
        before = Some(*number);
        let mut walk = || {
            Journal::open(path)?.walk(&mut |item| {
                // The first that is intact behind a gap may be no message.
                row.broken |= item.after_gap;
                if item.keyspace == tables.messages.id()
                    && let Some((_, sequence)) = split_message_key(item.key)
                    && let Some((message, missing)) = row.pass(Message {
                        sequence,
                        broken: false,
                        seqno: item.seqno,
                        put_back: item
                            .behind_damage
                            .then(|| (item.key.to_vec(), item.value.to_vec())),
                    })
                {
                    accept(message, missing, found)?;
                }
                Ok(())
            })
        };
        walk().map_err(failed(path))?;
        // Whatever could not be read at its end stands before the next file's first message.
        row.broken = true;
    }
    if let Some((message, missing)) = row.last() {
        accept(message, missing, found).map_err(failed(&path))?;
    }
    found.messages_unclaimed += writer.unclaimed;
    found.users_touched += writer.finish().map_err(failed(&path))?;
    Ok(())
}

/// A message of a journal.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    sequence: u64,
    /// Something could not be read between it and the one before.
    broken: bool,
    seqno: Option<u64>,
    /// Key and value, if it stands behind damage: then its key may itself be damaged, since no CRC covers it.
    put_back: Option<(Vec<u8>, Vec<u8>)>,
}

/// The messages of the journals as they follow each other: their sequences rise. One behind damage whose sequence
/// does not lie between its neighbours' has a damaged key: at that place it would break the order of an inbox.
///
/// Counts the sequences that are missing where something could not be read. Those of one block are given out
/// without a gap; where the next block begins, nobody can tell how much of the last one was used.
#[derive(Default)]
struct Row {
    last: Option<u64>,
    /// Waits for the next one, to be held against it.
    waiting: Option<Message>,
    broken: bool,
}

impl Row {
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
    fn last(&mut self) -> Option<(Message, u64)> {
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
