//! Memory of which the process has so much for all its cores: input that is not acted upon, outboxes.
//!
//! Owner: a shard has its own [`Budget`] of each kind and leases for it, in steps, from what all shards share. Between
//! two steps it counts by itself, so that what is shared is touched once for each step and never for a message.
//!
//! Invariants: what is counted is memory (capacity, not the bytes in it), what pools keep included. The first half of
//! a budget is for whoever needs it. Of the second half each connection has an equal share: while more than half is
//! leased, a budget is *short*, and a connection above its share gets no more. So all together stay within the whole,
//! and whoever asks for little gets it, whatever others hold.

/// What all shards share of a budget.
pub trait Lessor {
    /// Notes that a shard has leased so many bytes more.
    fn lease(&self, bytes: u64);
    /// Notes that a shard has given so many bytes back.
    fn give_back(&self, bytes: u64);
    /// Bytes leased by all shards.
    fn leased(&self) -> u64;
    /// Bytes there are for all of them.
    fn max(&self) -> u64;
    /// Connections of all shards, for one that has so many itself.
    fn connections(&self, own: u64) -> u64;
}

/// Steps to a budget: so many that what shards have leased and do not use is little of it.
const STEPS: u64 = 1024;
/// Shortest and longest step. Longer ones would not make what is shared be touched noticeably less often.
const STEP_BYTES_MIN: u64 = 64;
const STEP_BYTES_MAX: u64 = 256 << 10;
/// The part of a budget that is left when it counts as full, and by shares: for what is on its way into it, and for what
/// is held besides what is counted for a share.
const LAST_PART: u64 = 16;
/// Steps that are kept for what comes next.
const SPARE_STEPS: u64 = 2;

/// What one shard has of a budget.
pub struct Budget {
    lessor: Box<dyn Lessor>,
    step: u64,
    leased: u64,
    used: u64,
    short: bool,
    full: bool,
    over: bool,
}

impl Budget {
    /// A shard's part, nothing of it used.
    pub fn new(lessor: Box<dyn Lessor>) -> Budget {
        Budget {
            step: (lessor.max() / STEPS).clamp(STEP_BYTES_MIN, STEP_BYTES_MAX),
            lessor,
            leased: 0,
            used: 0,
            short: false,
            full: false,
            over: false,
        }
    }

    /// Counts so many bytes as used.
    #[inline(always)]
    pub(super) fn charge(&mut self, bytes: u64) {
        self.used += bytes;
        if self.used > self.leased {
            self.lease();
        }
    }

    /// Counts so many bytes as used no more.
    #[inline(always)]
    pub(super) fn release(&mut self, bytes: u64) {
        self.used -= bytes;
        if self.leased - self.used > (SPARE_STEPS + 1) * self.step {
            self.keep_spare(SPARE_STEPS);
        }
    }

    #[cold]
    fn lease(&mut self) {
        let more = (self.used - self.leased).next_multiple_of(self.step);
        self.leased += more;
        self.lessor.lease(more);
        self.look();
    }

    /// Gives back all but so many steps more than are used.
    #[cold]
    fn keep_spare(&mut self, steps: u64) {
        let kept = self.used.next_multiple_of(self.step) + steps * self.step;
        let back = self.leased.saturating_sub(kept);
        if back > 0 {
            self.leased -= back;
            self.lessor.give_back(back);
        }
        self.look();
    }

    /// Looks at what all shards have, as is done once a turn. Who is short keeps nothing to spare.
    pub(super) fn look(&mut self) {
        let (leased, max) = (self.lessor.leased(), self.lessor.max());
        self.short = leased > max / 2;
        self.full = leased > max - max / LAST_PART;
        self.over = leased > max;
        if self.short && self.leased - self.used > self.step {
            self.keep_spare(0);
        }
    }

    /// Whether more than half of the budget was leased when that was looked at last.
    #[inline(always)]
    pub(super) fn is_short(&self) -> bool {
        self.short
    }

