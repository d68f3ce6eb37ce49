//! One batch in the making: requests go in, one write to the database and its replies come out.
//!
//! Owner: the committer. Invariants: the replies are kept back until the batch is committed, and every one of
//! them turns into a failure if it is not; requests take effect in the order they come in; a user's account is
//! written at most once, with everything the batch did to it.

use std::io;

use fjall::{OwnedWriteBatch, PersistMode, Slice, Snapshot};

use crate::account::{Account, Tail};
use crate::client::{Envelope, Write};
use crate::inbox::{self, FirstKept, Sum};
use crate::ledger::{self, Ledger};
use crate::record;
use crate::request::{FailureKind, Reply};
use crate::user::{UserHash, UserKey, message_key};

/// What became of a request.
pub(crate) enum Step {
    Taken,
    /// It needs what this batch wrote to be in the database: commit first, then ask again.
    NotYet(Envelope<Write>),
}

/// A batch.
pub(crate) struct Batch {
    snapshot: Snapshot,
    write: OwnedWriteBatch,
    number: u64,
    replies: Vec<(usize, Reply)>,
    dirty: Vec<UserKey>,
    /// Something was promised that only a sync can keep.
    synced: bool,
    pub(crate) tally: Tally,
}

/// What a batch did; it counts only if the batch is committed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) appended: u64,
    pub(crate) appended_bytes: u64,
    pub(crate) burned: u64,
    pub(crate) seen: u64,
    pub(crate) seen_lost: u64,
}

impl Batch {
    /// `number` is unique to the batch and not 0.
    pub(crate) fn new(ledger: &Ledger, number: u64, requests: usize) -> Batch {
        Batch {
            snapshot: ledger.tables.database.snapshot(),
            write: OwnedWriteBatch::with_capacity(ledger.tables.database.clone(), requests),
            number,
            replies: Vec::with_capacity(requests),
            dirty: Vec::new(),
            synced: false,
            tally: Tally::default(),
        }
    }

    /// Takes a request into the batch.
    ///
    /// # Errors
    /// If no sequence is to be had. The request is answered as failed, and the batch must not be committed.
    pub(crate) fn apply(
        &mut self,
        ledger: &mut Ledger,
        envelope: Envelope<Write>,
    ) -> io::Result<Step> {
        let client = envelope.client;
        self.tally.requests += 1;
        match envelope.request {
            Write::Append {
                token,
                user,
                name,
                record,
            } => {
                let reply = match self.append(ledger, user, &name, record) {
                    Ok(sequence) => Reply::Appended { token, sequence },
                    Err(Refusal::Request(error)) => Reply::Failed { token, error },
                    Err(Refusal::Sequence(error)) => {
                        self.replies.push((
                            client,
                            Reply::Failed {
                                token,
                                error: FailureKind::Unwritable,
                            },
                        ));
                        return Err(error);
                    }
                };
                self.replies.push((client, reply));
            }
            Write::Burn {
                token,
                user,
                name,
                head,
            } => match self.burn(ledger, user, &name, head) {
                Ok(true) => self.replies.push((client, Reply::Burned { token })),
                Ok(false) => {
                    self.tally.requests -= 1;
                    let request = Write::Burn {
                        token,
                        user,
                        name,
                        head,
                    };
                    return Ok(Step::NotYet(Envelope { client, request }));
                }
                Err(error) => self.replies.push((client, Reply::Failed { token, error })),
            },
            Write::Seen { user, name, at_ms } => self.seen(ledger, user, &name, at_ms),
            // The committer's own affairs.
            Write::Resume(_) | Write::GiveUp | Write::Close => {}
        }
        Ok(Step::Taken)
    }

    /// Answers a request without doing it.
    pub(crate) fn refuse(&mut self, client: usize, token: u64, error: FailureKind) {
        self.tally.requests += 1;
        self.replies.push((client, Reply::Failed { token, error }));
    }

