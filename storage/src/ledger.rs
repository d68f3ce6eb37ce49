//! What the committer knows across batches: where each inbox begins and ends, and the sequences.
//!
//! Owner: the committer. Invariant: what it remembers of a user is what the database holds, and on top of that
//! what the batch in the making will write; the same holds for the totals. After a failed batch
//! it is thrown away, and a new one begins with the database when that is opened again.

use std::io;
use std::sync::Arc;

use fjall::Snapshot;

use crate::account::{self, Account, Stored, Tail};
use crate::answers::Answers;
use crate::burial::Burial;
use crate::database::Tables;
use crate::disk::Condition;
use crate::folder::Folder;
use crate::inbox::{self, Sum};
use crate::journal::Newest;
use crate::merger::Merger;
use crate::metrics::Counts;
use crate::outlets::Outlets;
use crate::quota::Room;
use crate::recovery::synced::Mark;
use crate::request::FailureKind;
use crate::sequence::Sequences;
use crate::shares::{self, Largest, Names, Part, Sender};
use crate::syncer::Syncer;
use crate::tails::{Inbox, Tails};
use crate::totals::Totals;
use crate::user::UserKey;
use crate::writeback::Writeback;

/// What the committer knows across batches.
pub(crate) struct Ledger {
    pub(crate) tables: Tables,
    pub(crate) tails: Tails,
    pub(crate) sequences: Sequences,
    /// Where the next batch will stand.
    pub(crate) journal: Newest,
    /// Syncs what was written. Ends with it.
    pub(crate) syncer: Syncer,
    /// The name of this life of the database: a sequence, so that no other has the same.
    pub(crate) life: u64,
    /// What the inboxes of this database hold.
    pub(crate) totals: Totals,
    /// How much that may be.
    pub(crate) room: Room,
    pub(crate) names: Names,
    /// The senders of this database, by bytes, while the store is crowded.
    pub(crate) senders: Option<Largest>,
    /// Look-ups since the store was opened, for users who were not remembered.
    pub(crate) tail_misses: u64,
    /// Ends with it, and before the burial.
    pub(crate) merger: Merger,
    /// What the database has in use.
    pub(crate) burial: Burial,
    /// Ends with it.
    _writeback: Option<Writeback>,
}

/// What the ledgers of all databases have in common, and how one is begun.
#[derive(Clone)]
pub(crate) struct LedgerSource {
    pub(crate) folder: Arc<Folder>,
    pub(crate) sequences: Sequences,
    /// What their inboxes may hold together.
    pub(crate) room: Room,
    /// Users that one ledger remembers.
    pub(crate) tails_max: usize,
    /// For the answers.
    pub(crate) outlets: Outlets,
    pub(crate) counts: Arc<Counts>,
    pub(crate) condition: Arc<Condition>,
}

impl LedgerSource {
    /// A ledger that remembers nothing, for a database that was just opened.
    ///
    /// # Errors
    /// If no sequence is to be had, the totals cannot be read, the journal cannot be synced, or a thread cannot be started.
    pub(crate) fn open(&self, number: usize, tables: &Tables) -> io::Result<Ledger> {
        let totals = Totals::load(tables).map_err(io::Error::other)?;
        let life = self.sequences.next()?;
        let journal = Newest::open(tables.path())?;
        // What a killed process had written and not synced is shown; so it is made durable first.
        journal.journal().sync()?;
        tables.durable.note(tables.database.visible_seqno());
        let mark = Mark::open(&self.folder, number, totals.last_sequence)?;
        let syncer = Syncer::open(tables, mark, self.answers(number))?;
        let burial = Burial::open(number, tables);
        let merger = Merger::open(number, tables, burial.merged_tables(tables))?;
        self.room.add(totals.bytes);
        Ok(Ledger {
            tables: tables.clone(),
            tails: Tails::new(self.tails_max),
            life,
            journal,
            syncer,
            sequences: self.sequences.clone(),
            totals,
            room: self.room.clone(),
            names: Names::default(),
            senders: None,
            tail_misses: 0,
            merger,
            burial,
            _writeback: Writeback::open(number, tables),
        })
    }

    /// The way back to the clients, for this database.
    pub(crate) fn answers(&self, number: usize) -> Answers {
        Answers {
            number,
            outlets: self.outlets.clone(),
            counts: Arc::clone(&self.counts),
            condition: Arc::clone(&self.condition),
        }
    }
}

impl Ledger {
    /// Between two batches.
    pub(crate) fn rest(&mut self) {
        self.tails.trim();
        self.burial.look();
    }

