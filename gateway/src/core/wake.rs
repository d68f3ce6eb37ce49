//! Rousing a core that sleeps, and leaving alone one that does not.
//!
//! A producer puts its work where the core will look (a lane, the store's
//! replies) and then calls [`Wake::ring`]; the core says that it is about to
//! sleep, looks once more, and sleeps. Either the producer sees that the core
//! sleeps and writes the eventfd, or the core sees the work when it looks once
//! more: both sides use sequentially consistent operations, so they cannot both
//! miss.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

/// The bell of one core.
pub struct Wake {
    eventfd: OwnedFd,
    asleep: AtomicBool,
}

impl Wake {
    pub(super) fn new() -> io::Result<Wake> {
        Ok(Wake {
            eventfd: eventfd(0, EventfdFlags::CLOEXEC)?,
            asleep: AtomicBool::new(false),
        })
    }

    /// Rouses the core if it sleeps. Costs a load if it does not.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            // A counter at its limit wakes all the same; nothing else can fail.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }

    /// The core is about to sleep: it must look at its work once more after this.
    pub(super) fn doze(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The core is up.
    pub(super) fn rise(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    pub(super) fn eventfd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}