    /// Writes the batch, and syncs it if it must be. Only then may the replies go out.
    pub(crate) fn commit(
        mut self,
        ledger: &mut Ledger,
    ) -> Result<Vec<(usize, Reply)>, Uncommitted> {
        let life = ledger.life;
        let users = &ledger.tables.users;
        for user in &self.dirty {
            if let Some(inbox) = ledger.tails.recall(*user) {
                self.write
                    .insert(users, Slice::new(user), ledger::settle(inbox, life));
            }
        }
        // All of these are others: whoever this batch is about is young.
        while let Some((user, inbox)) = ledger.tails.next_to_write() {
            self.write
                .insert(users, Slice::new(&user), ledger::settle(inbox, life));
        }
        let durability = self.durability();
        match self.write.durability(Some(durability)).commit() {
            Ok(()) => Ok(self.replies),
            Err(error) => Err(Uncommitted {
                error,
                replies: self.replies,
            }),
        }
    }

    fn durability(&self) -> PersistMode {
        if self.synced {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        }
    }

    /// Gives the batch up: the replies it would have given.
    pub(crate) fn abandon(self) -> Vec<(usize, Reply)> {
        self.replies
    }

    fn append(
        &mut self,
        ledger: &mut Ledger,
        user: UserHash,
        name: &str,
        mut record: Vec<u8>,
    ) -> Result<u64, Refusal> {
        let key = user.key();
        if !ledger.find(&self.snapshot, key, name)? {
            ledger.welcome(key, name);
            self.touch(ledger, key);
        }
        let inbox = ledger
            .tails
            .recall(key)
            .expect("found or remembered above, and nothing is forgotten in a batch");
        let ordinal = inbox
            .tail
            .ordinal
            .checked_add(1)
            .expect("nobody gets 2^64 messages");
        let cumulative_bytes = inbox.tail.cumulative_bytes + record.len() as u64;
        record::seal(&mut record, ordinal, cumulative_bytes)
            .map_err(|_| FailureKind::BadRequest)?;
        let sequence = ledger.sequences.next().map_err(Refusal::Sequence)?;
        inbox.tail = Tail {
            sequence,
            ordinal,
            cumulative_bytes,
        };
        inbox.tail_unwritten = true;
        inbox.appended_in = self.number;
        self.synced = true;
        self.tally.appended += 1;
        self.tally.appended_bytes += record.len() as u64;
        self.write.insert(
            &ledger.tables.messages,
            Slice::new(&message_key(key, sequence)),
            record,
        );
        Ok(sequence)
    }

    /// False: the batch must be committed first.
    fn burn(
        &mut self,
        ledger: &mut Ledger,
        user: UserHash,
        name: &str,
        head: u64,
    ) -> Result<bool, FailureKind> {
        let key = user.key();
        if !ledger.find(&self.snapshot, key, name)? {
            return Ok(true);
        }
        let inbox = ledger
            .tails
            .recall(key)
            .expect("found above, and nothing is forgotten in a batch");
        let tail = inbox.tail;
        // Never beyond what is there: a later message has a higher sequence, and must not be born burned.
        let head = head.min(tail.sequence + 1);
        if head <= inbox.account.head {
            // Durable before, or with this batch; but a promise all the same.
            return Ok(true);
        }
        let everything = Sum {
            messages: tail.ordinal,
            bytes: tail.cumulative_bytes,
        };
        let burned = if head > tail.sequence {
            everything
        } else {
            match inbox::first_kept(&ledger.tables, &self.snapshot, key, head)? {
                FirstKept::Sound(before) => before,
                FirstKept::NoneSound(_) if inbox.appended_in == self.number => return Ok(false),
                FirstKept::NoneSound(damaged) => Sum {
                    messages: everything.messages.saturating_sub(damaged.messages),
                    bytes: everything.bytes.saturating_sub(damaged.bytes),
                },
            }
        };
        self.tally.burned += burned
            .messages
            .saturating_sub(inbox.account.burned_messages);
        inbox.account = Account {
            head,
            burned_messages: burned.messages,
            burned_bytes: burned.bytes,
            last_seen_ms: inbox.account.last_seen_ms,
        };
        self.synced = true;
        self.touch(ledger, key);
        Ok(true)
    }

