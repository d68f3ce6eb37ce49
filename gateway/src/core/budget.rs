//! The budgets of the process: what the shards of all cores lease from.
//!
//! Shared by the cores: two atomics, touched once for each step that a shard leases or gives back, and read once a
//! turn. Whoever makes a budget short rouses the other cores, whose connections may hold most of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Shared, Wake};
use crate::shard::budget::{Budget, Budgets, Lessor};

/// One budget of the process.
pub struct ProcessBudget {
    max: u64,
    leased: AtomicU64,
}

impl ProcessBudget {
    pub(super) fn new(max: u64) -> ProcessBudget {
        ProcessBudget {
            max,
            leased: AtomicU64::new(0),
        }
    }

    /// Bytes that shards have leased.
    pub fn leased(&self) -> u64 {
        self.leased.load(Ordering::Relaxed)
    }

    /// Bytes there are.
    pub fn max(&self) -> u64 {
        self.max
    }
}

/// A shard's way to one of them.
struct Lease {
    shared: Arc<Shared>,
    budget: fn(&Shared) -> &ProcessBudget,
}

impl Lessor for Lease {
    fn lease(&self, bytes: u64) {
        let budget = (self.budget)(&self.shared);
        let before = budget.leased.fetch_add(bytes, Ordering::Relaxed);
        let half = budget.max / 2;
        if before <= half && before + bytes > half {
            self.shared.wakes.iter().for_each(Wake::ring);
        }
    }

    fn give_back(&self, bytes: u64) {
        let budget = (self.budget)(&self.shared);
        budget.leased.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn leased(&self) -> u64 {
        (self.budget)(&self.shared).leased()
    }

    fn max(&self) -> u64 {
        (self.budget)(&self.shared).max
    }

    fn connections(&self, _own: u64) -> u64 {
        self.shared.connections.load(Ordering::Relaxed) as u64
    }
}

/// The part of one shard.
pub fn budgets(shared: &Arc<Shared>) -> Budgets {
    let of = |budget| {
        Budget::new(Box::new(Lease {
            shared: Arc::clone(shared),
            budget,
        }))
    };
    Budgets {
        input: of(|shared| &shared.input),
        output: of(|shared| &shared.output),
    }
}
