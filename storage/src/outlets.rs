//! The way back: what the store's threads hand to each core.
//!
//! Owner: all threads of the store and the core share an [`Outlet`]; its lock is held for as long as it takes to move a
//! pointer or two, and waiting for it is sleeping. Invariant: replies come out in the order they were put in.
//!
//! It is unbounded, but holds at most one reply for each request that was taken, in one piece for each sync. Pages can be
//! large; whoever asks bounds them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::error;

use crate::request::Reply;

/// Called after replies were queued. It must not block.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// Deliveries that wait to be filled again, for each client: one is filled while the other is on its way. Those of
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

/// Where the replies of one client go.
pub(crate) struct Outlet {
    client: usize,
    exchange: Mutex<Exchange>,
    /// There is something in the exchange. Set after it is put there, so that whoever sees it mostly finds the lock free.
    filled: AtomicBool,
    wake: Wake,
}

/// What a core and the store's threads hand each other.
#[derive(Default)]
struct Exchange {
    deliveries: VecDeque<Delivery>,
    emptied: Vec<Delivery>,
    /// The client wants no more.
    gone: bool,
}

impl Outlet {
    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client's number.
    pub(crate) fn client(&self) -> usize {
        self.client
    }

    /// An empty delivery: one that the client has emptied, if there is any.
    pub(crate) fn empty(&self) -> Delivery {
        self.exchange().emptied.pop().unwrap_or_default()
    }

    /// Hands one batch of replies to the client and wakes it, once.
    pub(crate) fn deliver(&self, delivery: Delivery) {
        if delivery.replies.is_empty() {
            return;
        }
        {
            let mut exchange = self.exchange();
            if exchange.gone {
                // It wants no replies: what they acknowledge is on disk all the same.
                return;
            }
            exchange.deliveries.push_back(delivery);
        }
        self.filled.store(true, Ordering::Release);
        self.wake();
    }

    /// Wakes the client.
    pub(crate) fn wake(&self) {
        // The core's code, on our thread: its panic must not end the store for everybody.
        if catch_unwind(AssertUnwindSafe(|| (self.wake)())).is_err() {
            error!(
                client = self.client,
                "waking a client of the inbox store panicked"
            );
        }
    }

    /// Whether something was delivered that the client has not taken, or may have been.
    pub(crate) fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// The client takes what was delivered, behind what it has, and gives one delivery back that it has emptied.
    pub(crate) fn take(&self, deliveries: &mut VecDeque<Delivery>, emptied: Delivery) {
        // Before the lock: what is put there later is told of again.
        self.filled.swap(false, Ordering::AcqRel);
        let mut exchange = self.exchange();
        deliveries.append(&mut exchange.deliveries);
        // A reader's delivery has room for one reply.
        if emptied.replies.capacity() > 1 && exchange.emptied.len() < EMPTIED_MAX {
            exchange.emptied.push(emptied);
        }
    }

    /// The client is gone.
    pub(crate) fn leave(&self) {
        let mut exchange = self.exchange();
        exchange.gone = true;
        exchange.deliveries.clear();
    }
}

/// The outlets of all clients.
#[derive(Clone, Default)]
pub(crate) struct Outlets(Arc<Mutex<Vec<Arc<Outlet>>>>);

impl Outlets {
    fn all(&self) -> MutexGuard<'_, Vec<Arc<Outlet>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That of a client.
    pub(crate) fn of(&self, client: usize) -> Option<Arc<Outlet>> {
        self.all().get(client).cloned()
    }

    /// One for a further client.
    pub(crate) fn add(&self, wake: Wake) -> Arc<Outlet> {
        let mut outlets = self.all();
        let outlet = Arc::new(Outlet {
            client: outlets.len(),
            exchange: Mutex::default(),
            filled: AtomicBool::new(false),
            wake,
        });
        outlets.push(Arc::clone(&outlet));
        outlet
    }
}
