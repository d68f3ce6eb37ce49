//! Merges the tables of a database's messages, one merge after the other: `iris-merge-N`.
//!
//! fjall's workers merge side by side. After a merge of level 0 they chose most of level 1 for merges with level 2 at once,
//! and level 0 filled up until the last of these was done; and they look for what is due only when a table has been written,
//! so that level 0 stayed full once nothing was. So fjall is told to merge no messages ([`database`]), and
//! this thread does what fjall's own strategy holds to be the most urgent, looks again, and so on.
//!
//! Owner: the committer, through its ledger. Invariants: a merge that fails, or panics, fails the database, as one of fjall's
//! would; once a `Merger` is dropped no merge is under way, and no handle on the database is left. A merge on its way is
//! given up then: the tables stay as they were.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fjall::{AbstractTree, Keyspace, LsmError};
use tracing::error;

use crate::backpressure::L0_RUNS_MAX;
use crate::burial::MergedTables;
use crate::database::{self, Tables};
use crate::priority;
use crate::reclaim::{Leash, Reclaim};

/// Between two looks at whether a table was written: a tenth of the time in which a flood writes one.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The thread, for as long as the database is written.
pub(crate) struct Merger {
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Merger {
    /// `merged`: hears of what goes out of use.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn open(number: usize, tables: &Tables, merged: MergedTables) -> io::Result<Merger> {
        let closing = Arc::new(AtomicBool::new(false));
        let mut round = Round {
            tables: tables.clone(),
            merged,
            closing: Arc::clone(&closing),
        };
        let thread = thread::Builder::new()
            .name(format!("iris-merge-{number}"))
            .spawn(move || {
                priority::stand_far_back();
                match catch_unwind(AssertUnwindSafe(|| round.run())) {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error!(database = number, %error, "a merge of tables failed"),
                    Err(_) => error!(database = number, "a merge of tables panicked"),
                }
                round.tables.note_failed_merge();
            })?;
        Ok(Merger {
            closing,
            thread: Some(thread),
        })
    }
}

impl Drop for Merger {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ended = thread.join();
        }
    }
}

/// The thread's own.
struct Round {
    tables: Tables,
    merged: MergedTables,
    closing: Arc<AtomicBool>,
}

impl Round {
    fn run(&mut self) -> Result<(), LsmError> {
        let mut nothing_due_in = None;
        while !self.closing.load(Ordering::Relaxed) {
            let version = version(&self.tables.messages);
            if nothing_due_in != Some(version) {
                self.merge()?;
                self.merged.look();
                if version != self::version(&self.tables.messages) {
                    continue;
                }
                nothing_due_in = Some(version);
            }
            self.help_with_accounts()?;
            thread::park_timeout(LOOK_EVERY);
        }
        Ok(())
    }

    /// The most urgent merge, if any is due.
    fn merge(&self) -> Result<(), LsmError> {
        let leash = Leash::until(&self.closing);
        // All versions stay: of a message there is only one.
        let merge = || self.tables.messages.tree.compact(database::merges(), 0);
        match Reclaim::merge_on_leash(leash, merge) {
            Err(LsmError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            done => done,
        }
    }

    /// Those are merged by fjall's workers, which forget a level 0 that another merge kept them from: then nothing is
    /// written any more, so nothing reminds them.
    fn help_with_accounts(&self) -> Result<(), LsmError> {
        let tree = &self.tables.users.tree;
        if tree.l0_run_count() >= L0_RUNS_MAX {
            // Nothing is hidden from anybody who reads: all versions stay.
            tree.compact(database::merges(), 0)?;
        }
        Ok(())
    }
}

fn version(keyspace: &Keyspace) -> u64 {
    keyspace.tree.current_version().id()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::burial::Burial;
    use crate::database::L0_THRESHOLD;

    fn wait_for(is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < deadline, "waited in vain");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Not by way of the database, whose workers would look at it.
    fn write_runs(keyspace: &Keyspace, runs: usize) {
        for _ in 0..runs {
            keyspace.insert([1; 20], "a").expect("written");
            keyspace.tree.flush_active_memtable(0).expect("a table");
        }
    }

    #[test]
    fn a_full_level_0_is_merged_though_nothing_more_is_written() {
        let (_folder, tables) = Tables::of_new();
        let burial = Burial::open(0, &tables);
        let merger = Merger::open(0, &tables, burial.merged_tables(&tables)).expect("started");
        for keyspace in [&tables.messages, &tables.users] {
            // Less is not merged: not yet.
            write_runs(keyspace, usize::from(L0_THRESHOLD) - 1);
            thread::sleep(3 * LOOK_EVERY);
            assert_eq!(keyspace.tree.l0_run_count(), usize::from(L0_THRESHOLD) - 1);
            write_runs(keyspace, L0_RUNS_MAX + 1 - usize::from(L0_THRESHOLD));
            wait_for(|| keyspace.tree.l0_run_count() < usize::from(L0_THRESHOLD));
        }
        assert!(!tables.is_behind());
        drop(merger);
    }

    #[test]
    fn it_ends_in_the_middle_of_a_merge() {
        let (_folder, tables) = Tables::of_new();
        let burial = Burial::open(0, &tables);
        let merged = burial.merged_tables(&tables);
        let closing = Arc::new(AtomicBool::new(true));
        let mut round = Round {
            tables: tables.clone(),
            merged,
            closing: Arc::clone(&closing),
        };
        write_runs(&tables.messages, usize::from(L0_THRESHOLD));
        round.merge().expect("given up, which is no failure");
        let runs = tables.messages.tree.l0_run_count();
        assert_eq!(runs, usize::from(L0_THRESHOLD));
        closing.store(false, Ordering::Relaxed);
        round.merge().expect("merged");
        assert_eq!(tables.messages.tree.l0_run_count(), 0);
        closing.store(true, Ordering::Relaxed);
        round.run().expect("at its end");
    }

    #[test]
    fn a_failed_merge_fails_the_database() {
        let (_folder, tables) = Tables::of_new();
        write_runs(&tables.messages, usize::from(L0_THRESHOLD));
        for table in tables.messages.tree.current_version().iter_tables() {
            let bytes = std::fs::read(&*table.path).expect("read");
            std::fs::write(&*table.path, vec![0; bytes.len()]).expect("damaged");
        }
        assert!(tables.check().is_ok());
        let burial = Burial::open(0, &tables);
        let merger = Merger::open(0, &tables, burial.merged_tables(&tables)).expect("started");
        wait_for(|| tables.check().is_err());
        drop(merger);
    }
}
