//! The way from a core to the store's threads and back.
//!
//! Owner: a [`StoreClient`] belongs to one core's thread.
//! Queues: [`Entrance`]s (bounded, `queue_requests_max`) to each database's committer and (`queue_reads_max`, of which
//! each party has a share) to the readers; what one has no room for is answered [`FailureKind::Overloaded`] at once,
//! and counted there, so submitting never blocks and nothing is lost in silence. The way back is an [`Outlet`].
//!
//! A core may have a real-time priority. So it must never wait in a loop for something that another thread has begun and not
//! finished: that thread may have lost its cpu to this very core. Both ways are behind locks, where waiting is sleeping.
//!
//! What an append or a burn was made of is freed by the thread that allocated it: it goes back to its core with the replies
//! of its batch, and the pieces go back to be used again. An allocator guards what others free into with locks, and a core
//! that wants such a lock waits for its holder, milliseconds where that one stands back and has lost its cpu. (What a failed
//! disk leaves undone, and what gets no reply, is freed where it ends.)

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::entrance::{Entrance, Fifo};
use crate::fair_reads::FairReads;
use crate::ledger::Ledger;
use crate::outlets::{Delivery, Outlet, Outlets, Wake};
use crate::request::{FailureKind, Party, Reply, Request};
use crate::user::{UserHash, UserKey, database_of};

/// A request and the client it came from.
pub(crate) struct Envelope<R> {
    pub(crate) client: usize,
    pub(crate) request: R,
}

/// What the committer does.
pub(crate) enum Write {
    Append {
        token: u64,
        user: UserHash,
        name: Box<str>,
        record: Vec<u8>,
    },
    Burn {
        token: u64,
        user: UserHash,
        name: Box<str>,
        head: u64,
    },
    Seen {
        user: UserHash,
        name: Box<str>,
        at_ms: u64,
    },
    /// What stands before this head has expired.
    Expire {
        user: UserHash,
        name: Box<str>,
        head: u64,
    },
    /// A write that says nothing, so that fjall has one to go by; with so many bytes of nothing.
    Beat {
        fill_bytes: usize,
        /// Hears of it once it is synced, with all that was written before.
        done: Sender<()>,
    },
    /// The database was opened again: go on with this.
    Resume(Box<Ledger>),
    /// The database has failed in the background: stop.
    GiveUp,
    /// The last thing in the queue: finish what came before, then end.
    Close,
}

impl Write {
    /// Where in a batch it goes: by user, as keys do. A beat says something of all that came before it, so it is the last.
    pub(crate) fn place(&self) -> Option<UserKey> {
        match self {
            Write::Append { user, .. }
            | Write::Burn { user, .. }
            | Write::Seen { user, .. }
            | Write::Expire { user, .. } => Some(user.key()),
            Write::Beat { .. } | Write::Resume(_) | Write::GiveUp | Write::Close => None,
        }
    }

    /// The bytes of its record.
    pub(crate) fn record_len(&self) -> u64 {
        match self {
            Write::Append { record, .. } => record.len() as u64,
            _ => 0,
        }
    }

    /// The token its reply carries, if it gets one.
    pub(crate) fn token(&self) -> Option<u64> {
        match self {
            Write::Append { token, .. } | Write::Burn { token, .. } => Some(*token),
            Write::Seen { .. }
            | Write::Expire { .. }
            | Write::Beat { .. }
            | Write::Resume(_)
            | Write::GiveUp
            | Write::Close => None,
        }
    }
}

/// What a reader does.
pub(crate) enum Read {
    Page {
        token: u64,
        party: Party,
        user: UserHash,
        name: Box<str>,
        from: u64,
        messages_max: usize,
        bytes_max: usize,
    },
    Account {
        token: u64,
        party: Party,
        user: UserHash,
        name: Box<str>,
    },
    /// One reader ends.
    Close,
}

impl Read {
    /// The token its reply carries; `None` to close.
    pub(crate) fn token(&self) -> Option<u64> {
        match self {
            Read::Page { token, .. } | Read::Account { token, .. } => Some(*token),
            Read::Close => None,
        }
    }

    /// For whom it is; `None` to close.
    pub(crate) fn party(&self) -> Option<Party> {
        match self {
            Read::Page { party, .. } | Read::Account { party, .. } => Some(*party),
            Read::Close => None,
        }
    }
}

