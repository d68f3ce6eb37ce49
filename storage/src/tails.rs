//! What the committer remembers of users, so that an append needs no look-up.
//!
//! Owner: the committer. Two generations: when the young one is full it becomes the old one, and the old one is
//! forgotten; whoever is asked for from the old moves to the young. At most `tails_max` users are remembered, plus
//! those of one batch: nothing is forgotten while a batch is made, since an entry may stand for messages that
//! are not in the database yet.

use std::mem;

use ahash::AHashMap;

use crate::account::Account;
use crate::inbox::Tail;
use crate::user::UserKey;

/// A user as the committer sees it: with everything of the batch in the making.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) name: Box<str>,
    pub(crate) account: Account,
    pub(crate) tail: Tail,
    /// The account must be written with this batch.
    pub(crate) dirty: bool,
    /// The batch that appended to it last.
    pub(crate) appended_in: u64,
}

/// A bounded memory of users.
pub(crate) struct Tails {
    young: AHashMap<UserKey, Inbox>,
    old: AHashMap<UserKey, Inbox>,
    generation_max: usize,
}

impl Tails {
    pub(crate) fn new(tails_max: usize) -> Tails {
        Tails {
            young: AHashMap::new(),
            old: AHashMap::new(),
            generation_max: (tails_max / 2).max(1),
        }
    }

    /// The user, if remembered.
    pub(crate) fn recall(&mut self, user: UserKey) -> Option<&mut Inbox> {
        if let Some(inbox) = self.old.remove(&user) {
            self.young.insert(user, inbox);
        }
        self.young.get_mut(&user)
    }

    pub(crate) fn remember(&mut self, user: UserKey, inbox: Inbox) -> &mut Inbox {
        self.young.entry(user).insert_entry(inbox).into_mut()
    }

    /// Between batches: forgets the old generation if the young one is full.
    pub(crate) fn trim(&mut self) {
        if self.young.len() >= self.generation_max {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
    }

    /// After a failed batch: nothing remembered can be trusted.
    pub(crate) fn forget_all(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(head: u64) -> Inbox {
        Inbox {
            name: "a".into(),
            account: Account {
                head,
                ..Account::default()
            },
            tail: Tail {
                sequence: 0,
                ordinal: 0,
                cumulative_bytes: 0,
            },
            dirty: false,
            appended_in: 0,
        }
    }

    fn user(n: u8) -> UserKey {
        [n; 12]
    }

    #[test]
    fn the_used_stay_and_the_unused_are_forgotten() {
        let mut tails = Tails::new(4);
        for n in 0..20 {
            tails.remember(user(n), inbox(n as u64));
            assert_eq!(
                tails.recall(user(0)).map(|inbox| inbox.account.head),
                Some(0),
                "after {n}"
            );
            tails.trim();
            assert!(tails.young.len() + tails.old.len() <= 4);
        }
        assert!(tails.recall(user(1)).is_none());
    }

    #[test]
    fn nothing_is_forgotten_within_a_batch() {
        let mut tails = Tails::new(4);
        for n in 0..100 {
            tails.remember(user(n), inbox(n as u64));
        }
        assert!((0..100).all(|n| tails.recall(user(n)).is_some()));
    }

    #[test]
    fn after_a_failed_batch_nothing_is_remembered() {
        let mut tails = Tails::new(4);
        for n in 0..3 {
            tails.remember(user(n), inbox(0));
            tails.trim();
        }
        tails.forget_all();
        assert!((0..3).all(|n| tails.recall(user(n)).is_none()));
    }
}
