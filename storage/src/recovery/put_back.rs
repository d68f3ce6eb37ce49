//! What is intact behind damage goes back into the open database.
//!
//! Used by the thread that opens a database. Accounts first: a message is put back for a user who has one. A key is
//! not covered by the CRC of its value, so it must prove itself: an account's name must hash to its key (the seed of
//! the hash is secret, so nobody can plant one in a payload); of a message, the account is the proof, or, if that is
//! gone, one without a name is made, which the first to hash to this key takes over. Memory: one batch.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use fjall::{OwnedWriteBatch, PersistMode, Slice};

use super::Recovery;
use super::journal::{Found, Journal};
use crate::account::{self, Account, Stored, Tail};
use crate::database::Tables;
use crate::error::StoreError;
use crate::record;
use crate::sequence::BLOCK;
use crate::user::{UserKey, split_message_key, user_hash};

/// What is written at once.
const BATCH_ITEMS_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Users that are told apart in the report; beyond it they are counted as these.
const USERS_COUNTED_MAX: usize = 1 << 20;

/// Puts back what the copied journals hold behind their damage, and counts what they do not.
pub(super) fn put_back(
    journals: &[(u64, PathBuf)],
    tables: &Tables,
    seed: u64,
    found: &mut Recovery,
) -> Result<(), StoreError> {
    let mut writer = Writer {
        tables,
        seed,
        batch: tables.database.batch(),
        items: 0,
        bytes: 0,
        users: HashSet::new(),
    };
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| StoreError::Unwritable {
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
    let mut gaps = Gaps::default();
    let mut before: Option<u64> = None;
    for (number, path) in journals {
        if before.is_some_and(|before| before + 1 != *number) {
            gaps.broken = true;
        }
        before = Some(*number);
        let mut show = |item: Found<'_>| {
            // The first that is intact behind a gap may be no message.
            gaps.broken |= item.after_gap;
            if item.keyspace != tables.messages.id() {
                return Ok(());
            }
            let Some((user, sequence)) = split_message_key(item.key) else {
                return Ok(());
            };
            found.messages_lost += gaps.pass(sequence, item.after_gap);
            if item.behind_damage {
                found.messages_put_back += writer.message(user, sequence, item)?;
            }
            Ok(())
        };
        let mut walk = || Journal::open(path)?.walk(&mut show).map(|_| ());
        walk().map_err(failed(path))?;
        // Whatever could not be read at its end stands before the next file's first message.
        gaps.broken = true;
    }
    writer
        .write()
        .map_err(failed(&tables.messages.path().to_path_buf()))?;
    found.users_touched += writer.users.len() as u64;
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
    fn pass(&mut self, sequence: u64, after_gap: bool) -> u64 {
        let broken = self.broken || after_gap;
        self.broken = false;
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

struct Writer<'a> {
    tables: &'a Tables,
    seed: u64,
    batch: OwnedWriteBatch,
    items: usize,
    bytes: usize,
    users: HashSet<UserKey>,
}

impl Writer<'_> {
    /// Puts an account back unless the database knows better. How many that were.
    fn account(&mut self, key: &[u8], value: &[u8]) -> io::Result<u64> {
        let Ok(stored) = account::decode(value) else {
            return Ok(0);
        };
        let name = str::from_utf8(stored.name).unwrap_or_default();
        if !account::name_is_sound(name) || key != user_hash(self.seed, name).key() {
            return Ok(0);
        }
        // An account that cannot be read is worth less than this one.
        let known = self.tables.users.get(key).ok().flatten();
        let known = known
            .as_deref()
            .and_then(|known| account::decode(known).ok());
        if known.is_some_and(|known| {
            known.account.head >= stored.account.head && !known.name.is_empty()
        }) {
            return Ok(0);
        }
        let users = self.tables.users.clone();
        self.batch.insert(&users, key, value);
        self.grow(value.len())?;
        // A later one of the same user in these journals is held against this one.
        self.write()?;
        self.touched(key.try_into().ok());
        Ok(1)
    }

    /// Puts a message back unless it is there or was burned. How many that were.
    fn message(&mut self, user: UserKey, sequence: u64, item: Found<'_>) -> io::Result<u64> {
        let Found { key, value, .. } = item;
        if record::view(value).is_err() {
            return Ok(0);
        }
        let known = self.tables.users.get(user).ok().flatten();
        let head = known
            .as_deref()
            .and_then(|known| account::decode(known).ok())
            .map(|known| known.account.head);
        if head.is_some_and(|head| sequence < head)
            || self.tables.messages.contains_key(key).unwrap_or(false)
        {
            return Ok(0);
        }
        if head.is_none() {
            let unnamed = account::encode(&Stored {
                account: Account::default(),
                tail: Tail::default(),
                tail_life: 0,
                name: b"",
            });
            let users = self.tables.users.clone();
            self.batch.insert(&users, Slice::new(&user), unnamed);
        }
        let messages = self.tables.messages.clone();
        self.batch.insert(&messages, key, value);
        self.grow(value.len())?;
        self.touched(Some(user));
        Ok(1)
    }

    fn touched(&mut self, user: Option<UserKey>) {
        if self.users.len() < USERS_COUNTED_MAX {
            self.users.extend(user);
        }
    }

    fn grow(&mut self, bytes: usize) -> io::Result<()> {
        self.items += 1;
        self.bytes += bytes;
        if self.items >= BATCH_ITEMS_MAX || self.bytes >= BATCH_BYTES_MAX {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let batch = std::mem::replace(&mut self.batch, self.tables.database.batch());
        (self.items, self.bytes) = (0, 0);
        batch
            .durability(Some(PersistMode::SyncData))
            .commit()
            .map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_around_a_break_is_counted() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.pass(7, true), 0);
        assert_eq!(gaps.pass(8, false), 0);
        assert_eq!(gaps.pass(12, true), 3);
        // Not around a break: a batch that failed used these up.
        assert_eq!(gaps.pass(20, false), 0);
        // A block begins: what came before it is unknown, what is missing of it is not.
        assert_eq!(gaps.pass(BLOCK + 1, true), 0);
        assert_eq!(gaps.pass(2 * BLOCK + 3, true), 2);
        gaps.broken = true;
        assert_eq!(gaps.pass(2 * BLOCK + 5, false), 1);
    }
}