    /// Whether nearly all of it was leased then.
    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Whether more than there is was leased then.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Bytes there are for all shards.
    pub(super) fn max(&self) -> u64 {
        self.lessor.max()
    }

    /// What one connection may have while the budget is short.
    pub(super) fn share(&self, own_connections: usize) -> u64 {
        let connections = self.lessor.connections(own_connections as u64);
        let max = self.lessor.max();
        (max / 2 - max / LAST_PART) / connections.max(1)
    }

    /// Bytes this shard uses.
    pub(super) fn used(&self) -> u64 {
        self.used
    }
}

/// The budgets a shard is given.
pub struct Budgets {
    /// Of input that is not acted upon yet.
    pub input: Budget,
    /// Of outboxes.
    pub output: Budget,
}

/// For a shard that shares its budgets with nobody.
pub mod alone {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::{Budget, Budgets, Lessor};

    /// What shards of one thread share.
    #[derive(Clone, Default)]
    pub struct Plain {
        /// Bytes there are.
        pub max: Rc<Cell<u64>>,
        /// Bytes leased.
        pub leased: Rc<Cell<u64>>,
        /// Connections of all of them, if there are several.
        pub connections: Rc<Cell<u64>>,
    }

    impl Lessor for Plain {
        fn lease(&self, bytes: u64) {
            self.leased.set(self.leased.get() + bytes);
        }

        fn give_back(&self, bytes: u64) {
            self.leased.set(self.leased.get() - bytes);
        }

        fn leased(&self) -> u64 {
            self.leased.get()
        }

        fn max(&self) -> u64 {
            self.max.get()
        }

        fn connections(&self, own: u64) -> u64 {
            self.connections.get().max(own)
        }
    }

    /// Budgets of so many bytes for input and outboxes.
    pub fn budgets(input_bytes_max: u64, output_bytes_max: u64) -> Budgets {
        let of = |max| {
            Budget::new(Box::new(Plain {
                max: Rc::new(Cell::new(max)),
                ..Plain::default()
            }))
        };
        Budgets {
            input: of(input_bytes_max),
            output: of(output_bytes_max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::alone::Plain;
    use super::*;

    fn two_of(max: u64) -> (Budget, Budget, Plain) {
        let plain = Plain::default();
        plain.max.set(max);
        plain.connections.set(10);
        let of = || Budget::new(Box::new(plain.clone()));
        (of(), of(), plain)
    }

    #[test]
    fn what_is_shared_is_touched_once_a_step() {
        let (mut one, _, plain) = two_of(64 << 20);
        one.charge(1);
        assert_eq!(plain.leased(), 64 << 10);
        for _ in 0..100 {
            one.charge(600);
            one.release(600);
        }
        assert_eq!(plain.leased(), 64 << 10);
        one.charge(200 << 10);
        assert_eq!(plain.leased(), 256 << 10);
        one.release(200 << 10);
        assert_eq!(
            plain.leased(),
            192 << 10,
            "a little is kept for what comes next"
        );
        one.release(1);
        one.charge(1);
        assert_eq!(plain.leased(), 192 << 10);
    }

    #[test]
    fn all_are_short_when_one_has_more_than_half() {
        let (mut one, mut other, plain) = two_of(1 << 20);
        other.charge(10);
        one.charge(600 << 10);
        assert!(one.is_short());
        assert!(!other.is_short(), "it has not looked");
        other.look();
        assert!(other.is_short());
        assert_eq!(other.share(3), (448 << 10) / 10);
        one.release(500 << 10);
        other.look();
        assert!(!one.is_short() && !other.is_short());
        assert_eq!((one.used(), other.used()), (100 << 10, 10));
        one.release(100 << 10);
        other.release(10);
        assert!(plain.leased() <= 2 * (SPARE_STEPS + 1) * 1024);
    }
}
