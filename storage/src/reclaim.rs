//! Destroys on disk what was burned or has expired, when the database merges tables anyway.
//!
//! Runs where tables are merged ([`crate::merger`]). It only ever removes what no page would return: below the durable head, or
//! past its time to live and not the last of its inbox. Only what is synced is asked for that: a database shows heads that
//! may yet be lost with the power ([`crate::durable`]). What is destroyed may come back from the journal at a recovery; the head still hides it.
//! When in doubt (no account, an account or a record that fails its checks) a record is kept, and the merge
//! goes on. Here merges tell how far they are, too ([`crate::pace`]).

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
use crate::pace::{Level0, Pass, Progress};
use crate::record;
use crate::user::{UserKey, split_message_key};

/// Makes a filter for each merge of tables.
#[derive(Default)]
pub(crate) struct Reclaim {
    /// Set once the database is open, taken away before it closes (a handle in here would keep it open for ever).
    /// Without it nothing is destroyed.
    opened: RwLock<Option<Opened>>,
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
    }

    pub(crate) fn end(&self) {
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = None;
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
    is_left: Arc<AtomicBool>,
    /// Where others wait for the merge: of the tables in question, and whether the store closes.
    gives_way: Option<(Keyspace, Arc<AtomicBool>)>,
}

/// Records between two looks at the leash, and two words of how far a merge is.
const LOOK_RECORDS: u64 = 128;
/// Runs in level 0 at which it gives itself up: fewer than let writes wait.
pub(crate) const LEASH_RUNS_MAX: usize = 20;

impl Leash {
    /// Lets it go on until the database is left.
    pub(crate) fn of(tables: &Tables) -> Leash {
        Leash {
            is_left: Arc::clone(&tables.is_left),
            gives_way: None,
        }
    }

    /// The same for one that keeps out all other merges: not so long that writes would wait, nor while the store closes.
    pub(crate) fn giving_way(tables: &Tables, closing: &Arc<AtomicBool>) -> Leash {
        Leash {
            gives_way: Some((tables.messages.clone(), Arc::clone(closing))),
            ..Leash::of(tables)
        }
    }

    fn is_taut(&self) -> bool {
        let is_in_the_way = |(messages, closing): &(Keyspace, Arc<AtomicBool>)| {
            closing.load(Ordering::Relaxed) || messages.tree.l0_run_count() >= LEASH_RUNS_MAX
        };
        self.is_left.load(Ordering::Relaxed) || self.gives_way.as_ref().is_some_and(is_in_the_way)
    }
}

struct Filter {
    leash: Option<Leash>,
    progress: Arc<Progress>,
    /// Begun with the first record.
    pass: Option<Pass>,
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
    /// What nobody has on a leash is a merge of fjall's own, beside others.
    fn begin(&mut self) {
        // Not where the filter is made: there the tree is locked.
        let opened = self.opened.as_ref().filter(|_| self.leash.is_some());
        self.pass = opened.map(|opened| {
            let level_0 = Level0::of(&opened.messages, &self.progress);
            Pass::begin(Arc::clone(&self.progress), level_0)
        });
    }

    /// An error gives the merge up.
    fn feel_leash(&self) -> Result<(), LsmError> {
        if self.leash.as_ref().is_some_and(Leash::is_taut) {
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

    use super::*;

    #[test]
    fn a_merge_tells_how_far_it_is() {
        let reclaim = Arc::new(Reclaim::default());
        let (_folder, tables) = Tables::of_new_with(Arc::clone(&reclaim));
        reclaim.begin(&tables);
        let progress = reclaim.progress();
        let mut sequence = 0;
        let mut key = [1; 20];
        // Once is enough: who looks may get no cpu while it runs.
        let was_told = (0..10).any(|_| {
            for _ in 0..2 {
                for _ in 0..200 * LOOK_RECORDS {
                    sequence += 1u64;
                    key[12..].copy_from_slice(&sequence.to_be_bytes());
                    tables.messages.insert(key, "a").expect("written");
                }
                tables.flush().expect("a table");
            }
            let merge = || tables.messages.tree.major_compact(u64::MAX, 0);
            let merge = || Reclaim::merge_on_leash(Leash::of(&tables), merge);
            let was_told = thread::scope(|scope| {
                let merge = scope.spawn(merge);
                while !progress.is_told() && !merge.is_finished() {}
                let was_told = progress.is_told();
                merge.join().expect("no panic").expect("merged");
                was_told
            });
            assert_eq!(progress.newest_merged(), sequence);
            was_told
        });
        assert!(was_told, "nothing was told on its way");
    }
}
