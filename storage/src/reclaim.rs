//! Destroys on disk what was burned or has expired, when the database merges tables anyway.
//!
//! Runs on fjall's worker threads. It only ever removes what no page would return: below the durable head, or
//! past its time to live. A head that the `users` keyspace shows is durable, since fjall shows a batch only
//! after its sync. What is destroyed may come back from the journal at a recovery; the head still hides it.
//! When in doubt (no account, an account or a record that fails its checks) a record is kept, and the merge
//! goes on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use fjall::Keyspace;
use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};

use crate::account;
use crate::clock;
use crate::record;
use crate::user::{UserKey, split_message_key};

/// Makes a filter for each merge of tables.
#[derive(Default)]
pub(crate) struct Reclaim {
    /// Where the heads are; set once the database is open, taken away before it closes (a handle in here would
    /// keep it open for ever). Without it nothing is destroyed.
    users: RwLock<Option<Keyspace>>,
    counts: Arc<ReclaimCounts>,
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

    pub(crate) fn begin(&self, users: Keyspace) {
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = Some(users);
    }

    pub(crate) fn end(&self) {
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Factory for Reclaim {
    fn name(&self) -> &str {
        "reclaim"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Filter {
            users: self
                .users
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

struct Filter {
    users: Option<Keyspace>,
    now_ms: u64,
    /// The user whose messages are passing, with the head: keys come sorted, so one look-up serves a user.
    of: Option<(UserKey, u64)>,
    counts: Arc<ReclaimCounts>,
    burned: u64,
    expired: u64,
}

impl Filter {
    fn head(&mut self, user: UserKey) -> u64 {
        match self.of {
            Some((of, head)) if of == user => head,
            _ => {
                let head = self.read_head(user).unwrap_or(0);
                self.of = Some((user, head));
                head
            }
        }
    }

    fn read_head(&self, user: UserKey) -> Option<u64> {
        let value = self.users.as_ref()?.get(user).ok()??;
        account::decode(&value)
            .ok()
            .map(|stored| stored.account.head)
    }
}

impl CompactionFilter for Filter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        let Some((user, sequence)) = split_message_key(item.key()) else {
            return Ok(Verdict::Keep);
        };
        if sequence < self.head(user) {
            self.burned += 1;
            return Ok(Verdict::Destroy);
        }
        // The header alone may lie; a record is destroyed as expired only if all of it is sound.
        let value = item.value()?;
        if record::claims_expired(&value, self.now_ms) && record::view(&value).is_ok() {
            self.expired += 1;
            return Ok(Verdict::Destroy);
        }
        Ok(Verdict::Keep)
    }

    fn finish(self: Box<Self>) {
        self.counts.burned.fetch_add(self.burned, Ordering::Relaxed);
        self.counts
            .expired
            .fetch_add(self.expired, Ordering::Relaxed);
    }
}
