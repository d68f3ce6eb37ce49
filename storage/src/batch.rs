//! One batch in the making: requests go in, one write to the database and its replies come out.
//!
//! Owner: the committer. Invariants: the replies are kept back until the batch is synced, and every one of
//! them turns into a failure if it is not; requests take effect in the order they come in; a user's account is
//! written at most once, with everything the batch did to it.

use std::io;
use std::time::Instant;

use crossbeam_channel::Sender;
use fjall::{OwnedWriteBatch, PersistMode, Slice, Snapshot};

use crate::account::Tail;
use crate::answers::unwritable;
use crate::client::{Envelope, Write};
use crate::clock;
use crate::ledger::{self, Ledger};
use crate::outlets::Spent;
use crate::pace::LastBatch;
use crate::record;
use crate::request::{FailureKind, Reply};
use crate::room::Incoming;
use crate::totals::{TOTALS_KEY, Totals};
use crate::user::{BEAT_KEY, UserHash, UserKey, message_key};
use crate::written::{Answer, Tally, Written};

/// Messages of an inbox after which its account tells the tail again: the merge of tables destroys what has expired
/// only before a tail that is told.
const TELL_EVERY: u64 = 64;

/// What became of a request.
pub(crate) enum Step {
    Taken,
    /// It needs what this batch wrote to be in the database: commit first, then ask again.
    NotYet(Envelope<Write>),
}

/// A batch.
pub(crate) struct Batch {
    pub(crate) snapshot: Snapshot,
    write: OwnedWriteBatch,
    pub(crate) number: u64,
    /// When it was begun, Unix milliseconds: for expiry.
    pub(crate) now_ms: u64,
    /// As the database has them.
    totals_before: Totals,
    answers: Vec<Answer>,
    /// What the requests were made of, for their clients.
    spent: Vec<(usize, Spent)>,
    dirty: Vec<UserKey>,
    /// Who waits for a beat.
    beats: Vec<Sender<()>>,
    /// Something was promised that only a sync can keep.
    pub(crate) needs_sync: bool,
    /// Of records and beats, about what it takes in the journal.
    bytes: u64,
    pub(crate) tally: Tally,
}

impl Batch {
    /// `number` is unique to the batch and not 0.
    pub(crate) fn new(ledger: &Ledger, number: u64, requests: usize) -> Batch {
        Batch {
            snapshot: ledger.tables.database.snapshot(),
            write: OwnedWriteBatch::with_capacity(ledger.tables.database.clone(), requests),
            number,
            now_ms: clock::now_ms(),
            totals_before: ledger.totals,
            answers: Vec::with_capacity(requests),
            spent: Vec::with_capacity(requests),
            dirty: Vec::new(),
            beats: Vec::new(),
            needs_sync: false,
            bytes: 0,
            tally: Tally::default(),
        }
    }

    /// Takes a request into the batch; `number` says when it came.
    ///
    /// # Errors
    /// If no sequence is to be had. The request is answered as failed, and the batch must not be committed.
    pub(crate) fn apply(
        &mut self,
        ledger: &mut Ledger,
        number: u64,
        envelope: Envelope<Write>,
    ) -> io::Result<Step> {
        let client = envelope.client;
        self.tally.requests += 1;
        match envelope.request {
            Write::Append {
                token,
                user,
                name,
                mut record,
            } => {
                let reply = match self.append(ledger, user, &name, &mut record) {
                    Ok(Some(sequence)) => Reply::Appended { token, sequence },
                    Ok(None) => {
                        self.tally.requests -= 1;
                        let request = Write::Append {
                            token,
                            user,
                            name,
                            record,
                        };
                        return Ok(Step::NotYet(Envelope { client, request }));
                    }
                    Err(Refusal::Request(error)) => Reply::Failed { token, error },
                    Err(Refusal::Sequence(error)) => {
                        self.answer(number, client, unwritable(token));
                        return Err(error);
                    }
                };
                self.answer(number, client, reply);
                self.spent.push((client, (name, record)));
            }
            Write::Burn {
                token,
                user,
                name,
                head,
            } => match self.pass(ledger, user, &name, head) {
                Ok(Some(burned)) => {
                    self.tally.burned += burned;
                    self.answer(number, client, Reply::Burned { token });
                    self.spent.push((client, (name, Vec::new())));
                }
                Ok(None) => {
                    self.tally.requests -= 1;
                    let request = Write::Burn {
                        token,
                        user,
                        name,
                        head,
                    };
                    return Ok(Step::NotYet(Envelope { client, request }));
                }
                Err(error) => self.answer(number, client, Reply::Failed { token, error }),
            },
            Write::Seen { user, name, at_ms } => self.seen(ledger, user, &name, at_ms),
            Write::Expire { user, name, head } => {
                match self.pass(ledger, user, &name, head) {
                    Ok(Some(expired)) => self.tally.expired += expired,
                    Ok(None) => {
                        self.tally.requests -= 1;
                        let request = Write::Expire { user, name, head };
                        return Ok(Step::NotYet(Envelope { client, request }));
                    }
                    // It is found again in the next pass, or shows when its user comes.
                    Err(_) => {}
                }
            }
            Write::Beat { fill_bytes, done } => {
                let beat = Slice::new(BEAT_KEY);
                self.write
                    .insert(&ledger.tables.messages, beat, vec![0; fill_bytes]);
                // With it all that came before is durable: who waits for a beat is about to destroy what is burned.
                self.needs_sync = true;
                self.bytes += fill_bytes as u64;
                self.beats.push(done);
            }
            // The committer's own affairs.
            Write::Resume(_) | Write::GiveUp | Write::Close => {}
        }
        Ok(Step::Taken)
    }

