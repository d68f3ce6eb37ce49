//! Merges the tables of a database's messages, one merge after the other: `iris-merge-N`.
//!
//! fjall's workers merge side by side. After a merge of level 0 they chose most of level 1 for merges with level 2 at once,
//! and level 0 filled up until the last of these was done; and they look for what is due only when a table has been written,
//! so that level 0 stayed full once nothing was. So fjall is told to merge no messages ([`database`]), and
//! this thread does what fjall's own strategy holds to be the most urgent, looks again, and so on.
//!
//! Owner: the committer, through its ledger. It begins once the database is in its place, where the filter knows of it.
//! Invariants: a merge that fails, or panics, fails the database, as one of fjall's would; once a `Merger` is dropped its merge
//! has ended, and it holds no handle on the database. A merge on its way is given up then, and so is the upkeep's: the tables stay
//! as they were.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fjall::{AbstractTree, Keyspace, LsmError};
use tracing::error;

use crate::burial::MergedTables;
use crate::database::{self, Tables};
use crate::priority;
use crate::reclaim::{Leash, Reclaim};

/// Between two looks at whether a table was written: a tenth of the time in which a flood writes one.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs in level 0 of accounts from which on fjall has forgotten it, or is late: more than are merged at once, fewer than let
/// a batch wait.
const ACCOUNTS_RUNS_LATE: usize = 20;

/// The thread, for as long as the database is written.
pub(crate) struct Merger {
    may_begin: Arc<AtomicBool>,
    is_left: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Merger {
    /// `merged`: hears of what goes out of use.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn open(number: usize, tables: &Tables, merged: MergedTables) -> io::Result<Merger> {
        let may_begin = Arc::new(AtomicBool::new(false));
        let mut round = Round {
            tables: tables.clone(),
            merged,
            may_begin: Arc::clone(&may_begin),
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
            may_begin,
            is_left: Arc::clone(&tables.is_left),
            thread: Some(thread),
        })
    }

    pub(crate) fn begin(&self) {
        self.may_begin.store(true, Ordering::Relaxed);
    }
}

impl Drop for Merger {
    fn drop(&mut self) {
        self.is_left.store(true, Ordering::Relaxed);
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
    may_begin: Arc<AtomicBool>,
}

impl Round {
    fn run(&mut self) -> Result<(), LsmError> {
        let mut nothing_due_in = None;
        while !self.tables.is_left.load(Ordering::Relaxed) {
            self.help_with_accounts()?;
            let version = version(&self.tables.messages);
            if nothing_due_in != Some(version) && self.may_begin.load(Ordering::Relaxed) {
                self.merge()?;
                self.merged.look();
                if version != self::version(&self.tables.messages) {
                    continue;
                }
                nothing_due_in = Some(version);
            }
            thread::park_timeout(LOOK_EVERY);
        }
        Ok(())
    }