/// One core's handle on the store.
pub struct StoreClient {
    /// By the number of the database.
    writes: Arc<[Entrance<Fifo<Write>>]>,
    reads: Entrance<FairReads>,
    outlet: Arc<Outlet>,
    /// What is polled just now, and what comes after it.
    current: Delivery,
    deliveries: VecDeque<Delivery>,
    /// Answers to what was not taken; at most one for each submit since the last poll.
    refused: VecDeque<Reply>,
}

impl StoreClient {
    pub(crate) fn new(
        outlets: &Outlets,
        writes: Arc<[Entrance<Fifo<Write>>]>,
        reads: Entrance<FairReads>,
        wake: Wake,
    ) -> StoreClient {
        StoreClient {
            writes,
            reads,
            outlet: outlets.add(wake),
            current: Delivery::default(),
            deliveries: VecDeque::new(),
            refused: VecDeque::new(),
        }
    }

    /// Queues a request. Never blocks; what the store cannot take is answered [`Reply::Failed`] by the next poll.
    pub fn submit(&mut self, request: Request) {
        let token = request.token();
        let refusal = match request {
            Request::Append {
                token,
                user,
                name,
                record,
            } => self.write(
                user,
                Write::Append {
                    token,
                    user,
                    name,
                    record,
                },
            ),
            Request::Burn {
                token,
                user,
                name,
                head,
            } => self.write(
                user,
                Write::Burn {
                    token,
                    user,
                    name,
                    head,
                },
            ),
            Request::Seen { user, name, at_ms } => {
                let refusal = self.write(user, Write::Seen { user, name, at_ms });
                if refusal.is_some() {
                    self.writes_of(user).with(|writes| writes.seen_lost += 1);
                }
                refusal
            }
            Request::Page {
                token,
                party,
                user,
                name,
                from,
                messages_max,
                bytes_max,
            } => self.read(Read::Page {
                token,
                party,
                user,
                name,
                from,
                messages_max,
                bytes_max,
            }),
            Request::Account {
                token,
                party,
                user,
                name,
            } => self.read(Read::Account {
                token,
                party,
                user,
                name,
            }),
            Request::Cancel { token, party } => {
                return self.cancel(token, party);
            }
        };
        if let (Some(error), Some(token)) = (refusal, token) {
            self.refuse(token, error);
        }
    }

    fn refuse(&mut self, token: u64, error: FailureKind) {
        self.refused.push_back(Reply::Failed { token, error });
        self.outlet.wake();
    }

    fn cancel(&mut self, token: u64, party: Party) {
        let client = self.outlet.client();
        if self.reads.with(|reads| reads.cancel(client, token, party)) {
            self.refuse(token, FailureKind::Cancelled);
        }
    }

    /// Whether [`StoreClient::poll`] would give a reply, or may.
    pub fn has_replies(&self) -> bool {
        !self.current.replies.is_empty() || !self.refused.is_empty() || self.has_deliveries()
    }

    fn has_deliveries(&self) -> bool {
        !self.deliveries.is_empty() || self.outlet.is_filled()
    }

    /// The next reply, if one is there.
    pub fn poll(&mut self) -> Option<Reply> {
        let next = self.current.replies.pop_front();
        if let Some(reply) = next.or_else(|| self.refused.pop_front()) {
            // Here, and one at a time: a batch has thousands.
            self.current.spent.pop();
            return Some(reply);
        }
        if !self.has_deliveries() {
            return None;
        }
        let mut emptied = std::mem::take(&mut self.current);
        emptied.spent.clear();
        self.outlet.take(&mut self.deliveries, emptied);
        self.current = self.deliveries.pop_front()?;
        self.current.replies.pop_front()
    }

    fn writes_of(&self, user: UserHash) -> &Entrance<Fifo<Write>> {
        &self.writes[database_of(user.key(), self.writes.len())]
    }

    fn write(&self, user: UserHash, request: Write) -> Option<FailureKind> {
        let client = self.outlet.client();
        self.writes_of(user)
            .offer(Envelope { client, request })
            .err()
    }

    fn read(&self, request: Read) -> Option<FailureKind> {
        let client = self.outlet.client();
        self.reads.offer(Envelope { client, request }).err()
    }
}

