//! The way from a core to the store's threads and back.
//!
//! Owner: a [`StoreClient`] belongs to one core's thread; the [`Outlets`] are shared by the store's threads.
//! Queues: `writes` (bounded, `queue_requests_max`) to each database's committer and `reads` (bounded, `queue_reads_max`) to
//! the readers; a full one answers [`FailureKind::Overloaded`] at once, so submitting never blocks and nothing
//! is lost in silence. `replies` back to the core is unbounded, but holds at most one reply for each request that
//! was taken, in one piece for each sync. Pages can be large; whoever asks bounds them. `emptied` gives up to
//! [`EMPTIED_MAX`] pieces back to be filled again.
//!
//! What an append or a burn was made of is freed by the thread that allocated it: it goes back to its core with the replies
//! of its batch, and the pieces go back to be used again. An allocator guards what others free into with locks, and a core
//! that wants such a lock waits for its holder, milliseconds where that one stands back and has lost its cpu. (What a failed
//! disk leaves undone, and what gets no reply, is freed where it ends.)

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use tracing::error;

use crate::ledger::Ledger;
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

/// Called after replies were queued. It must not block.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// Pieces of replies that wait to be filled again, for each client: one is filled while the other is on its way. Those of
/// further databases are let go of.
const EMPTIED_MAX: usize = 2;

/// What a request was made of: its name and its record.
pub(crate) type Spent = (Box<str>, Vec<u8>);

/// The replies of one batch to one client, and what its requests were made of.
#[derive(Default)]
pub(crate) struct Delivery {
    pub(crate) replies: VecDeque<Reply>,
    pub(crate) spent: Vec<Spent>,
}

struct Outlet {
    replies: Sender<Delivery>,
    emptied: Receiver<Delivery>,
    wake: Wake,
}

/// Where the replies of each client go. The lock is taken twice for each piece of replies.
#[derive(Clone, Default)]
pub(crate) struct Outlets(Arc<Mutex<Vec<Arc<Outlet>>>>);

impl Outlets {
    fn of(&self, client: usize) -> Option<Arc<Outlet>> {
        let outlets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outlets.get(client).cloned()
    }

    /// An empty delivery for a client: one that it has emptied, if there is any.
    pub(crate) fn empty(&self, client: usize) -> Delivery {
        let emptied = self.of(client).map(|outlet| outlet.emptied.try_recv());
        emptied.and_then(Result::ok).unwrap_or_default()
    }

    /// Hands one batch of replies to its client and wakes it, once.
    pub(crate) fn deliver(&self, client: usize, delivery: Delivery) {
        if delivery.replies.is_empty() {
            return;
        }
        if let Some(outlet) = self.of(client)
            // A client that is gone wants no replies: what they acknowledge is on disk all the same.
            && outlet.replies.send(delivery).is_ok()
        {
            // The core's code, on our thread: its panic must not end the store for everybody.
            if catch_unwind(AssertUnwindSafe(|| (outlet.wake)())).is_err() {
                error!(client, "waking a client of the inbox store panicked");
            }
        }
    }

    fn add(&self, outlet: Arc<Outlet>) -> usize {
        let mut outlets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outlets.push(outlet);
        outlets.len() - 1
    }
}

/// One core's handle on the store.
pub struct StoreClient {
    client: usize,
    /// By the number of the database.
    writes: Arc<[Sender<Envelope<Write>>]>,
    reads: Sender<Envelope<Read>>,
    replies: Receiver<Delivery>,
    emptied: Sender<Delivery>,
    outlet: Arc<Outlet>,
    /// What is polled just now.
    current: Delivery,
    /// Answers to what was not taken; at most one for each submit since the last poll.
    refused: VecDeque<Reply>,
    refused_total: u64,
}

