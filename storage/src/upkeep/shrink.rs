//! A database that holds far more than what is live becomes smaller.
//!
//! fjall destroys what is burned only when it merges tables anyway, moves the tables of a lone user down without a
//! merge, deletes the files of a merge only at a later rotation of a memtable, and a journal only when it has grown
//! to 64 MB and everything in it stands in tables. So in a database that holds more than twice what is live and some
//! slack, in this order, as far as that is needed: what stands in memory becomes a table; tables that hold nothing but
//! burned messages of one user are dropped; all tables are merged; a *beat* (a write that says nothing) and a
//! rotation let go of the files; and if hardly anything is going on, the journal is filled up until it is left.
//!
//! What that costs: a merge writes no more than what is live and comes only after as much has become garbage, so it
//! adds at most one write for each byte that was ever stored; a fill writes up to 64 MB at most once in
//! `journal_interval`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use fjall::{AbstractTree, Keyspace};
use tracing::{debug, warn};

use super::{Keeper, Round};
use crate::account;
use crate::client::Write;
use crate::database::Tables;
use crate::reclaim::{LEASH_RUNS_MAX, Leash, Reclaim};
use crate::user::{UserKey, message_key, split_message_key};

/// fjall leaves a journal that has grown beyond this, when it next writes a table.
const JOURNAL_LEFT_AT: u64 = 64_000_000;
/// A piece of what a journal is filled with: few enough milliseconds to wait behind.
const FILL_BYTES: usize = 256 * 1024;
/// A merge on a busy machine, bytes a second.
const MERGE_SPEED: u64 = 50 << 20;

/// A file stays for as long as a page that was begun before is read; what is there after so many rotations stays.
const ROTATIONS_MAX: u8 = 3;
/// What a merge wrote that came to nothing stays on the disk until the database is opened again: few such tries.
const MERGE_AGAIN_AFTER: Duration = Duration::from_secs(3600);

impl Round {
    pub(super) fn shrink(&self, keeper: &mut Keeper) {
        let number = keeper.number;
        self.release_files(keeper);
        let goal = 2 * self.live_bytes(number) + self.slack_bytes;
        let Some(tables_bytes) = self.databases.lend(number, tables_bytes) else {
            return;
        };
        let journals_bytes = match journals_bytes(&keeper.path) {
            Ok((bytes, _)) => bytes,
            Err(error) => return warn!(%error, "the journals cannot be looked at"),
        };
        if tables_bytes + journals_bytes <= goal || self.is_closing() {
            return;
        }
        debug!(
            database = number,
            tables_bytes, journals_bytes, goal, "more is held than is live"
        );
        if tables_bytes > goal {
            self.shrink_tables(keeper, goal);
        }
        let may_fill = keeper
            .journal_filled_at
            .is_none_or(|at| at.elapsed() >= self.journal_interval);
        if keeper.is_idle && may_fill && journals_bytes > self.slack_bytes {
            keeper.journal_filled_at = Some(Instant::now());
            self.leave_journal(keeper);
            // What stood in memory is a table by now.
            self.shrink_tables(keeper, goal);
        }
    }

    /// Whether a merge of so many bytes would come to an end before too many new runs have gathered: it holds back all
    /// other merges.
    fn may_merge(&self, keeper: &Keeper, tables_bytes: u64) -> bool {
        let has_failed = keeper
            .merge_failed_at
            .is_some_and(|at| at.elapsed() < MERGE_AGAIN_AFTER);
        let seconds = tables_bytes / MERGE_SPEED + 1;
        let runs = |tables: &Tables| tables.messages.tree.l0_run_count();
        let runs = self.databases.lend(keeper.number, runs);
        let runs_left = LEASH_RUNS_MAX.saturating_sub(runs.unwrap_or(LEASH_RUNS_MAX)) as u64;
        !has_failed && keeper.bytes_per_second * seconds <= runs_left * self.memtable_bytes
    }

