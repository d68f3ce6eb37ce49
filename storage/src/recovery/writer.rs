//! Puts rows that were found somewhere into an open database, if they prove themselves and are not known there.
//!
//! Used by the thread that opens a database, and by the rebuilding of one. A key is not covered by the CRC of its value,
//! so it must prove itself: an account's name must hash to its key (the key of the hash is secret, so nobody can plant
//! one in a payload); of a message, the account is the proof, or, if that is gone, one without a name is made, which the
//! first to hash to this key takes over. So accounts go in before messages. The same row twice changes nothing.
//! Memory: one batch.

use std::collections::{HashMap, HashSet};
use std::io;

use fjall::{OwnedWriteBatch, PersistMode, Readable, Slice};

use crate::account::{self, Account, Stored, Tail};
use crate::database::Tables;
use crate::name_key::NameKey;
use crate::record;
use crate::user::{Place, UserKey, message_key, next_user, split_message_key};

/// What is written at once.
const BATCH_ITEMS_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Users that are told apart in the report; beyond it they are counted as these.
const USERS_COUNTED_MAX: usize = 1 << 20;

/// A database that rows are put into.
pub(super) struct Writer<'a> {
    tables: &'a Tables,
    pub(super) name_key: NameKey,
    pub(super) place: Place,
    mode: PersistMode,
    batch: OwnedWriteBatch,
    /// Accounts of the batch.
    accounts: HashMap<UserKey, Vec<u8>>,
    items: usize,
    bytes: usize,
    users: HashSet<UserKey>,
    /// The head of the user whose message came last: rows come sorted.
    head: Option<(UserKey, Option<u64>)>,
    /// Messages that were put in for users without an account: theirs is lost, or the key is not theirs.
    pub(super) unclaimed: u64,
    /// Users for whom an account without a name was made.
    made: HashSet<UserKey>,
    /// The highest sequence in what was put in.
    pub(super) sequence: u64,
}

