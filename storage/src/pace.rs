//! Writing keeps pace with the merge of level 0.
//!
//! While it runs, what is written gathers in level 0, and when that is full nothing can be written until the merge is
//! done, for seconds. So a batch takes of the time that the merge still needs what it takes of the room that is left.
//! Who writes less than merges keep up with does not wait; who writes more is held to what they can do, evenly.
//!
//! [`crate::reclaim`], which sees each message that is merged, tells how far a merge is; the committer asks before each
//! batch. Nothing relies on it: where it errs, level 0 gets full, and the committer waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fjall::{AbstractTree, Keyspace};

/// Until a merge has told how fast it is.
const ROWS_PER_SECOND_FIRST: u64 = 1_000_000;
/// A merge that has run for less does not tell it.
const TELLS_FROM: Duration = Duration::from_millis(100);
/// What a memtable counts for a message beside its record: the key, and its own bookkeeping.
const ENTRY_BYTES: u64 = 84;
/// Most that a batch waits for a merge: those in it have waited as long before their sync began.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// How far the merge of level 0 of a database's messages is.
#[derive(Debug)]
pub(crate) struct Progress {
    /// What it has still to go through; 0 while none is under way.
    rows_left: AtomicU64,
    /// Of the merge that told it last.
    rows_per_second: AtomicU64,
    /// The highest sequence that has left level 0: a merge that meets a higher one is of level 0.
    newest_merged: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Progress {
            rows_left: AtomicU64::new(0),
            rows_per_second: AtomicU64::new(ROWS_PER_SECOND_FIRST),
            newest_merged: AtomicU64::new(0),
        }
    }
}

impl Progress {
    /// How long it takes until level 0 has been merged, if that goes on as lately, or begins now.
    fn time_left(&self, messages: &Keyspace) -> Duration {
        let rows = match self.rows_left.load(Ordering::Relaxed) {
            0 => rows_to_merge(messages),
            rows => rows,
        };
        let rows_per_second = self.rows_per_second.load(Ordering::Relaxed).max(1);
        Duration::from_secs_f64(rows as f64 / rows_per_second as f64)
    }
}

#[cfg(test)]
impl Progress {
    pub(crate) fn newest_merged(&self) -> u64 {
        self.newest_merged.load(Ordering::Relaxed)
    }

    /// As a merge of level 0 leaves it that has so much to do.
    pub(crate) fn set(&self, rows_left: u64, rows_per_second: u64) {
        self.rows_left.store(rows_left, Ordering::Relaxed);
        self.rows_per_second
            .store(rows_per_second, Ordering::Relaxed);
    }
}

/// What a merge of level 0 goes through: all of it, and of the level below, whose tables span the same users.
pub(crate) fn rows_to_merge(messages: &Keyspace) -> u64 {
    let version = messages.tree.current_version();
    let mut levels = version.iter_levels();
    let above = levels.next();
    let below = levels.find(|level| !level.is_empty());
    let merged = above.into_iter().chain(below);
    let tables = merged.flat_map(|level| level.iter().flat_map(|run| run.iter()));
    tables.map(|table| table.metadata.item_count).sum()
}

/// A merge on its way, which may be of level 0.
pub(crate) struct Pass {
    progress: Arc<Progress>,
    began: Instant,
    /// How many it meets, if it is.
    rows: u64,
    /// The highest sequence met.
    newest: u64,
    is_of_level_0: bool,
}

impl Pass {
    pub(crate) fn begin(progress: Arc<Progress>, rows: u64) -> Pass {
        progress.rows_left.store(0, Ordering::Relaxed);
        Pass {
            progress,
            began: Instant::now(),
            rows,
            newest: 0,
            is_of_level_0: false,
        }
    }

    pub(crate) fn meet(&mut self, sequence: u64) {
        self.newest = self.newest.max(sequence);
    }

    /// Tells where it is, after so many rows.
    pub(crate) fn tell(&mut self, rows: u64) {
        let progress = &self.progress;
        let took = self.began.elapsed();
        if took >= TELLS_FROM {
            let rows_per_second = rows as f64 / took.as_secs_f64();
            let rows_per_second = rows_per_second as u64;
            progress
                .rows_per_second
                .store(rows_per_second, Ordering::Relaxed);
        }
        self.is_of_level_0 = self.newest > progress.newest_merged.load(Ordering::Relaxed);
        if self.is_of_level_0 {
            // Not 0, which says that none is under way.
            let left = self.rows.saturating_sub(rows).max(1);
            progress.rows_left.store(left, Ordering::Relaxed);
        }
    }

    /// The merge has come to its end. Its tables are in their places soon: as good as nothing is left of it until the next one begins.
    pub(crate) fn end(mut self) {
        self.tell(self.rows);
        self.progress
            .newest_merged
            .fetch_max(self.newest, Ordering::Relaxed);
        self.is_of_level_0 = false;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_of_level_0 {
            // It was given up.
            self.progress.rows_left.store(0, Ordering::Relaxed);
        }
    }
}