    fn shrink_tables(&self, keeper: &mut Keeper, goal: u64) {
        let number = keeper.number;
        let size = || self.databases.lend(number, tables_bytes).unwrap_or(0);
        if size() <= goal || !self.rotate(number) {
            return;
        }
        if let Some(Err(error)) = self.databases.lend(number, drop_burned) {
            return warn!(%error, "burned tables cannot be dropped");
        }
        let tables_bytes = size();
        if tables_bytes > goal && self.may_merge(keeper, tables_bytes) {
            let merge = |tables: &Tables| {
                let leash = Leash::giving_way(tables, &self.closing);
                Reclaim::merge_on_leash(leash, || tables.messages.major_compact())
            };
            if let Some(Err(error)) = self.databases.lend(number, merge) {
                keeper.merge_failed_at = Some(Instant::now());
                warn!(database = number, %error, "a merge that was to give space back came to nothing");
            }
        }
        self.rotate(number);
    }

    /// The files of tables that were merged, by whomever, go with a later rotation. Without traffic there is none.
    fn release_files(&self, keeper: &mut Keeper) {
        let leftover = |tables: &Tables| {
            let files = |keyspace: &Keyspace| files_bytes(&keyspace.path().join("tables"));
            let held = files(&tables.messages)? + files(&tables.users)?;
            Ok::<_, io::Error>(held.saturating_sub(tables_bytes(tables)))
        };
        let Some(Ok(leftover)) = self.databases.lend(keeper.number, leftover) else {
            return;
        };
        keeper.leftover_bytes = keeper.leftover_bytes.min(leftover);
        if leftover - keeper.leftover_bytes <= self.slack_bytes / 2 {
            keeper.rotations = 0;
        } else if keeper.rotations < ROTATIONS_MAX {
            keeper.rotations += 1;
            self.rotate(keeper.number);
        } else {
            keeper.rotations = 0;
            keeper.leftover_bytes = leftover;
        }
    }

    /// Writes a beat, and turns what stands in memory into tables.
    fn rotate(&self, number: usize) -> bool {
        if !self.beat(number, 0) {
            return false;
        }
        let rotate = |tables: &Tables| -> fjall::Result<()> {
            tables.messages.rotate_memtable()?;
            tables.users.rotate_memtable()?;
            Ok(())
        };
        match self.databases.lend(number, rotate) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                warn!(database = number, %error, "a memtable cannot be rotated");
                return false;
            }
            None => return false,
        }
        let is_written = |tables: &Tables| {
            tables.messages.sealed_memtable_count() + tables.users.sealed_memtable_count() == 0
        };
        self.wait_until(|| self.databases.lend(number, is_written).unwrap_or(true))
    }

    fn beat(&self, number: usize, fill_bytes: usize) -> bool {
        self.commit(number, |done| Write::Beat { fill_bytes, done })
    }

    /// Fills the journal up until fjall leaves it, and has what it holds written to tables.
    fn leave_journal(&self, keeper: &Keeper) {
        let Ok((_, (newest, filled))) = journals_bytes(&keeper.path) else {
            return;
        };
        let appended_bytes = self.appended_bytes(keeper.number);
        let pieces = JOURNAL_LEFT_AT.saturating_sub(filled) / FILL_BYTES as u64 + 2;
        for _ in 0..pieces {
            let has_traffic =
                self.appended_bytes(keeper.number) - appended_bytes > self.slack_bytes / 8;
            if has_traffic || self.is_closing() || !self.beat(keeper.number, FILL_BYTES) {
                return;
            }
        }
        // The first rotation leaves the journal, the second lets go of it.
        for _ in 0..2 {
            if !self.rotate(keeper.number) {
                return;
            }
        }
        if let Ok((_, (now, _))) = journals_bytes(&keeper.path) {
            debug!(
                database = keeper.number,
                newest, now, "the journal was left"
            );
        }
    }
}

fn tables_bytes(tables: &Tables) -> u64 {
    tables.messages.disk_space() + tables.users.disk_space()
}

