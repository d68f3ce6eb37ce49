//! The way from a core to the store's threads and back.
//!
//! Owner: a [`StoreClient`] belongs to one core's thread.
//! Queues: [`Entrance`]s (bounded, `queue_requests_max`) to each database's committer and (`queue_reads_max`) to
//! the readers; a full one answers [`FailureKind::Overloaded`] at once, so submitting never blocks and nothing
//! is lost in silence. The way back is an [`Outlet`].
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

use crate::entrance::Entrance;
use crate::ledger::Ledger;
use crate::outlets::{Delivery, Outlet, Outlets, Wake};
use crate::request::{FailureKind, Reply, Request};
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
        user: UserHash,
        name: Box<str>,
        from: u64,
        messages_max: usize,
        bytes_max: usize,
    },
    Account {
        token: u64,
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
}

/// One core's handle on the store.
pub struct StoreClient {
    /// By the number of the database.
    writes: Arc<[Entrance<Write>]>,
    reads: Entrance<Read>,
    outlet: Arc<Outlet>,
    /// What is polled just now, and what comes after it.
    current: Delivery,
    deliveries: VecDeque<Delivery>,
    /// Answers to what was not taken; at most one for each submit since the last poll.
    refused: VecDeque<Reply>,
    refused_total: u64,
}

impl StoreClient {
    pub(crate) fn new(
        outlets: &Outlets,
        writes: Arc<[Entrance<Write>]>,
        reads: Entrance<Read>,
        wake: Wake,
    ) -> StoreClient {
        StoreClient {
            writes,
            reads,
            outlet: outlets.add(wake),
            current: Delivery::default(),
            deliveries: VecDeque::new(),
            refused: VecDeque::new(),
            refused_total: 0,
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
                self.write(user, Write::Seen { user, name, at_ms })
            }
            Request::Page {
                token,
                user,
                name,
                from,
                messages_max,
                bytes_max,
            } => self.read(Read::Page {
                token,
                user,
                name,
                from,
                messages_max,
                bytes_max,
            }),
            Request::Account { token, user, name } => {
                self.read(Read::Account { token, user, name })
            }
        };
        let Some(error) = refusal else {
            return;
        };
        self.refused_total += 1;
        if let Some(token) = token {
            self.refused.push_back(Reply::Failed { token, error });
            self.outlet.wake();
        }
    }

    /// Requests that the store did not take, since this client was made: its queue was full or it was closed.
    /// Those without a reply are among them.
    pub fn refused(&self) -> u64 {
        self.refused_total
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

    fn write(&self, user: UserHash, request: Write) -> Option<FailureKind> {
        let database = database_of(user.key(), self.writes.len());
        let client = self.outlet.client();
        let taken = self.writes[database].offer(Envelope { client, request });
        taken.err()
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
            user: UserHash(1),
            name: "a".into(),
        }
    }

    #[test]
    fn a_full_queue_is_answered_at_once() {
        let woken = Arc::new(AtomicUsize::new(0));
        let (writes, _writes_end) = Entrance::new(1);
        let (reads, reads_end) = Entrance::new(1);
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
    fn a_batch_of_replies_wakes_once_and_keeps_its_order() {
        let woken = Arc::new(AtomicUsize::new(0));
        let (writes, _writes_end) = Entrance::new(1);
        let (reads, _reads_end) = Entrance::new(1);
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
        let (writes, _writes_end) = Entrance::new(1);
        let (reads, _reads_end) = Entrance::new(1);
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