impl Writer<'_> {
    /// `mode`: how durable each batch is.
    pub(super) fn new(
        tables: &Tables,
        name_key: NameKey,
        place: Place,
        mode: PersistMode,
    ) -> Writer<'_> {
        Writer {
            tables,
            name_key,
            place,
            mode,
            batch: tables.database.batch(),
            accounts: HashMap::new(),
            items: 0,
            bytes: 0,
            users: HashSet::new(),
            head: None,
            unclaimed: 0,
            made: HashSet::new(),
            sequence: 0,
        }
    }

    /// Puts an account in unless the database knows better. How many that were.
    pub(super) fn account(&mut self, key: &[u8], value: &[u8]) -> io::Result<u64> {
        let (Ok(user), Ok(stored)) = (UserKey::try_from(key), account::decode(value)) else {
            return Ok(0);
        };
        let name = str::from_utf8(stored.name).unwrap_or_default();
        let is_its_own = account::name_is_sound(name) && user == self.name_key.hash(name).key();
        if !is_its_own || !self.place.owns(user) {
            return Ok(0);
        }
        self.sequence = self
            .sequence
            .max(stored.account.head)
            .max(stored.tail.sequence);
        let known = match self.accounts.get(&user) {
            Some(value) => Some(Slice::new(value)),
            // One that cannot be read is worth less than this one.
            None => self.tables.users.get(user).ok().flatten(),
        };
        let known = known
            .as_deref()
            .and_then(|known| account::decode(known).ok());
        // An older one has no higher head, and no later last sight beside the same head.
        let age = |account: &Account| (account.head, account.last_seen_ms);
        if known.is_some_and(|known| {
            !known.name.is_empty() && age(&known.account) >= age(&stored.account)
        }) {
            return Ok(0);
        }
        self.accounts.insert(user, value.to_vec());
        self.touched(user);
        self.grow(value.len())?;
        Ok(1)
    }

    /// Puts a message in unless it is there or was burned. How many that were.
    pub(super) fn message(&mut self, key: &[u8], value: &[u8]) -> io::Result<u64> {
        if self.tables.messages.contains_key(key).unwrap_or(false) {
            self.note_sequence(key);
            return Ok(0);
        }
        self.table_message(key, value)
    }

    /// Puts a message in that stood in a table which was taken out, and so in no other, unless it was burned. How many
    /// that were.
    pub(super) fn table_message(&mut self, key: &[u8], value: &[u8]) -> io::Result<u64> {
        let Some((user, sequence)) = split_message_key(key) else {
            return Ok(0);
        };
        if record::view(value).is_err() || !self.place.owns(user) {
            return Ok(0);
        }
        self.note_sequence(key);
        let head = match self.head {
            Some((of, head)) if of == user => head,
            _ => {
                let head = self.known(user).map(|account| account.head);
                self.head = Some((user, head));
                head
            }
        };
        if head.is_some_and(|head| sequence < head) {
            return Ok(0);
        }
        if head.is_none() {
            self.make(user, Account::default());
            self.head = Some((user, Some(0)));
        }
        self.unclaimed += u64::from(self.made.contains(&user));
        self.batch.insert(&self.tables.messages, key, value);
        self.touched(user);
        self.grow(value.len())?;
        Ok(1)
    }

    fn note_sequence(&mut self, key: &[u8]) {
        if let Some((_, sequence)) = split_message_key(key) {
            self.sequence = self.sequence.max(sequence);
        }
    }

    fn known(&self, user: UserKey) -> Option<Account> {
        let known = self.tables.users.get(user).ok().flatten();
        let known = known
            .as_deref()
            .and_then(|known| account::decode(known).ok());
        known.map(|known| known.account)
    }

    /// An account that has no name until the first to hash to this key takes it over.
    fn make(&mut self, user: UserKey, account: Account) {
        let unnamed = account::encode(&Stored {
            account,
            tail: Tail::default(),
            tail_life: 0,
            name: b"",
        });
        self.accounts.insert(user, unnamed);
        if self.made.len() < USERS_COUNTED_MAX {
            self.made.insert(user);
        }
    }

    /// Makes an account for every user who has messages and none: without one nobody is given them. To be called when
    /// all that was put in is written.
    pub(super) fn claim_messages(&mut self) -> io::Result<()> {
        let tables = self.tables;
        let snapshot = tables.database.snapshot();
        let mut from = message_key([0; 12], 0);
        // It ends at a block that cannot be read; behind that, users are claimed when that table is taken out.
        while let Some(Ok((key, value))) = snapshot
            .range(&tables.messages, from..)
            .next()
            .map(|guard| guard.into_inner())
        {
            let (user, _) = split_message_key(&key).ok_or(io::ErrorKind::InvalidData)?;
            let account = snapshot
                .get(&tables.users, user)
                .map_err(io::Error::other)?;
            let is_made = account
                .as_deref()
                .is_none_or(|account| account::decode(account).is_ok_and(|it| it.name.is_empty()));
            if is_made {
                // What stood before the first was burned, as far as anybody can know.
                let burned = record::view(&value).ok().map(|view| Account {
                    head: 0,
                    burned_messages: view.ordinal.saturating_sub(1),
                    burned_bytes: view.cumulative_bytes.saturating_sub(value.len() as u64),
                    last_seen_ms: 0,
                });
                self.make(user, burned.unwrap_or_default());
                self.touched(user);
                self.grow(0)?;
            }
            match next_user(user) {
                Some(next) => from = message_key(next, 0),
                None => break,
            }
        }
        Ok(())
    }

    /// Writes what is left. How many users were touched.
    pub(super) fn finish(&mut self) -> io::Result<u64> {
        self.write()?;
        self.tables
            .database
            .persist(PersistMode::SyncAll)
            .map_err(io::Error::other)?;
        Ok(self.users.len() as u64)
    }

    fn touched(&mut self, user: UserKey) {
        if self.users.len() < USERS_COUNTED_MAX {
            self.users.insert(user);
        }
    }

    fn grow(&mut self, bytes: usize) -> io::Result<()> {
        self.items += 1;
        self.bytes += bytes;
        if self.items >= BATCH_ITEMS_MAX || self.bytes >= BATCH_BYTES_MAX {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let mut batch = std::mem::replace(&mut self.batch, self.tables.database.batch());
        for (user, account) in self.accounts.drain() {
            batch.insert(&self.tables.users, Slice::new(&user), account);
        }
        (self.items, self.bytes) = (0, 0);
        // Nobody else merges yet, and fjall lets a write wait for ever where level 0 is full.
        self.tables.merge_due().map_err(io::Error::other)?;
        batch
            .durability(Some(self.mode))
            .commit()
            .map_err(io::Error::other)
    }
}
