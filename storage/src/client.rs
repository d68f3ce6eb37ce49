//! The way from a core to the store's threads and back.
//!
//! Owner: a [`StoreClient`] belongs to one core's thread; the [`Outlets`] are shared by the store's threads.
//! Queues: `writes` (bounded, `queue_requests_max`) to each database's committer and `reads` (bounded, `queue_reads_max`) to
//! the readers; a full one answers [`FailureKind::Overloaded`] at once, so submitting never blocks and nothing
//! is lost in silence. `replies` back to the core is unbounded, but holds at most one reply for each request that
//! was taken, in one piece for each batch. Pages can be large; whoever asks bounds them.

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

struct Outlet {
    replies: Sender<Vec<Reply>>,
    wake: Wake,
}

/// Where the replies of each client go. The lock is taken once for each batch of replies.
#[derive(Clone, Default)]
pub(crate) struct Outlets(Arc<Mutex<Vec<Arc<Outlet>>>>);

impl Outlets {
    /// Hands one batch of replies to its client and wakes it, once.
    pub(crate) fn deliver(&self, client: usize, replies: Vec<Reply>) {
        if replies.is_empty() {
            return;
        }
        let outlet = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(client)
            .cloned();
        if let Some(outlet) = outlet
            // A client that is gone wants no replies: what they acknowledge is on disk all the same.
            && outlet.replies.send(replies).is_ok()
        {
            // The core's code, on our thread: its panic must not end the store for everybody.
            if catch_unwind(AssertUnwindSafe(|| (outlet.wake)())).is_err() {
                error!(client, "waking a client of the inbox store panicked");
            }
        }
    }

    fn add(&self, wake: Wake) -> (usize, Receiver<Vec<Reply>>, Arc<Outlet>) {
        let (replies, inbound) = crossbeam_channel::unbounded();
        let outlet = Arc::new(Outlet { replies, wake });
        let mut outlets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outlets.push(Arc::clone(&outlet));
        (outlets.len() - 1, inbound, outlet)
    }
}

/// One core's handle on the store.
pub struct StoreClient {
    client: usize,
    /// By the number of the database.
    writes: Arc<[Sender<Envelope<Write>>]>,
    reads: Sender<Envelope<Read>>,
    replies: Receiver<Vec<Reply>>,
    outlet: Arc<Outlet>,
    current: std::vec::IntoIter<Reply>,
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
        let (client, replies, outlet) = outlets.add(wake);
        StoreClient {
            client,
            writes,
            reads,
            replies,
            outlet,
            current: Vec::new().into_iter(),
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
        self.current.len() > 0 || !self.refused.is_empty() || !self.replies.is_empty()
    }

    /// The next reply, if one is there.
    pub fn poll(&mut self) -> Option<Reply> {
        if let Some(reply) = self.current.next().or_else(|| self.refused.pop_front()) {
            return Some(reply);
        }
        self.current = self.replies.try_recv().ok()?.into_iter();
        self.current.next()
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
        outlets.deliver(
            0,
            vec![Reply::Burned { token: 1 }, Reply::Burned { token: 2 }],
        );
        outlets.deliver(0, Vec::new());
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        let tokens: Vec<u64> = std::iter::from_fn(|| client.poll())
            .map(|reply| reply.token())
            .collect();
        assert_eq!(tokens, [1, 2]);
    }
}