/// The batch that was written last.
#[derive(Clone, Copy)]
pub(crate) struct LastBatch {
    pub(crate) began: Instant,
    pub(crate) messages: u64,
    /// Of its records.
    pub(crate) bytes: u64,
}

impl LastBatch {
    /// What is left of the pause after it, when level 0 has room for so many memtables of this size, and its merge needs
    /// that long.
    fn pause(self, room: f64, merge: Duration, memtable_bytes: u64) -> Duration {
        let bytes = self.bytes + self.messages * ENTRY_BYTES;
        let memtables = bytes as f64 / memtable_bytes.max(1) as f64;
        let seconds = merge.as_secs_f64() * memtables / room.max(f64::MIN_POSITIVE);
        let pause = Duration::from_secs_f64(seconds.min(PAUSE_MAX.as_secs_f64()));
        pause.saturating_sub(self.began.elapsed())
    }
}

/// Level 0 of a database's messages, where its merge is due.
pub(crate) struct Crowded<'a> {
    pub(crate) messages: &'a Keyspace,
    pub(crate) progress: &'a Progress,
    pub(crate) runs: usize,
    /// With so many of them nothing is written.
    pub(crate) runs_max: usize,
    pub(crate) memtable_bytes: u64,
}

impl Crowded<'_> {
    /// How long the next batch has still to wait.
    pub(crate) fn pause_after(&self, last: LastBatch) -> Duration {
        let size = self.messages.tree.active_memtable().size();
        let in_memory = size as f64 / self.memtable_bytes.max(1) as f64
            + self.messages.sealed_memtable_count() as f64;
        let room = self.runs_max as f64 - self.runs as f64 - in_memory;
        let merge = self.progress.time_left(self.messages);
        last.pause(room, merge, self.memtable_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMTABLE_BYTES: u64 = 1_000_000;

    fn left(progress: &Progress) -> u64 {
        progress.rows_left.load(Ordering::Relaxed)
    }

    #[test]
    fn a_batch_takes_of_the_time_what_it_takes_of_the_room() {
        let last = LastBatch {
            began: Instant::now(),
            messages: 100,
            bytes: MEMTABLE_BYTES / 50 - 100 * ENTRY_BYTES,
        };
        let pause = |room, merge_ms, last: LastBatch| {
            last.pause(room, Duration::from_millis(merge_ms), MEMTABLE_BYTES)
        };
        // A fiftieth of a memtable, room for 2, 2 s: 20 ms, less what has passed since.
        let due = pause(2.0, 2_000, last);
        assert!(due <= Duration::from_millis(20), "{due:?}");
        assert!(due > Duration::from_millis(10), "{due:?}");
        assert!(pause(1.0, 2_000, last) > due);
        assert!(pause(2.0, 4_000, last) > due);
        assert!(pause(0.0, 4_000, last) <= PAUSE_MAX);
        assert!(pause(-3.0, 4_000, last) > 3 * PAUSE_MAX / 4);
        let long_ago = Instant::now().checked_sub(Duration::from_secs(1));
        let began = long_ago.expect("the machine is up for longer");
        assert_eq!(
            pause(2.0, 2_000, LastBatch { began, ..last }),
            Duration::ZERO
        );
    }

    #[test]
    fn a_merge_is_of_level_0_if_it_meets_what_is_newer_than_all_that_left_it() {
        let progress = Arc::new(Progress::default());
        let mut pass = Pass::begin(Arc::clone(&progress), 100);
        assert_eq!(left(&progress), 0);
        pass.meet(7);
        pass.meet(3);
        pass.tell(10);
        assert_eq!(left(&progress), 90);
        pass.end();
        assert_eq!(left(&progress), 1, "as good as nothing");

        let mut deeper = Pass::begin(Arc::clone(&progress), 100);
        assert_eq!(left(&progress), 0);
        deeper.meet(7);
        deeper.tell(10);
        assert_eq!(left(&progress), 0);
        deeper.end();

        let mut given_up = Pass::begin(Arc::clone(&progress), 100);
        given_up.meet(8);
        given_up.tell(99);
        assert_eq!(left(&progress), 1);
        drop(given_up);
        assert_eq!(left(&progress), 0);
        let mut again = Pass::begin(Arc::clone(&progress), 200);
        again.meet(8);
        again.tell(50);
        assert_eq!(left(&progress), 150, "it has not left level 0");
    }

    #[test]
    fn a_merge_tells_how_fast_it_is_when_it_knows() {
        let progress = Arc::new(Progress::default());
        let rate = || progress.rows_per_second.load(Ordering::Relaxed);
        let mut pass = Pass::begin(Arc::clone(&progress), 5_000);
        pass.tell(1);
        assert_eq!(rate(), ROWS_PER_SECOND_FIRST);
        std::thread::sleep(TELLS_FROM);
        pass.tell(1_000);
        assert!((1..=10_000).contains(&rate()), "{}", rate());
    }
}
