//! Where a batch waits for the database, which merges its tables and writes them in the background.
//!
//! fjall lets a write wait where its threads are far behind, and for ever if they have failed. So the committer waits before
//! that: in time, and in small parts, for a merge of level 0 ([`crate::pace`]), and where no more should be written at all.

use std::thread;
use std::time::Duration;

use fjall::{AbstractTree, Keyspace};

use crate::database::{L0_THRESHOLD, Tables};
use crate::pace::LastBatch;

/// Between two looks at a database that is behind with its tables.
const BEHIND_PAUSE: Duration = Duration::from_millis(1);
/// Between two looks at how long a pause before a batch is.
const PAUSE_PART: Duration = Duration::from_millis(5);
/// Sealed memtables from which on a batch waits. fjall itself lets a write wait from 4 on, until
/// there are fewer, which is for ever if its workers have failed. A batch seals at most one more, since it is
/// smaller than a memtable.
const SEALED_MAX: usize = 3;
/// Runs of tables in level 0 from which on a batch waits, so that it never meets [`FJALL_L0_RUNS_MAX`]: a batch that begins
/// may find one run less, and memtables that were sealed before; the upkeep and the batch itself may seal one more each.
pub(crate) const L0_RUNS_MAX: usize = 26;
const _: () = assert!((L0_RUNS_MAX - 1) + (SEALED_MAX - 1) + 2 < FJALL_L0_RUNS_MAX);
/// Runs at which fjall lets every write wait, and the same is true of that wait.
const FJALL_L0_RUNS_MAX: usize = 30;

impl Tables {
    /// Whether those who write and merge its tables are so far behind that nothing should be written now.
    pub(crate) fn is_behind(&self) -> bool {
        let keyspaces = [&self.messages, &self.users];
        let has_many_sealed = |keyspace: &Keyspace| keyspace.sealed_memtable_count() >= SEALED_MAX;
        keyspaces.into_iter().any(has_many_sealed) || self.runs() >= L0_RUNS_MAX
    }

    /// In the level 0 that has more.
    fn runs(&self) -> usize {
        let runs = self.messages.tree.l0_run_count();
        runs.max(self.users.tree.l0_run_count())
    }

    /// How long the batch after this one has still to wait, so that level 0 does not fill up before it is merged.
    fn pause_after(&self, last: LastBatch) -> Duration {
        let runs = self.messages.tree.l0_run_count();
        if runs < usize::from(L0_THRESHOLD) {
            return Duration::ZERO;
        }
        let size = self.messages.tree.active_memtable().size();
        let in_memory = size as f64 / self.memtable_bytes.max(1) as f64
            + self.messages.sealed_memtable_count() as f64;
        let room = L0_RUNS_MAX as f64 - runs as f64 - in_memory;
        let merge = self.progress.time_left(&self.messages);
        let interval = last.interval(room, merge, self.memtable_bytes);
        interval.saturating_sub(last.began.elapsed())
    }
}

/// Waits where those who write and merge tables have much to do; as the database itself would where they have too much,
/// but not for ever: they may have failed.
pub(crate) fn wait_for_workers(tables: &Tables, last: Option<LastBatch>) -> fjall::Result<()> {
    tables.leave_outgrown()?;
    let pause = || last.map_or(Duration::ZERO, |last| tables.pause_after(last));
    while let pause = pause()
        && !pause.is_zero()
    {
        // It may be over sooner: a merge comes to its end.
        thread::sleep(pause.min(PAUSE_PART));
    }
    while tables.is_behind() {
        tables.check()?;
        thread::sleep(BEHIND_PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::database::write_runs;

    #[test]
    fn a_batch_waits_where_level_0_would_be_full_before_it_is_merged() {
        let reclaim = Arc::default();
        let (_folder, tables) = Tables::of_new_with(Arc::clone(&reclaim));
        reclaim.progress().set_left(Duration::from_secs(1_000));
        let waits = || {
            let last = LastBatch {
                began: Instant::now(),
                messages: 1,
                bytes: tables.memtable_bytes / 10,
            };
            wait_for_workers(&tables, Some(last)).expect("waited");
            last.began.elapsed()
        };
        write_runs(&tables.messages, usize::from(L0_THRESHOLD) - 1, 2);
        assert!(waits() < Duration::from_millis(200));
        write_runs(&tables.messages, 1, 2);
        assert!(waits() >= Duration::from_millis(200));
        let began = Instant::now();
        wait_for_workers(&tables, None).expect("waited");
        assert!(began.elapsed() < Duration::from_millis(200), "the first");
        let ending = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            reclaim.progress().set_left(Duration::from_nanos(1));
        });
        assert!(waits() < Duration::from_millis(200), "the merge has ended");
        ending.join().expect("no panic");
    }
}