    /// Answers an append without doing it.
    pub(crate) fn refuse(
        &mut self,
        number: u64,
        client: usize,
        token: u64,
        (error, spent): (FailureKind, Spent),
    ) {
        self.tally.requests += 1;
        self.answer(number, client, Reply::Failed { token, error });
        self.spent.push((client, spent));
    }

    /// As the one that was written last, which the next may have to wait after.
    pub(crate) fn as_last(&self, began: Instant) -> LastBatch {
        LastBatch {
            began,
            messages: self.tally.appended,
            bytes: self.bytes,
        }
    }

    fn answer(&mut self, number: u64, client: usize, reply: Reply) {
        self.answers.push(Answer {
            number,
            client,
            reply,
        });
    }

    /// Writes the batch: from here on the database shows it, and a sync makes it durable. `began`: when its writing was.
    pub(crate) fn commit(
        mut self,
        ledger: &mut Ledger,
        began: Instant,
    ) -> Result<Written, Uncommitted> {
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
        if ledger.totals != self.totals_before {
            self.write
                .insert(users, Slice::new(TOTALS_KEY), ledger.totals.encode());
        }
        let write = self.write.durability(Some(PersistMode::Buffer));
        let committed = write.commit().and_then(|()| Ok(ledger.journal.look()?));
        let stand = match committed {
            Ok(stand) => stand,
            Err(error) => {
                return Err(Uncommitted {
                    error,
                    answers: self.answers,
                });
            }
        };
        // An open snapshot keeps files from being deleted, which is what beats are for.
        drop(self.snapshot);
        // As the requests came: what the clients remember of them lies side by side.
        self.answers.sort_unstable_by_key(|answer| answer.number);
        Ok(Written {
            answers: self.answers,
            spent: self.spent,
            beats: self.beats,
            tally: self.tally,
            needs_sync: self.needs_sync,
            bytes: self.bytes,
            began,
            stand,
            next_seqno: ledger.tables.database.visible_seqno(),
            seqnos: ledger.tables.seqnos_in_memory(),
            totals: ledger.totals,
            tail_misses: ledger.tail_misses,
        })
    }

    /// Gives the batch up: the answers it would have given.
    pub(crate) fn abandon(self) -> Vec<Answer> {
        self.answers
    }

    /// `None`: the batch must be committed first.
    fn append(
        &mut self,
        ledger: &mut Ledger,
        user: UserHash,
        name: &str,
        record: &mut [u8],
    ) -> Result<Option<u64>, Refusal> {
        let key = user.key();
        let record_len = record.len() as u64;
        let sender = ledger.names.sender(record);
        let sender = sender.ok_or(FailureKind::BadRequest)?;
        let incoming = Incoming { sender, record_len };
        let is_known = ledger.find(&self.snapshot, key, name)?;
        if !self.make_room(ledger, key, is_known, incoming)? {
            return Ok(None);
        }
        if !is_known {
            ledger.welcome(key, name);
            self.touch(ledger, key);
        }
        let tail = ledger
            .tails
            .recall(key)
            .expect("found or remembered above, and nothing is forgotten in a batch")
            .tail;
        let ordinal = tail
            .ordinal
            .checked_add(1)
            .expect("nobody gets 2^64 messages");
        let cumulative_bytes = tail.cumulative_bytes + record_len;
        record::seal(record, ordinal, cumulative_bytes).map_err(|_| FailureKind::BadRequest)?;
        ledger.admit(sender, record_len)?;
        let sequence = ledger.sequences.next().map_err(Refusal::Sequence)?;
        ledger.totals.last_sequence = sequence;
        if let Some(inbox) = ledger.tails.recall(key) {
            inbox.tail = Tail {
                sequence,
                ordinal,
                cumulative_bytes,
            };
            inbox.tail_unwritten = true;
            inbox.appended_in = self.number;
            if let Some(senders) = &mut inbox.senders {
                senders.admit(sender, record_len);
            }
        }
        if ordinal.is_multiple_of(TELL_EVERY) {
            self.touch(ledger, key);
        }
        self.needs_sync = true;
        self.bytes += record_len;
        self.tally.appended += 1;
        self.tally.appended_bytes += record_len;
        self.write.insert(
            &ledger.tables.messages,
            Slice::new(&message_key(key, sequence)),
            Slice::new(record),
        );
        Ok(Some(sequence))
    }

    /// Moves a head on; says how many messages it passed. `None`: the batch must be committed first.
    fn pass(
        &mut self,
        ledger: &mut Ledger,
        user: UserHash,
        name: &str,
        head: u64,
    ) -> Result<Option<u64>, FailureKind> {
        let key = user.key();
        // A head that stands there already is durable before, or with this batch.
        if !ledger.find(&self.snapshot, key, name)? {
            return Ok(Some(0));
        }
        let gone = self.move_head(ledger, key, head)?;
        Ok(gone.map(|gone| gone.messages))
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

    pub(crate) fn touch(&mut self, ledger: &mut Ledger, user: UserKey) {
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
    pub(crate) answers: Vec<Answer>,
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
mod tests;
