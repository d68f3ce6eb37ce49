//! Destroys on disk what was burned or has expired, when the database merges tables anyway.
//!
//! Runs on fjall's worker threads. It only ever removes what no page would return: below the durable head, or
//! past its time to live and not the last of its inbox. Only what is synced is asked for that: a database shows heads that
//! may yet be lost with the power ([`crate::durable`]). What is destroyed may come back from the journal at a recovery; the head still hides it.
//! When in doubt (no account, an account or a record that fails its checks) a record is kept, and the merge
//! goes on. Here they take turns, too ([`crate::merging`]), and tell how far they are ([`crate::pace`]).

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};
use fjall::{AbstractTree, Keyspace, LsmError};

use crate::account;
use crate::clock;
use crate::database::Tables;
use crate::durable::DurableAccounts;
use crate::merging::{Turn, Turns};
use crate::pace::{Level0, Pass, Progress};
use crate::record;
use crate::user::{UserKey, split_message_key};

/// Makes a filter for each merge of tables.
#[derive(Default)]
pub(crate) struct Reclaim {
    /// Set once the database is open, taken away before it closes (a handle in here would keep it open for ever).
    /// Without it nothing is destroyed.
    opened: RwLock<Option<Opened>>,
    /// Whether it is.
    is_open: Arc<AtomicBool>,
    turns: Arc<Turns>,
    progress: Arc<Progress>,
    counts: Arc<ReclaimCounts>,
}

#[derive(Clone)]
struct Opened {
    /// Where the heads are.
    accounts: DurableAccounts,
    messages: Keyspace,
}

/// Records destroyed since the store was opened. Added to once for each merge.
#[derive(Default)]
pub(crate) struct ReclaimCounts {
    pub(crate) burned: AtomicU64,
    pub(crate) expired: AtomicU64,
}

impl Reclaim {
    pub(crate) fn counts(&self) -> &ReclaimCounts {
        &self.counts
    }

    /// How far the merges are that ask it.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    pub(crate) fn begin(&self, tables: &Tables) {
        self.progress.reset();
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = Some(Opened {
            accounts: tables.durable.clone(),
            messages: tables.messages.clone(),
        });
        self.is_open.store(true, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.is_open.store(false, Ordering::Relaxed);
    }

    /// Runs a merge on this thread that gives itself up when it is in the way. The tables stay as they were then;
    /// what it had written of new ones is deleted when the database is opened the next time.
    pub(crate) fn merge_on_leash<T>(leash: Leash, merge: impl FnOnce() -> T) -> T {
        LEASH.set(Some(leash));
        let merged = merge();
        LEASH.set(None);
        merged
    }
}

impl Factory for Reclaim {
    fn name(&self) -> &str {
        "reclaim"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Filter {
            leash: LEASH.take(),
            is_open: Arc::clone(&self.is_open),
            turns: Arc::clone(&self.turns),
            turn: None,
            progress: Arc::clone(&self.progress),
            pass: None,
            passed: 0,
            opened: self
                .opened
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            now_ms: clock::now_ms(),
            of: None,
            counts: Arc::clone(&self.counts),
            burned: 0,
            expired: 0,
        })
    }
}

/// Of one inbox, as its account on disk tells them.
#[derive(Clone, Copy, Default)]
struct Bounds {
    /// What lies before it is burned.
    head: u64,
    /// The last message may be this one or a later one.
    told_tail: u64,
}

thread_local! {
    /// Of the merge that this thread is about to begin: fjall makes the filter of a merge on the thread that runs it.
    static LEASH: Cell<Option<Leash>> = const { Cell::new(None) };
}

/// What ends a merge before its time.
pub(crate) struct Leash {
    /// The store closes.
    pub(crate) closing: Arc<AtomicBool>,
    /// The tables in question: if too many new ones gather meanwhile, writes would wait.
    pub(crate) messages: Keyspace,
}

/// Records between two looks at the leash, and two words of how far a merge is.
const LOOK_RECORDS: u64 = 128;
/// Runs in level 0 at which it gives itself up: fewer than let writes wait.
pub(crate) const LEASH_RUNS_MAX: usize = 20;

impl Leash {
    fn is_taut(&self) -> bool {
        self.closing.load(Ordering::Relaxed) || self.messages.tree.l0_run_count() >= LEASH_RUNS_MAX
    }
}

struct Filter {
    leash: Option<Leash>,
    is_open: Arc<AtomicBool>,
    turns: Arc<Turns>,
    progress: Arc<Progress>,
    /// Begun with the turn, and let go of before it.
    pass: Option<Pass>,
    /// Taken with the first record, and held until the merge has seen the last.
    turn: Option<Turn>,
    passed: u64,
    opened: Option<Opened>,
    now_ms: u64,
    /// The user whose messages are passing, with the bounds: keys come sorted, so one look-up serves a user.
    of: Option<(UserKey, Bounds)>,
    counts: Arc<ReclaimCounts>,
    burned: u64,
    expired: u64,
}

