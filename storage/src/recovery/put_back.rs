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
    let mut gaps = Gaps::default();
    let mut before: Option<u64> = None;
    for (number, path) in journals {
        if before.is_some_and(|before| before + 1 != *number) {
            gaps.broken = true;
        }
        before = Some(*number);
        let mut walk = || {
            Journal::open(path)?.walk(&mut |item| {
                // The first that is intact behind a gap may be no message.
                gaps.broken |= item.after_gap;
                if item.keyspace == tables.messages.id()
                    && let Some((_, sequence)) = split_message_key(item.key)
                {
                    let missing = gaps.pass(sequence);
                    let are_in_tables = item
                        .seqno
                        .zip(flushed)
                        .is_some_and(|(seqno, flushed)| seqno <= flushed);
                    if !are_in_tables {
                        found.messages_lost += missing;
                    }
                    if item.behind_damage {
                        found.messages_put_back += writer.message(item.key, item.value)?;
                    }
                }
                Ok(())
            })
        };
        walk().map_err(failed(path))?;
        // Whatever could not be read at its end stands before the next file's first message.
        gaps.broken = true;
    }
    found.messages_unclaimed += writer.unclaimed;
    found.users_touched += writer.finish().map_err(failed(&path))?;
    Ok(())
}

/// Counts the sequences that are missing where something could not be read. Those of one block are given out
/// without a gap; where the next block begins, nobody can tell how much of the last one was used.
#[derive(Default)]
struct Gaps {
    last: Option<u64>,
    broken: bool,
}

impl Gaps {
    fn pass(&mut self, sequence: u64) -> u64 {
        let broken = std::mem::take(&mut self.broken);
        let block_began = sequence.saturating_sub(1) / BLOCK * BLOCK;
        let expected = match self.last.replace(sequence) {
            Some(last) => last.max(block_began) + 1,
            // Messages before the first may have left the journals long ago.
            None => return 0,
        };
        if broken {
            sequence.saturating_sub(expected)
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_around_a_break_is_counted() {
        let mut gaps = Gaps::default();
        let mut pass = |sequence, broken| {
            gaps.broken |= broken;
            gaps.pass(sequence)
        };
        assert_eq!(pass(7, true), 0);
        assert_eq!(pass(8, false), 0);
        assert_eq!(pass(12, true), 3);
        // Not around a break: a batch that failed used these up.
        assert_eq!(pass(20, false), 0);
        // A block begins: what came before it is unknown, what is missing of it is not.
        assert_eq!(pass(BLOCK + 1, true), 0);
        assert_eq!(pass(2 * BLOCK + 3, true), 2);
        assert_eq!(pass(2 * BLOCK + 5, false), 0);
    }
}
