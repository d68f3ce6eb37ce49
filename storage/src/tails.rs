//! What the committer remembers of users, so that an append needs no look-up.
//!
//! Owner: the committer. Two generations: when the young one is full it becomes the old one, and the old one is
//! forgotten; whoever is asked for from the old moves to the young. At most `tails_max` users are remembered, plus
//! those of one batch: nothing is forgotten while a batch is made, since an entry may stand for messages that
//! are not in the database yet.
//!
//! Invariant: nobody is forgotten whose account on disk does not tell where the inbox ends. What is left to
//! write is spread over the batches: one account of the old generation for each user that enters the young one.

use std::collections::hash_map::Entry;
use std::hint::black_box;
use std::mem;

use ahash::AHashMap;

use crate::account::{Account, Tail};
use crate::shares::Senders;
use crate::user::UserKey;

/// A user as the committer sees it: with everything of the batch in the making.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) name: Box<str>,
    pub(crate) account: Account,
    pub(crate) tail: Tail,
    /// The account must be written with this batch.
    pub(crate) dirty: bool,
    /// The account on disk does not tell this tail.
    pub(crate) tail_unwritten: bool,
    /// The batch that appended to it last.
    pub(crate) appended_in: u64,
    /// When the message at the head expires, Unix milliseconds; 0: not known.
    pub(crate) front_expires_at_ms: u64,
    /// Who holds it, while it is crowded.
    pub(crate) senders: Option<Box<Senders>>,
}

/// A bounded memory of users.
pub(crate) struct Tails {
    young: AHashMap<UserKey, Inbox>,
    old: AHashMap<UserKey, Inbox>,
    /// Those of the old generation that are to be looked at before it is forgotten.
    unwritten: Vec<UserKey>,
    generation_max: usize,
}

impl Tails {
    pub(crate) fn new(tails_max: usize) -> Tails {
        Tails {
            young: AHashMap::new(),
            old: AHashMap::new(),
            unwritten: Vec::new(),
            generation_max: (tails_max / 2).max(1),
        }
    }

    /// The user, if remembered.
    pub(crate) fn recall(&mut self, user: UserKey) -> Option<&mut Inbox> {
        match self.young.entry(user) {
            Entry::Occupied(young) => Some(young.into_mut()),
            Entry::Vacant(place) => Some(place.insert(self.old.remove(&user)?)),
        }
    }

    /// Reads what an append looks at of this user, for the cache's sake. Reads for many users, one right after the other, wait
    /// for memory together; those of the appends would wait each for itself.
    pub(crate) fn look_at(&self, user: UserKey) {
        if let Some(inbox) = self.young.get(&user) {
            let first = inbox.name.as_bytes().first().copied();
            black_box((first, inbox.account.head, inbox.appended_in));
        }
    }

    pub(crate) fn remember(&mut self, user: UserKey, inbox: Inbox) -> &mut Inbox {
        self.young.entry(user).insert_entry(inbox).into_mut()
    }

    /// While a batch is closed: an account that must be written with it, so that its user can be forgotten later.
    /// To be called until there is none.
    pub(crate) fn next_to_write(&mut self) -> Option<(UserKey, &mut Inbox)> {
        // When the young generation is full, nothing is left over.
        let left_max = self.generation_max.saturating_sub(self.young.len());
        while self.unwritten.len() > left_max {
            let user = self.unwritten.pop()?;
            // Whoever was asked for since is young again.
            if self
                .old
                .get(&user)
                .is_some_and(|inbox| inbox.tail_unwritten)
            {
                return self.old.get_mut(&user).map(|inbox| (user, inbox));
            }
        }
        None
    }

    /// Between batches: forgets the old generation if the young one is full.
    pub(crate) fn trim(&mut self) {
        if self.young.len() >= self.generation_max && self.unwritten.is_empty() {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            let unwritten = self.old.iter().filter(|(_, inbox)| inbox.tail_unwritten);
            self.unwritten.extend(unwritten.map(|(user, _)| *user));
        }
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
            tail_unwritten: true,
            appended_in: 0,
            front_expires_at_ms: 0,
            senders: None,
        }
    }

    fn user(n: u8) -> UserKey {
        [n; 12]
    }

    /// As a batch does when it is closed.
    fn write_all(tails: &mut Tails) -> usize {
        let mut written = 0;
        while let Some((_, inbox)) = tails.next_to_write() {
            inbox.tail_unwritten = false;
            written += 1;
        }
        written
    }

    #[test]
    fn nobody_is_forgotten_unwritten_and_the_writing_is_spread() {
        let mut tails = Tails::new(40);
        let (mut written, mut remembered) = (0, 0);
        for n in 0..200 {
            tails.remember(user(n), inbox(n as u64));
            remembered += 1;
            let now = write_all(&mut tails);
            assert!(now <= 1, "{now} at once");
            written += now;
            tails.trim();
            assert!(remembered - written <= 40);
        }
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
            write_all(&mut tails);
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
}
