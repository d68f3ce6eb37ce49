//! Writing keeps pace with the merge of level 0.
//!
//! While it runs, what is written gathers in level 0, and when that is full nothing can be written until the merge is
//! done, for seconds. So a batch takes of the time that the merge still needs what it takes of the room that is left.
//! A rate that merges keep up with is not held up; a higher one is held to what they can do, evenly.
//!
//! [`crate::reclaim`], which sees each message that is merged, tells how far a merge is; the committer asks before each
//! batch. Nothing relies on it: where it errs, level 0 gets full, and the committer waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fjall::{AbstractTree, Keyspace};

use crate::database::L0_THRESHOLD;

/// For a row of level 0, and what is merged with it, until a merge has told.
const NS_PER_ROW_FIRST: u64 = 2_000;
/// The part of level 0 from which on a merge tells how fast it is.
const TELLS_FROM_PART: u64 = 16;
/// What a memtable counts for a message beside its record: the key, and its own bookkeeping.
const ENTRY_BYTES: u64 = 84;
/// Most that a batch waits for a merge: those in it have waited as long before their sync began.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Memtables that there is always room for: what level 0 cannot take is held up elsewhere.
const ROOM_MIN: f64 = 0.1;

/// How far the merge of level 0 of a database's messages is.
#[derive(Debug)]
pub(crate) struct Progress {
    /// What it still needs; 0 while none is under way.
    left_ns: AtomicU64,
    /// What a row of level 0 took in the last one, with what was merged with it.
    ns_per_row: AtomicU64,
    /// The highest sequence that has left level 0: what is newer stands in it, and a merge that meets it is of level 0.
    newest_merged: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        let progress = Progress {
            left_ns: AtomicU64::new(0),
            ns_per_row: AtomicU64::new(0),
            newest_merged: AtomicU64::new(0),
        };
        progress.reset();
        progress
    }
}

impl Progress {
    /// The database was opened: what was known of it need not be true any more.
    pub(crate) fn reset(&self) {
        self.left_ns.store(0, Ordering::Relaxed);
        self.ns_per_row.store(NS_PER_ROW_FIRST, Ordering::Relaxed);
        self.newest_merged.store(0, Ordering::Relaxed);
    }

    /// How long it takes until level 0 has been merged, if that goes on as so far, or begins now and is like the last.
    pub(crate) fn time_left(&self, messages: &Keyspace) -> Duration {
        match self.left_ns.load(Ordering::Relaxed) {
            0 => self.time_for(rows_above(messages, 1)),
            left_ns => Duration::from_nanos(left_ns),
        }
    }