impl Drop for StoreClient {
    fn drop(&mut self) {
        self.outlet.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn account(token: u64) -> Request {
        Request::Account {
            token,
            party: Party(0),
            user: UserHash(1),
            name: "a".into(),
        }
    }

    #[test]
    fn a_full_queue_is_answered_at_once() {
        let woken = Arc::new(AtomicUsize::new(0));
        let (writes, _writes_end) = Entrance::new(Fifo::new(1));
        let (reads, reads_end) = Entrance::new(FairReads::new(1));
        let count = Arc::clone(&woken);
        let wake: Wake = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let mut client = StoreClient::new(&Outlets::default(), [writes].into(), reads, wake);
        client.submit(account(1));
        assert!(client.poll().is_none());
        client.submit(account(2));
        assert!(matches!(
            client.poll(),
            Some(Reply::Failed {
                token: 2,
                error: FailureKind::Overloaded
            })
        ));
        drop(reads_end);
        client.submit(account(3));
        assert!(matches!(
            client.poll(),
            Some(Reply::Failed {
                token: 3,
                error: FailureKind::Closed
            })
        ));
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_is_cancelled_is_answered_once_and_a_lost_last_seen_is_counted() {
        let (writes, _writes_end) = Entrance::new(Fifo::new(1));
        let (reads, reads_end) = Entrance::new(FairReads::new(9));
        let entrance = writes.clone();
        let wake: Wake = Box::new(|| {});
        let mut client = StoreClient::new(&Outlets::default(), [writes].into(), reads, wake);
        let cancel = |token| Request::Cancel {
            token,
            party: Party(0),
        };
        client.submit(account(1));
        client.submit(cancel(1));
        client.submit(cancel(1));
        assert!(matches!(
            client.poll(),
            Some(Reply::Failed {
                token: 1,
                error: FailureKind::Cancelled
            })
        ));
        client.submit(account(2));
        assert_eq!(reads_end.take().request.token(), Some(2));
        client.submit(cancel(2));
        assert!(client.poll().is_none(), "its reader will answer");
        for at_ms in 1..=3 {
            client.submit(Request::Seen {
                user: UserHash(1),
                name: "a".into(),
                at_ms,
            });
        }
        let lost = entrance.with(|writes| (writes.refused, writes.seen_lost));
        assert_eq!(lost, (2, 2));
    }

    #[test]
    fn a_batch_of_replies_wakes_once_and_keeps_its_order() {
        let woken = Arc::new(AtomicUsize::new(0));
        let (writes, _writes_end) = Entrance::new(Fifo::new(1));
        let (reads, _reads_end) = Entrance::new(FairReads::new(1));
        let outlets = Outlets::default();
        let count = Arc::clone(&woken);
        let wake: Wake = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let mut client = StoreClient::new(&outlets, [writes].into(), reads, wake);
        let of = |tokens: &[u64]| {
            let outlet = outlets.of(0).expect("its outlet");
            let mut delivery = outlet.empty();
            let replies = tokens.iter().map(|token| Reply::Burned { token: *token });
            delivery.replies.extend(replies);
            outlet.deliver(delivery);
        };
        of(&[1, 2]);
        of(&[]);
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        let tokens: Vec<u64> = std::iter::from_fn(|| client.poll())
            .map(|reply| reply.token())
            .collect();
        assert_eq!(tokens, [1, 2]);
    }

    #[test]
    fn what_requests_were_made_of_comes_back_and_deliveries_go_round() {
        let (writes, _writes_end) = Entrance::new(Fifo::new(1));
        let (reads, _reads_end) = Entrance::new(FairReads::new(1));
        let outlets = Outlets::default();
        let wake: Wake = Box::new(|| {});
        let mut client = StoreClient::new(&outlets, [writes].into(), reads, wake);
        let deliver = |spent: usize| {
            let outlet = outlets.of(0).expect("its outlet");
            let mut delivery = outlet.empty();
            assert!(delivery.replies.is_empty() && delivery.spent.is_empty());
            let room = delivery.spent.capacity();
            delivery.replies.push_back(Reply::Burned { token: 1 });
            delivery.spent.resize(spent, ("a".into(), vec![1]));
            outlet.deliver(delivery);
            room
        };
        assert_eq!(deliver(100), 0);
        assert_eq!(deliver(1), 0, "the first is not emptied yet");
        while client.poll().is_some() {}
        assert!(deliver(1) >= 100, "the first is used again");
    }
}
