//! Deliveries that a reader has been sent, has not acknowledged, and that need no memory of
//! their own any more: all of them are in the store. What is left to know is how far an
//! acknowledgement of one of them burns the inbox. A framed reader acknowledges them by their
//! numbers, the TCP of a classic one by their places in the stream: numbers here are either.
//!
//! Owner: the outbox of the reader's connection. Invariants: at most [`STEPS_MAX`] steps, so 24 KiB,
//! however much a reader leaves unacknowledged; each delivery is a step of its own until there are
//! more than that, and then steps grow together two by two. An acknowledgement that ends within a
//! step counts up to the step before it; what is left of it comes again at the next login.

use std::collections::VecDeque;

/// Steps that are kept apart: an acknowledgement is then exact to one part in 512 of what is open.
const STEPS_MAX: usize = 1024;

#[derive(Clone, Copy)]
struct Step {
    /// Number of its last delivery in the session, or the stream position behind that.
    last: u64,
    /// Sequence behind its last message in the inbox.
    head: u64,
    /// Deliveries in it.
    count: u64,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Steps {
    steps: VecDeque<Step>,
    /// Deliveries that a step takes in before the next one begins; 0 and 1 are one.
    width: u64,
}

impl Steps {
    /// The next delivery, whose message stands in the inbox before `head`.
    pub(super) fn push(&mut self, delivery: u64, head: u64) {
        if let Some(newest) = self.steps.back_mut()
            && newest.count < self.width
        {
            newest.last = delivery;
            newest.head = newest.head.max(head);
            newest.count += 1;
            return;
        }
        if self.steps.len() == STEPS_MAX {
            self.merge();
        }
        let behind = self.steps.back().map_or(0, |newest| newest.head);
        self.steps.push_back(Step {
            last: delivery,
            head: head.max(behind),
            count: 1,
        });
    }

    /// Makes one step of each two.
    fn merge(&mut self) {
        for at in 0..STEPS_MAX / 2 {
            let (first, second) = (&self.steps[2 * at], &self.steps[2 * at + 1]);
            self.steps[at] = Step {
                count: first.count + second.count,
                ..*second
            };
        }
        self.steps.truncate(STEPS_MAX / 2);
        self.width = (2 * self.width).max(2);
    }

    /// All deliveries up to this one are acknowledged: how many that settles, and how far the inbox
    /// can be burned for them (0: not at all).
    pub(super) fn acknowledged(&mut self, delivery: u64) -> (u64, u64) {
        let (mut settled, mut head) = (0, 0);
        while let Some(step) = self.steps.front()
            && step.last <= delivery
        {
            settled += step.count;
            head = step.head;
            self.steps.pop_front();
        }
        if self.steps.is_empty() {
            self.width = 0;
        }
        (settled, head)
    }

    /// Bytes it takes.
    pub(super) fn memory(&self) -> usize {
        self.steps.capacity() * size_of::<Step>()
    }

    /// Whether nothing is open.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The session has ended: what is open is in the store.
    pub(super) fn clear(&mut self) {
        *self = Steps::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_many_as_there_are_steps_are_exact() {
        let mut steps = Steps::default();
        for delivery in 1..=STEPS_MAX as u64 {
            steps.push(delivery, 10 * delivery);
        }
        assert_eq!(steps.acknowledged(0), (0, 0));
        for delivery in 1..=STEPS_MAX as u64 {
            assert_eq!(steps.acknowledged(delivery), (1, 10 * delivery));
        }
        assert!(steps.is_empty());
    }

    #[test]
    fn a_million_open_deliveries_cost_no_more_and_are_all_settled_at_the_end() {
        let mut steps = Steps::default();
        for delivery in 1..=1_000_000 {
            steps.push(delivery, delivery + 1);
            assert!(steps.steps.len() <= STEPS_MAX);
        }
        let (settled, head) = steps.acknowledged(700_000);
        assert_eq!(head, settled + 1);
        assert!((698_000..=700_000).contains(&settled), "{settled}");
        assert_eq!(
            steps.acknowledged(1_000_000),
            (1_000_000 - settled, 1_000_001)
        );
        assert_eq!(steps.width, 0, "exact again");
    }

    proptest! {
        #[test]
        fn nothing_is_settled_that_was_not_acknowledged(
            rounds in prop::collection::vec((0u64..3000, 0u64..3000), 1..20)
        ) {
            let mut steps = Steps::default();
            let (mut pushed, mut settled) = (0, 0);
            for (more, acks) in rounds {
                for _ in 0..more {
                    pushed += 1;
                    steps.push(pushed, 7 * pushed);
                }
                let upto = pushed.min(settled + acks);
                let (count, head) = steps.acknowledged(upto);
                prop_assert!(count == 0 || head == 7 * (settled + count));
                settled += count;
                prop_assert!(settled <= upto);
                prop_assert!(upto - settled <= 2 * (pushed - settled) / STEPS_MAX as u64 + 1 + steps.width);
            }
            prop_assert_eq!(steps.acknowledged(pushed).0, pushed - settled);
        }
    }
}