impl StoreClient {
    pub(crate) fn new(
        outlets: &Outlets,
        writes: Arc<[Sender<Envelope<Write>>]>,
        reads: Sender<Envelope<Read>>,
        wake: Wake,
    ) -> StoreClient {
        let (replies_in, replies) = crossbeam_channel::unbounded();
        let (emptied, emptied_out) = crossbeam_channel::bounded(EMPTIED_MAX);
        let outlet = Arc::new(Outlet {
            replies: replies_in,
            emptied: emptied_out,
            wake,
        });
        StoreClient {
            client: outlets.add(Arc::clone(&outlet)),
            writes,
            reads,
            replies,
            emptied,
            outlet,
            current: Delivery::default(),
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
            (self.outlet.wake)();
        }
    }

    /// Requests that the store did not take, since this client was made: its queue was full or it was closed.
    /// Those without a reply are among them.
    pub fn refused(&self) -> u64 {
        self.refused_total
    }

    /// Whether [`StoreClient::poll`] would give a reply.
    pub fn has_replies(&self) -> bool {
        !self.current.replies.is_empty() || !self.refused.is_empty() || !self.replies.is_empty()
    }

    /// The next reply, if one is there.
    pub fn poll(&mut self) -> Option<Reply> {
        let next = self.current.replies.pop_front();
        if let Some(reply) = next.or_else(|| self.refused.pop_front()) {
            // Here, and one at a time: a batch has thousands.
            self.current.spent.pop();
            return Some(reply);
        }
        let next = self.replies.try_recv().ok()?;
        let mut emptied = std::mem::replace(&mut self.current, next);
        emptied.spent.clear();
        if emptied.replies.capacity() > 0 {
            // If it is not wanted it ends here.
            let _unwanted = self.emptied.try_send(emptied);
        }
        self.current.replies.pop_front()
    }

    fn write(&self, user: UserHash, request: Write) -> Option<FailureKind> {
        let database = database_of(user.key(), self.writes.len());
        refusal(self.writes[database].try_send(Envelope {
            client: self.client,
            request,
        }))
    }

    fn read(&self, request: Read) -> Option<FailureKind> {
        refusal(self.reads.try_send(Envelope {
            client: self.client,
            request,
        }))
    }
}

fn refusal<R>(result: Result<(), TrySendError<Envelope<R>>>) -> Option<FailureKind> {
    match result {
        Ok(()) => None,
        Err(TrySendError::Full(_)) => Some(FailureKind::Overloaded),
        Err(TrySendError::Disconnected(_)) => Some(FailureKind::Closed),
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
        let (writes, _writes_end) = crossbeam_channel::bounded(1);
        let (reads, reads_end) = crossbeam_channel::bounded(1);
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
        let (writes, _writes_end) = crossbeam_channel::bounded(1);
        let (reads, _reads_end) = crossbeam_channel::bounded(1);
        let outlets = Outlets::default();
        let count = Arc::clone(&woken);
        let wake: Wake = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let mut client = StoreClient::new(&outlets, [writes].into(), reads, wake);
        let of = |tokens: &[u64]| {
            let mut delivery = outlets.empty(0);
            let replies = tokens.iter().map(|token| Reply::Burned { token: *token });
            delivery.replies.extend(replies);
            outlets.deliver(0, delivery);
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
        let (writes, _writes_end) = crossbeam_channel::bounded(1);
        let (reads, _reads_end) = crossbeam_channel::bounded(1);
        let outlets = Outlets::default();
        let wake: Wake = Box::new(|| {});
        let mut client = StoreClient::new(&outlets, [writes].into(), reads, wake);
        let deliver = |spent: usize| {
            let mut delivery = outlets.empty(0);
            assert!(delivery.replies.is_empty() && delivery.spent.is_empty());
            let room = delivery.spent.capacity();
            delivery.replies.push_back(Reply::Burned { token: 1 });
            delivery.spent.resize(spent, ("a".into(), vec![1]));
            outlets.deliver(0, delivery);
            room
        };
        assert_eq!(deliver(100), 0);
        assert_eq!(deliver(1), 0, "the first is not emptied yet");
        while client.poll().is_some() {}
        assert!(deliver(1) >= 100, "the first is used again");
    }
}
