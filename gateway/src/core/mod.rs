//! One core: an executor pinned to a cpu, its net rings, its shard, its lanes.
//!
//! The files in the order of a message: `driver` turns the loop, `segments` owns
//! the rings that hand over bytes, `accepting` lets connections in, `addresses` bounds
//! what one address has, `completions` gives the shard what the rings have, `perform`
//! does what the shard asks, `timing` says what is due, `sockets` knows each
//! connection's socket, `handover` moves one to another core, `endings` closes one,
//! `sweep` finds those that have ended unheard, `lanes` carries batches to other cores, `wake` rouses a
//! core that sleeps, `executor` is the only file that knows glommio.
//!
//! Owner of everything here: the thread of its core, but for [`Shared`], which
//! all cores read.

mod accepting;
mod addresses;
mod budget;
mod completions;
mod driver;
mod endings;
mod executor;
mod handover;
mod lanes;
mod perform;
mod precedence;
mod segments;
mod sockets;
mod sweep;
#[cfg(test)]
mod tests;
mod timing;
mod wake;

use std::os::fd::RawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use addresses::{Addresses, Place};

pub use addresses::AddressLimits;
pub use budget::{ProcessBudget, budgets};
pub use driver::{Core, CoreOptions};
pub use executor::{CoreHandle, start};
pub use lanes::{Lanes, mesh};
pub use wake::Wake;

/// What all cores of a process know of each other.
pub struct Shared {
    /// How to rouse each core.
    pub wakes: Vec<Wake>,
    /// The net rings of each core, for moving sockets there. Taken once for each
    /// ring opened and once for each move that missed, never for a message.
    rings: Vec<Mutex<Vec<RawFd>>>,
    /// Cores that have a ring, so that sockets can be moved to them.
    up: AtomicUsize,
    /// Connections of the process.
    connections: AtomicUsize,
    /// Most connections of the process.
    connections_max: usize,
    /// Where their peers are. Taken at the accept and the end of a connection, and for a failed login.
    addresses: Addresses,
    /// Memory for input that is not acted upon yet.
    pub input: ProcessBudget,
    /// Memory for outboxes.
    pub output: ProcessBudget,
    /// A drain was asked for.
    draining: AtomicBool,
    /// Which cores have no connection left while draining, or have ended.
    drained: Vec<AtomicBool>,
}

impl Shared {
    /// For a process of so many cores, at most so many connections, and so much memory for their input and output.
    ///
    /// # Errors
    /// If the kernel gives no eventfd.
    pub fn new(
        cores: usize,
        connections_max: usize,
        of_address: AddressLimits,
        input_bytes_max: u64,
        output_bytes_max: u64,
    ) -> std::io::Result<Shared> {
        Ok(Shared {
            input: ProcessBudget::new(input_bytes_max),
            output: ProcessBudget::new(output_bytes_max),
            wakes: (0..cores).map(|_| Wake::new()).collect::<Result<_, _>>()?,
            rings: (0..cores).map(|_| Mutex::default()).collect(),
            up: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            connections_max,
            addresses: Addresses::new(of_address),
            draining: AtomicBool::new(false),
            drained: (0..cores).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    /// Asks every core to drain.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wakes.iter().for_each(Wake::ring);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Notes that this core has nothing left to give to others.
    fn core_is_drained(&self, core: usize) {
        self.drained[core].store(true, Ordering::Release);
        self.wakes.iter().for_each(Wake::ring);
    }

    fn all_drained(&self) -> bool {
        self.drained
            .iter()
            .all(|drained| drained.load(Ordering::Acquire))
    }

    /// Takes a place for one more connection, if there is one.
    fn admit_connection(&self) -> bool {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        if before >= self.connections_max {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// A connection from there has ended.
    fn release_connection(&self, place: Place) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.addresses.release(place);
    }

    fn publish_ring(&self, core: usize, fd: RawFd) {
        let mut rings = self.rings[core]
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        rings.push(fd);
        let is_first = rings.len() == 1;
        drop(rings);
        if is_first && self.up.fetch_add(1, Ordering::Release) + 1 == self.rings.len() {
            self.wakes.iter().for_each(Wake::ring);
        }
    }

    /// Whether every core can take a connection that moves to it.
    fn all_up(&self) -> bool {
        self.up.load(Ordering::Acquire) == self.rings.len()
    }

    fn rings_of(&self, core: usize) -> Vec<RawFd> {
        self.rings[core]
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}