    fn seen(&mut self, ledger: &mut Ledger, user: UserHash, name: &str, at_ms: u64) {
        let key = user.key();
        match ledger.find(&self.snapshot, key, name) {
            Ok(true) => {}
            Ok(false) => {
                ledger.welcome(key, name);
            }
            Err(_) => {
                // Nobody waits for an answer; it shows in the metrics and with the user's next request.
                self.tally.seen_lost += 1;
                return;
            }
        }
        let inbox = ledger
            .tails
            .recall(key)
            .expect("found or remembered above, and nothing is forgotten in a batch");
        if at_ms > inbox.account.last_seen_ms {
            inbox.account.last_seen_ms = at_ms;
            self.tally.seen += 1;
            self.touch(ledger, key);
        }
    }

    fn touch(&mut self, ledger: &mut Ledger, user: UserKey) {
        if let Some(inbox) = ledger.tails.recall(user)
            && !inbox.dirty
        {
            inbox.dirty = true;
            self.dirty.push(user);
        }
    }
}

/// A batch the disk did not take. What became of it is unknown until the store is opened again.
pub(crate) struct Uncommitted {
    pub(crate) error: fjall::Error,
    pub(crate) replies: Vec<(usize, Reply)>,
}

enum Refusal {
    /// This one cannot be done.
    Request(FailureKind),
    /// Nothing can be appended any more.
    Sequence(io::Error),
}

impl From<FailureKind> for Refusal {
    fn from(kind: FailureKind) -> Refusal {
        Refusal::Request(kind)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::folder::Folder;
    use crate::ledger::LedgerSource;
    use crate::options::StoreOptions;
    use crate::reclaim::Reclaim;

    /// No test can cut the power; that a promise asks for a sync is what can be held on to.
    #[test]
    fn whatever_is_promised_is_synced() {
        let path = tempfile::tempdir().expect("a folder");
        let options = StoreOptions::new(path.path());
        let folder = Folder::open(path.path(), 1).expect("opened");
        let (mut tables, sequences, _) =
            crate::database::open_all(&folder, &options, &[Arc::new(Reclaim::default())])
                .expect("opened");
        let tables = tables.pop().expect("one");
        let ledgers = LedgerSource {
            sequences,
            tails_max: 10,
        };
        let mut ledger = ledgers.open(&tables).expect("a sequence");
        let user = UserHash(1);
        let mut record = Vec::new();
        let new = record::NewRecord {
            id_sender: 1,
            id_number: 1,
            sent_at_ms: 1,
            expires_at_ms: 0,
            sender: "ben",
            payload: b"x",
        };
        record::encode(&mut record, &new);
        let name = || Box::from("anna");
        let seen = Write::Seen {
            user,
            name: name(),
            at_ms: 5,
        };
        let append = Write::Append {
            token: 1,
            user,
            name: name(),
            record,
        };
        let burn = Write::Burn {
            token: 2,
            user,
            name: name(),
            head: u64::MAX,
        };
        let expected = [
            PersistMode::Buffer,
            PersistMode::SyncData,
            PersistMode::SyncData,
        ];
        for ((request, expected), number) in [seen, append, burn].into_iter().zip(expected).zip(1..)
        {
            let mut batch = Batch::new(&ledger, number, 1);
            batch
                .apply(&mut ledger, Envelope { client: 0, request })
                .expect("a sequence");
            assert_eq!(batch.durability(), expected);
            assert!(batch.commit(&mut ledger).is_ok());
        }
    }
}
