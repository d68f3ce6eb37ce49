//! The accounts of a database as far as they are on the disk.
//!
//! Whoever destroys messages asks here where their heads are. A database shows a batch before its sync; a head that is
//! lost with the power must not have destroyed what it had passed. Written by the sync thread, read by merges and the upkeep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{AbstractTree, Keyspace, Slice};
use lsm_tree::SeqNo;

use crate::user::UserKey;

/// Where to find them.
#[derive(Clone)]
pub(crate) struct DurableAccounts {
    users: Keyspace,
    /// What has a lower seqno is on the disk.
    below: Arc<AtomicU64>,
}

impl DurableAccounts {
    /// None is, so far as is known.
    pub(crate) fn of(users: &Keyspace) -> DurableAccounts {
        DurableAccounts {
            users: users.clone(),
            below: Arc::default(),
        }
    }

    /// All that was written with a lower seqno was synced.
    pub(crate) fn note(&self, below: SeqNo) {
        self.below.fetch_max(below, Ordering::Release);
    }

    /// A user's account. `None` also if the newest is not known to be on the disk: that is soon over.
    pub(crate) fn account(&self, user: UserKey) -> fjall::Result<Option<Slice>> {
        let entry = self.users.tree.get_internal_entry(&user, SeqNo::MAX)?;
        let below = self.below.load(Ordering::Acquire);
        Ok(entry
            .filter(|entry| entry.key.seqno < below)
            .map(|entry| entry.value))
    }
}

#[cfg(test)]
mod tests {
    use crate::database::Tables;

    #[test]
    fn an_account_shows_once_it_is_synced_and_not_while_a_newer_one_is_not() {
        let (_folder, tables) = Tables::of_new();
        let user = [7; 12];
        let account = || tables.durable.account(user).expect("read");
        for content in ["first", "second"] {
            tables.users.insert(user, content).expect("written");
            assert_eq!(account(), None);
            tables.durable.note(tables.database.visible_seqno());
            assert_eq!(account().as_deref(), Some(content.as_bytes()));
        }
        // It only goes on.
        tables.durable.note(0);
        assert!(account().is_some());
    }
}