fn files_bytes(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        // It may be deleted just now.
        sum += entry?
            .metadata()
            .map_or(0, |metadata| metadata.blocks() * 512);
    }
    Ok(sum)
}

/// What the journals of a database occupy, and number and bytes of the newest.
fn journals_bytes(database: &Path) -> io::Result<(u64, (u64, u64))> {
    let (mut sum, mut newest) = (0, (0, 0));
    for entry in fs::read_dir(database)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jnl"));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            // Its length is set in advance; what counts are its blocks. It may be deleted just now.
            let bytes = entry
                .metadata()
                .map_or(0, |metadata| metadata.blocks() * 512);
            sum += bytes;
            newest = newest.max((number, bytes));
        }
    }
    Ok((sum, newest))
}

/// Drops tables that hold nothing but burned messages of one user: no byte of them is read.
fn drop_burned(tables: &Tables) -> fjall::Result<()> {
    let tree = &tables.messages.tree;
    let mut users: Vec<(UserKey, u64)> = Vec::new();
    for table in tree.current_version().iter_tables() {
        let range = &table.metadata.key_range;
        let (Some((user, _)), Some((last_user, last))) = (
            split_message_key(range.min()),
            split_message_key(range.max()),
        ) else {
            continue;
        };
        if user != last_user || users.iter().any(|(known, _)| *known == user) {
            continue;
        }
        let value = tables.durable.account(user)?;
        let head = value
            .and_then(|value| Some(account::decode(&value).ok()?.account.head))
            .unwrap_or(0);
        if last < head {
            users.push((user, head));
        }
    }
    for (user, head) in users {
        tree.drop_range(message_key(user, 0)..message_key(user, head))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::account::{Account, Stored, Tail};
    use crate::database;
    use crate::folder::Folder;
    use crate::options::StoreOptions;

    /// A table for each call.
    fn write(tables: &Tables, rows: impl IntoIterator<Item = (UserKey, u64)>) {
        for (user, sequence) in rows {
            let key = message_key(user, sequence);
            tables.messages.insert(key, b"row").expect("written");
        }
        tables.messages.rotate_memtable_and_wait().expect("a table");
    }

    #[test]
    fn only_tables_of_nothing_but_burned_messages_are_dropped() {
        let path = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(path.path(), 1).expect("opened");
        let options = StoreOptions::new(path.path());
        let (mut opened, _, _) =
            database::open_all(&folder, &options, &[Arc::default()]).expect("opened");
        let tables = opened.pop().expect("one");
        let [hot, other, unknown] = [[1; 12], [2; 12], [3; 12]];
        for (user, head) in [(hot, 25), (other, 1000)] {
            let account = Account {
                head,
                ..Account::default()
            };
            let stored = Stored {
                account,
                tail: Tail::default(),
                tail_life: 0,
                name: b"anna",
            };
            let value = account::encode(&stored);
            tables.users.insert(user, value).expect("written");
        }
        tables.durable.note(tables.database.visible_seqno());
        let of = |user: UserKey, sequences: std::ops::RangeInclusive<u64>| {
            sequences.map(move |sequence| (user, sequence))
        };
        // Burned whole; up to just before the head; through it; behind it.
        write(&tables, of(hot, 1..=10));
        write(&tables, of(hot, 11..=24));
        write(&tables, of(hot, 25..=30));
        write(&tables, of(hot, 31..=40));
        // Of two users, and of one who has no account: left to merges, or kept.
        write(&tables, of(hot, 41..=41).chain(of(other, 50..=60)));
        write(&tables, of(unknown, 70..=80));
        drop_burned(&tables).expect("dropped");
        let left: Vec<(UserKey, u64)> = tables
            .messages
            .iter()
            .map(|guard| split_message_key(&guard.key().expect("readable")).expect("a key"))
            .collect();
        let expected: Vec<(UserKey, u64)> = of(hot, 25..=41)
            .chain(of(other, 50..=60))
            .chain(of(unknown, 70..=80))
            .collect();
        assert_eq!(left, expected);
    }
}