impl Filter {
    /// Waits for a turn. When the database closes, which waits for the end of every merge that was begun, they go on side
    /// by side.
    fn begin(&mut self) {
        // Counted before the wait, in which level 0 grows. (Not where the filter is made: there the tree is locked.)
        let level_0 = self
            .opened
            .as_ref()
            .map(|opened| Level0::of(&opened.messages, &self.progress));
        let turn = Turns::take(&self.turns, || !self.is_in_the_way());
        self.turn = turn;
        self.pass = level_0.map(|level_0| Pass::begin(Arc::clone(&self.progress), level_0));
    }

    /// The database closes, or the leash is taut.
    fn is_in_the_way(&self) -> bool {
        !self.is_open.load(Ordering::Relaxed) || self.leash.as_ref().is_some_and(Leash::is_taut)
    }

    /// An error gives the merge up.
    fn feel_leash(&self) -> Result<(), LsmError> {
        if self.leash.is_some() && self.is_in_the_way() {
            let source = io::Error::new(io::ErrorKind::Interrupted, "the merge is in the way");
            return Err(LsmError::Io(source));
        }
        Ok(())
    }

    fn bounds(&mut self, user: UserKey) -> Bounds {
        match self.of {
            Some((of, bounds)) if of == user => bounds,
            _ => {
                let bounds = self.read_bounds(user).unwrap_or_default();
                self.of = Some((user, bounds));
                bounds
            }
        }
    }

    fn read_bounds(&self, user: UserKey) -> Option<Bounds> {
        let value = self.opened.as_ref()?.accounts.account(user).ok()??;
        account::decode(&value).ok().map(|stored| Bounds {
            head: stored.account.head,
            told_tail: stored.tail.sequence,
        })
    }
}

impl CompactionFilter for Filter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        if self.passed == 0 {
            self.begin();
        }
        if self.passed.is_multiple_of(LOOK_RECORDS) {
            self.feel_leash()?;
            if let Some(pass) = &self.pass {
                pass.tell();
            }
        }
        self.passed += 1;
        let Some((user, sequence)) = split_message_key(item.key()) else {
            return Ok(Verdict::Keep);
        };
        if let Some(pass) = &mut self.pass {
            pass.meet(sequence);
        }
        let bounds = self.bounds(user);
        if sequence < bounds.head {
            self.burned += 1;
            return Ok(Verdict::Destroy);
        }
        // The last message tells how many there ever were, so it stays until a head has passed it.
        if sequence >= bounds.told_tail {
            return Ok(Verdict::Keep);
        }
        // The header alone may lie; a record is destroyed as expired only if all of it is sound.
        let value = item.value()?;
        if record::claims_expired(&value, self.now_ms) && record::view(&value).is_ok() {
            self.expired += 1;
            return Ok(Verdict::Destroy);
        }
        Ok(Verdict::Keep)
    }

    fn finish(mut self: Box<Self>) {
        if let Some(pass) = self.pass.take() {
            pass.end();
        }
        self.counts.burned.fetch_add(self.burned, Ordering::Relaxed);
        self.counts
            .expired
            .fetch_add(self.expired, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_merge_waits_for_its_turn_and_not_when_the_database_closes() {
        let reclaim = Arc::new(Reclaim::default());
        let (_folder, tables) = Tables::of_new_with(Arc::clone(&reclaim));
        let merge = || {
            // Two tables, so that there is something to merge.
            for content in ["first", "second"] {
                tables.messages.insert([1; 20], content).expect("written");
                tables.flush().expect("tables");
            }
            let tree = tables.messages.tree.clone();
            thread::spawn(move || tree.major_compact(u64::MAX, 0))
        };
        let ends = |merge: thread::JoinHandle<Result<(), LsmError>>| {
            merge.join().expect("no panic").is_ok()
        };

        reclaim.begin(&tables);
        let of_another = Turns::take(&reclaim.turns, || true);
        let waiting = merge();
        thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished(), "it went on beside another");
        drop(of_another);
        assert!(ends(waiting));

        let _of_another = Turns::take(&reclaim.turns, || true).expect("given back");
        let waiting = merge();
        thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished());
        reclaim.end();
        assert!(ends(waiting));
    }

    #[test]
    fn a_merge_tells_how_far_it_is() {
        let reclaim = Arc::new(Reclaim::default());
        let (_folder, tables) = Tables::of_new_with(Arc::clone(&reclaim));
        reclaim.begin(&tables);
        let rows = LOOK_RECORDS + 10;
        let mut key = [1; 20];
        for sequence in 1..=rows {
            key[12..].copy_from_slice(&sequence.to_be_bytes());
            tables.messages.insert(key, "a").expect("written");
            if sequence == rows / 2 {
                tables.flush().expect("a table");
            }
        }
        tables.flush().expect("a table");
        let progress = reclaim.progress();
        assert_eq!(progress.newest_merged(), 0);
        let tree = &tables.messages.tree;
        tree.major_compact(u64::MAX, 0).expect("merged");
        assert_eq!(progress.newest_merged(), rows);
    }
}