    /// The most urgent merge, if any is due.
    fn merge(&self) -> Result<(), LsmError> {
        let leash = Leash::of(&self.tables);
        // All versions stay: of a message there is only one.
        let merge = || self.tables.messages.tree.compact(database::merges(), 0);
        match Reclaim::merge_on_leash(leash, merge) {
            Err(LsmError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            done => done,
        }
    }

    /// Those are merged by fjall's workers, which forget a level 0 that another merge kept them from: once it is full nothing is
    /// written any more, and nothing reminds them.
    fn help_with_accounts(&self) -> Result<(), LsmError> {
        let tree = &self.tables.users.tree;
        if tree.l0_run_count() >= ACCOUNTS_RUNS_LATE {
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
    use crate::backpressure::L0_RUNS_MAX;
    use crate::burial::Burial;
    use crate::database::{L0_THRESHOLD, write_runs};

    fn wait_for(is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < deadline, "waited in vain");
            thread::sleep(Duration::from_millis(5));
        }
    }

    const DUE: usize = L0_THRESHOLD as usize;

    /// Dropped from the last on.
    fn opened(tables: &Tables) -> (Burial, Merger) {
        let burial = Burial::open(0, tables);
        let merger = Merger::open(0, tables, burial.merged_tables(tables)).expect("started");
        (burial, merger)
    }

    #[test]
    fn a_full_level_0_is_merged_though_nothing_more_is_written() {
        let (_folder, tables) = Tables::of_new();
        let keyspaces = [&tables.messages, &tables.users];
        for keyspace in keyspaces {
            write_runs(keyspace, DUE - 1, 2);
        }
        let (_burial, merger) = opened(&tables);
        let runs = |keyspace: &Keyspace| keyspace.tree.l0_run_count();
        merger.begin();
        thread::sleep(3 * LOOK_EVERY);
        assert_eq!(keyspaces.map(runs), [DUE - 1, DUE - 1], "not yet");
        for keyspace in keyspaces {
            write_runs(keyspace, L0_RUNS_MAX + 1 - DUE, 2);
        }
        wait_for(|| keyspaces.iter().all(|keyspace| runs(keyspace) < DUE));
        assert!(!tables.is_behind());
    }

    #[test]
    fn it_merges_nothing_before_it_may() {
        let (_folder, tables) = Tables::of_new();
        write_runs(&tables.messages, DUE, 2);
        let (_burial, merger) = opened(&tables);
        thread::sleep(3 * LOOK_EVERY);
        assert_eq!(tables.messages.tree.l0_run_count(), DUE);
        merger.begin();
        wait_for(|| tables.messages.tree.l0_run_count() == 0);
    }

    /// Has something end in the middle of a merge. Once is enough: whoever looks may get no cpu while it runs.
    fn ends_in_the_middle(end: impl Fn(&Tables, &Reclaim) -> bool) {
        let has_ended = (0..10).any(|_| {
            let reclaim = Arc::new(Reclaim::default());
            let (_folder, tables) = Tables::of_new_with(Arc::clone(&reclaim));
            reclaim.begin(&tables);
            write_runs(&tables.messages, DUE, 3_000);
            let has_ended = end(&tables, &reclaim);
            assert!(!has_ended || tables.messages.tree.l0_run_count() == DUE);
            reclaim.end();
            has_ended
        });
        assert!(has_ended);
    }

    #[test]
    fn it_ends_in_the_middle_of_a_merge() {
        ends_in_the_middle(|tables, reclaim| {
            let (_burial, merger) = opened(tables);
            merger.begin();
            let progress = reclaim.progress();
            wait_for(|| progress.is_told() || progress.newest_merged() > 0);
            drop(merger);
            progress.newest_merged() == 0
        });
    }

    #[test]
    fn a_merge_that_keeps_it_out_ends_with_it() {
        ends_in_the_middle(|tables, reclaim| {
            let (_burial, merger) = opened(tables);
            let progress = reclaim.progress();
            let leash = Leash::giving_way(tables, &Arc::default());
            let merge = || tables.messages.tree.major_compact(u64::MAX, 0);
            thread::scope(|scope| {
                let merge = scope.spawn(|| Reclaim::merge_on_leash(leash, merge));
                wait_for(|| progress.is_told() || progress.newest_merged() > 0);
                merger.begin();
                drop(merger);
                merge.join().expect("no panic").is_err()
            })
        });
    }

    #[test]
    fn a_failed_merge_fails_the_database() {
        let (_folder, tables) = Tables::of_new();
        write_runs(&tables.messages, DUE, 2);
        for table in tables.messages.tree.current_version().iter_tables() {
            let bytes = std::fs::read(&*table.path).expect("read");
            std::fs::write(&*table.path, vec![0; bytes.len()]).expect("damaged");
        }
        assert!(tables.check().is_ok());
        let (_burial, merger) = opened(&tables);
        merger.begin();
        wait_for(|| tables.check().is_err());
    }

    #[test]
    fn who_writes_alone_merges_what_is_due() {
        let (_folder, tables) = Tables::of_new();
        for _ in 0..3 {
            write_runs(&tables.messages, DUE, 2);
            tables.merge_due().expect("merged");
            assert!(tables.messages.tree.l0_run_count() < DUE);
        }
    }
}