    fn time_for(&self, rows: u64) -> Duration {
        Duration::from_nanos(rows.saturating_mul(self.ns_per_row.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
impl Progress {
    pub(crate) fn newest_merged(&self) -> u64 {
        self.newest_merged.load(Ordering::Relaxed)
    }

    /// Whether a merge is under way, and has told what it needs yet.
    pub(crate) fn is_told(&self) -> bool {
        self.left_ns.load(Ordering::Relaxed) > 1
    }

    /// As a merge of level 0 leaves it that needs so long.
    pub(crate) fn set_left(&self, left: Duration) {
        self.left_ns
            .store(left.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// Rows of so many levels: of level 0, and of the next ones that hold any.
fn rows_above(messages: &Keyspace, levels: usize) -> u64 {
    let version = messages.tree.current_version();
    let mut levels_with_rows = version.iter_levels();
    let level_0 = levels_with_rows.next();
    let below = levels_with_rows.filter(|level| !level.is_empty());
    let counted = level_0.into_iter().chain(below).take(levels);
    let tables = counted.flat_map(|level| level.iter().flat_map(|run| run.iter()));
    tables.map(|table| table.metadata.item_count).sum()
}

/// Level 0 when a merge was chosen, which may be of it.
pub(crate) struct Level0 {
    rows: u64,
    /// Whether its merge was due, and nothing else counts here.
    is_alone: bool,
}

impl Level0 {
    pub(crate) fn of(messages: &Keyspace, progress: &Progress) -> Level0 {
        // Before the first merge since the opening nobody knows what has left level 0: all that is merged with it counts.
        let is_known = progress.newest_merged.load(Ordering::Relaxed) > 0;
        Level0 {
            rows: rows_above(messages, if is_known { 1 } else { 2 }),
            is_alone: is_known && messages.tree.l0_run_count() >= usize::from(L0_THRESHOLD),
        }
    }
}

/// A merge on its way, which may be of level 0.
pub(crate) struct Pass {
    progress: Arc<Progress>,
    began: Instant,
    level_0: Level0,
    /// What is newer was in level 0.
    older_than: u64,
    met: u64,
    newest: u64,
}

impl Pass {
    pub(crate) fn begin(progress: Arc<Progress>, level_0: Level0) -> Pass {
        progress.left_ns.store(0, Ordering::Relaxed);
        Pass {
            began: Instant::now(),
            level_0,
            older_than: progress.newest_merged.load(Ordering::Relaxed),
            met: 0,
            newest: 0,
            progress,
        }
    }

    /// Rows come in the order of users, whose hashes are spread evenly: what was met of level 0 tells how far it is, whatever
    /// is merged with it.
    pub(crate) fn meet(&mut self, sequence: u64) {
        if sequence > self.older_than {
            self.met += 1;
            self.newest = self.newest.max(sequence);
        }
    }

    /// Tells where it is.
    pub(crate) fn tell(&self) {
        if self.met == 0 {
            return;
        }
        let rows = self.level_0.rows.saturating_sub(self.met);
        // Of a user the older messages come first, which are not of level 0: at the beginning, where users are few, it seems
        // to have met next to nothing.
        let left = if self.met < self.level_0.rows / TELLS_FROM_PART {
            self.progress.time_for(rows)
        } else {
            let took = self.began.elapsed();
            took.mul_f64(rows as f64 / self.met as f64)
        };
        // Not 0, which says that none is under way.
        let left_ns = (left.as_nanos() as u64).max(1);
        self.progress.left_ns.store(left_ns, Ordering::Relaxed);
    }

    /// The merge has come to its end. Its tables are in their places soon: as good as nothing is left of it until the next
    /// one begins.
    pub(crate) fn end(mut self) {
        if self.met == 0 {
            return;
        }
        let progress = &self.progress;
        let took = self.began.elapsed();
        if self.level_0.is_alone {
            let ns_per_row = took.as_nanos() as u64 / self.met;
            progress.ns_per_row.store(ns_per_row, Ordering::Relaxed);
        }
        progress.left_ns.store(1, Ordering::Relaxed);
        progress
            .newest_merged
            .fetch_max(self.newest, Ordering::Relaxed);
        self.met = 0;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.met > 0 {
            // It was given up.
            self.progress.left_ns.store(0, Ordering::Relaxed);
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
    /// How long after it the next one may begin, when level 0 has room for so many memtables of this size, and its merge
    /// needs that long.
    pub(crate) fn interval(self, room: f64, merge: Duration, memtable_bytes: u64) -> Duration {
        let bytes = self.bytes + self.messages * ENTRY_BYTES;
        let memtables = bytes as f64 / memtable_bytes.max(1) as f64;
        let seconds = merge.as_secs_f64() * memtables / room.max(ROOM_MIN);
        Duration::from_secs_f64(seconds.min(PAUSE_MAX.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMTABLE_BYTES: u64 = 1_000_000;

    fn left(progress: &Progress) -> Duration {
        Duration::from_nanos(progress.left_ns.load(Ordering::Relaxed))
    }

    fn pass(progress: &Arc<Progress>, rows: u64) -> Pass {
        let is_alone = progress.newest_merged() > 0;
        Pass::begin(Arc::clone(progress), Level0 { rows, is_alone })
    }

    #[test]
    fn a_batch_takes_of_the_time_what_it_takes_of_the_room() {
        let last = LastBatch {
            began: Instant::now(),
            messages: 100,
            bytes: MEMTABLE_BYTES / 50 - 100 * ENTRY_BYTES,
        };
        let interval = |room, merge_ms| {
            let merge = Duration::from_millis(merge_ms);
            let interval = last.interval(room, merge, MEMTABLE_BYTES);
            interval.as_secs_f64() * 1e3
        };
        let is = |interval: f64, due: f64| (interval - due).abs() < 1e-3;
        // A fiftieth of a memtable, room for 2, 2 s.
        assert!(is(interval(2.0, 2_000), 20.0));
        assert!(is(interval(1.0, 2_000), 40.0));
        assert!(is(interval(2.0, 4_000), 40.0));
        assert!(is(interval(0.0, 100), 20.0), "some room is left");
        assert!(is(interval(-3.0, 10_000), 250.0), "not for ever");
        assert!(is(interval(-3.0, 0), 0.0));
    }

    #[test]
    fn a_merge_is_of_level_0_if_it_meets_what_is_newer_than_all_that_left_it() {
        let progress = Arc::new(Progress::default());
        let mut first = pass(&progress, 100);
        first.meet(7);
        first.meet(3);
        first.tell();
        assert_eq!(left(&progress), progress.time_for(98));
        first.end();
        assert_eq!(left(&progress), Duration::from_nanos(1), "as good as none");

        let mut deeper = pass(&progress, 100);
        assert!(left(&progress).is_zero());
        deeper.meet(7);
        deeper.tell();
        assert!(left(&progress).is_zero());
        deeper.end();

        let mut given_up = pass(&progress, 100);
        given_up.meet(8);
        given_up.tell();
        assert!(!left(&progress).is_zero());
        drop(given_up);
        assert!(left(&progress).is_zero());
        let mut again = pass(&progress, 200);
        again.meet(2);
        again.meet(8);
        again.tell();
        let rest = progress.time_for(199);
        assert_eq!(left(&progress), rest, "what is below does not count");
    }

    #[test]
    fn a_merge_goes_on_as_so_far_and_the_next_is_like_it() {
        const TOOK: Duration = Duration::from_millis(100);
        let progress = Arc::new(Progress::default());
        let mut first = pass(&progress, 1);
        first.meet(1);
        first.end();
        assert_eq!(progress.time_for(1), Duration::from_nanos(NS_PER_ROW_FIRST));
        let mut merge = pass(&progress, 40);
        std::thread::sleep(TOOK);
        (2..=11).for_each(|sequence| merge.meet(sequence));
        merge.tell();
        // A quarter is done.
        assert!(left(&progress) >= 3 * TOOK);
        assert!(left(&progress) <= 4 * merge.began.elapsed());
        (12..=41).for_each(|sequence| merge.meet(sequence));
        merge.end();
        assert!(progress.time_for(40) >= TOOK * 99 / 100);
        progress.reset();
        assert_eq!(progress.time_for(1), Duration::from_nanos(NS_PER_ROW_FIRST));
        assert_eq!(progress.newest_merged(), 0);
        assert!(left(&progress).is_zero());
    }

    #[test]
    fn before_a_merge_begins_it_has_all_of_level_0_to_do() {
        let (_folder, tables) = crate::database::Tables::of_new();
        let messages = &tables.messages;
        let progress = Progress::default();
        for sequence in 0..3u64 {
            let mut key = [1; 20];
            key[12..].copy_from_slice(&sequence.to_be_bytes());
            messages.insert(key, "a").expect("written");
        }
        // Not by way of the database, which would move it down.
        let tree = &messages.tree;
        tree.flush_active_memtable(0).expect("a table");
        messages.insert([2; 20], "a").expect("written");
        tree.flush_active_memtable(0).expect("a table");
        assert_eq!(rows_above(messages, 1), 4);
        assert_eq!(progress.time_left(messages), progress.time_for(4));
        tree.major_compact(u64::MAX, 0).expect("merged");
        assert_eq!((rows_above(messages, 1), rows_above(messages, 2)), (0, 4));
        assert_eq!(Level0::of(messages, &progress).rows, 4, "all counts");
        progress.newest_merged.store(1, Ordering::Relaxed);
        assert_eq!(Level0::of(messages, &progress).rows, 0);
    }
}