    /// The head of a remembered user.
    pub(crate) fn head(&mut self, user: UserKey) -> u64 {
        self.tails
            .recall(user)
            .map_or(0, |inbox| inbox.account.head)
    }

    /// One more record stands in an inbox.
    pub(crate) fn admit(&mut self, sender: Sender, record_len: u64) -> Result<(), FailureKind> {
        self.room.take(record_len)?;
        self.totals.messages += 1;
        self.totals.bytes += record_len;
        if let Some(senders) = &mut self.senders {
            senders.add(sender, record_len);
        }
        Ok(())
    }

    /// A head has moved past these, of which a sample is known.
    pub(crate) fn forgo(&mut self, gone: Sum, sample: &[Part]) {
        self.room.release(gone.bytes.min(self.totals.bytes));
        self.totals.messages = self.totals.messages.saturating_sub(gone.messages);
        self.totals.bytes = self.totals.bytes.saturating_sub(gone.bytes);
        if let Some(senders) = &mut self.senders {
            senders.forgo(gone.bytes, self.totals.bytes, &shares::bytes(sample));
        }
        self.watch_senders();
    }

    /// Counts the senders of this database from now on if the store is crowded, and not any more if it is not.
    pub(crate) fn watch_senders(&mut self) {
        if !self.room.is_crowded() {
            self.senders = None;
        } else if self.senders.is_none() {
            self.senders = Some(Largest::of_store());
        }
    }

    /// Whether the user has an account; if so, it is in memory from now on.
    pub(crate) fn find(
        &mut self,
        snapshot: &Snapshot,
        user: UserKey,
        name: &str,
    ) -> Result<bool, FailureKind> {
        if let Some(inbox) = self.tails.recall(user) {
            return if *inbox.name == *name {
                Ok(true)
            } else {
                Err(FailureKind::NameCollision)
            };
        }
        self.tail_misses += 1;
        let stored = inbox::stored(&self.tables, snapshot, user, name)?;
        let Some((account, told, told_in)) = stored else {
            return Ok(false);
        };
        let told_now = told_in == self.life;
        let tail = if told_now {
            told
        } else {
            inbox::tail(&self.tables, snapshot, user, &account)?
        };
        let inbox = Inbox {
            name: name.into(),
            account,
            tail,
            dirty: false,
            tail_unwritten: !told_now,
            appended_in: 0,
            front_expires_at_ms: 0,
            senders: None,
        };
        self.tails.remember(user, inbox);
        Ok(true)
    }

    /// Remembers a user the store never heard of.
    pub(crate) fn welcome(&mut self, user: UserKey, name: &str) {
        let inbox = Inbox {
            name: name.into(),
            account: Account::default(),
            tail: Tail {
                sequence: 0,
                ordinal: 0,
                cumulative_bytes: 0,
            },
            dirty: false,
            tail_unwritten: false,
            appended_in: 0,
            front_expires_at_ms: 0,
            senders: None,
        };
        self.tails.remember(user, inbox);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.room.release(self.totals.bytes);
    }
}

/// The account to write, which now tells the tail.
pub(crate) fn settle(inbox: &mut Inbox, life: u64) -> Vec<u8> {
    inbox.dirty = false;
    inbox.tail_unwritten = false;
    let name = inbox.name.as_bytes();
    account::encode(&Stored {
        account: inbox.account,
        tail: inbox.tail,
        tail_life: life,
        name,
    })
}

#[cfg(test)]
impl Ledger {
    /// That of a new database in this folder, and what it writes to.
    pub(crate) fn of_new(path: &std::path::Path) -> (Tables, Ledger) {
        let options = crate::options::StoreOptions::new(path);
        let folder = Folder::open(path, 1).expect("opened");
        let reclaim = Arc::new(crate::reclaim::Reclaim::default());
        let (mut opened, sequences, _) =
            crate::database::open_all(&folder, &options, &[reclaim]).expect("opened");
        let tables = opened.pop().expect("one");
        let ledgers = LedgerSource {
            folder: Arc::new(folder),
            sequences,
            room: Room::new(crate::quota::Quotas::default(), 1),
            tails_max: 10,
            outlets: Outlets::default(),
            counts: Arc::new(Counts::new(1, 1)),
            condition: Arc::new(Condition::new(crate::recovery::Recovery::default(), 1)),
        };
        let ledger = ledgers.open(0, &tables).expect("a sequence");
        (tables, ledger)
    }
}
