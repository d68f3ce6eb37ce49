//! Who holds how much of what all share: the senders of an inbox, and those of a database.
//!
//! Plain data. Owner: the committer. The rule is a dynamic threshold, as in switches that share a buffer: a sender may
//! hold at most as much as is still free, or a stated part of that. So one alone gets half, n of them 1/(n+1) each, and a
//! newcomer finds room. Nobody is counted where three quarters are free, since nobody can meet the rule there.
//!
//! Invariants: an account of senders has a fixed size; all in it together hold no more than there is. What it says of one is
//! exact but for samples: of what was burned, and of what stood there when counting began.

use crate::inbox::Sum;
use crate::record;

/// Senders of an inbox that are counted. With more of them that hold as much, some go uncounted: names cost nothing, and
/// whoever has nine fills nine tenths by the rule, too.
const OF_INBOX_MAX: usize = 8;
/// Senders of a database that are counted, one for each part that is worth being looked after.
const OF_STORE_MAX: usize = 64;
/// A whole, in the units of a share.
const WHOLE: u64 = 100;

/// A sender, by a hash of its name whose key is the process's own: nobody can make a name that counts as another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender(u64);

/// Makes senders of records.
#[derive(Clone, Default)]
pub(crate) struct Names(ahash::RandomState);

impl Names {
    /// Whose record it is; `None` if it is no record.
    pub(crate) fn sender(&self, bytes: &[u8]) -> Option<Sender> {
        record::sender(bytes).map(|name| Sender(self.0.hash_one(name)))
    }
}

/// The part of a whole that a sender may hold alone, in percent: the part of what is free follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(u64);

impl Share {
    pub(crate) fn of_percent(percent: u8) -> Share {
        Share(u64::from(percent).min(WHOLE))
    }

    /// Nobody is held to anything.
    pub(crate) fn is_all(self) -> bool {
        self.0 == WHOLE
    }

    /// What a sender who holds so much would have to give back for so much more; zero if that is its share. Whoever holds
    /// nothing may have one message, whatever its size.
    pub(crate) fn lack(self, held: u64, more: u64, free: u64) -> u64 {
        if held == 0 {
            return 0;
        }
        let wanted = u128::from(held) + u128::from(more);
        // What is given back is free then.
        let over = (wanted * u128::from(WHOLE - self.0))
            .saturating_sub(u128::from(free) * u128::from(self.0));
        u64::try_from(over.div_ceil(u128::from(WHOLE))).unwrap_or(u64::MAX)
    }
}

/// Those that hold most of something, by Misra and Gries: each is told too low by at most `missed`, which is at most the
/// whole, divided by one more than there are places.
#[derive(Debug)]
pub(crate) struct Largest {
    held: Vec<(Sender, u64)>,
    places: usize,
    missed: u64,
}

impl Largest {
    fn new(places: usize) -> Largest {
        Largest {
            held: Vec::new(),
            places,
            missed: 0,
        }
    }

    /// For the bytes of a database.
    pub(crate) fn of_store() -> Largest {
        Largest::new(OF_STORE_MAX)
    }

    pub(crate) fn of(&self, sender: Sender) -> u64 {
        let entry = self.held.iter().find(|(other, _)| *other == sender);
        entry.map_or(0, |(_, held)| *held)
    }

    /// How many are counted, with this one.
    fn len_with(&self, sender: Sender) -> u64 {
        let others = self.held.iter().filter(|(other, _)| *other != sender);
        others.count() as u64 + 1
    }

    pub(crate) fn add(&mut self, sender: Sender, amount: u64) {
        if let Some((_, held)) = self.held.iter_mut().find(|(other, _)| *other == sender) {
            *held = held.saturating_add(amount);
        } else if self.held.len() < self.places {
            self.held.push((sender, amount));
        } else {
            let least = self.held.iter().map(|(_, held)| *held).min();
            let less = least.unwrap_or(0).min(amount);
            self.missed = self.missed.saturating_add(less);
            self.held.retain_mut(|(_, held)| {
                *held -= less;
                *held > 0
            });
            if amount > less && self.held.len() < self.places {
                self.held.push((sender, amount - less));
            }
        }
    }

    /// Takes off what has gone, so that so much is left, as a sample of it tells whose it was.
    pub(crate) fn forgo(&mut self, gone: u64, left: u64, sample: &[(Sender, u64)]) {
        let sampled = total(sample);
        if sampled == 0 {
            self.scale(left, left.saturating_add(gone));
        }
        for (sender, amount) in sample {
            let part = portion(gone, *amount, sampled);
            if let Some((_, held)) = self.held.iter_mut().find(|(other, _)| other == sender) {
                *held = held.saturating_sub(part);
            }
        }
        self.held.retain(|(_, held)| *held > 0);
        self.missed = self.missed.min(left);
        let counted = total(&self.held);
        if counted > left {
            self.scale(left, counted);
        }
    }

    fn scale(&mut self, by: u64, of: u64) {
        self.held.retain_mut(|(_, held)| {
            *held = portion(*held, by, of);
            *held > 0
        });
    }
}

fn total(amounts: &[(Sender, u64)]) -> u64 {
    let each = amounts.iter().map(|(_, amount)| *amount);
    each.fold(0, u64::saturating_add)
}

/// `amount` times `by`, divided by `of`; nothing of nothing.
fn portion(amount: u64, by: u64, of: u64) -> u64 {
    let product = u128::from(amount) * u128::from(by);
    let portion = product.checked_div(u128::from(of)).unwrap_or(0);
    u64::try_from(portion).unwrap_or(u64::MAX)
}

/// Messages of a sender, of a sample or of all there are.
pub(crate) type Part = (Sender, Sum);

/// The bytes of each part.
pub(crate) fn bytes(parts: &[Part]) -> Vec<(Sender, u64)> {
    let bytes = parts.iter().map(|(sender, sum)| (*sender, sum.bytes));
    bytes.collect()
}

/// The senders of an inbox.
#[derive(Debug)]
pub(crate) struct Senders {
    messages: Largest,
    bytes: Largest,
}

impl Senders {
    /// Of an inbox that holds these.
    pub(crate) fn of(parts: &[Part]) -> Senders {
        let mut senders = Senders {
            messages: Largest::new(OF_INBOX_MAX),
            bytes: Largest::new(OF_INBOX_MAX),
        };
        for (sender, sum) in parts {
            senders.messages.add(*sender, sum.messages);
            senders.bytes.add(*sender, sum.bytes);
        }
        senders
    }

    /// One more record stands in the inbox.
    pub(crate) fn admit(&mut self, sender: Sender, record_len: u64) {
        self.messages.add(sender, 1);
        self.bytes.add(sender, record_len);
    }

    /// A head has moved past these; so much is left.
    pub(crate) fn forgo(&mut self, gone: Sum, left: Sum, sample: &[Part]) {
        let messages = sample.iter().map(|(sender, sum)| (*sender, sum.messages));
        let messages: Vec<(Sender, u64)> = messages.collect();
        self.messages.forgo(gone.messages, left.messages, &messages);
        self.bytes.forgo(gone.bytes, left.bytes, &bytes(sample));
    }

    /// What the sender would have to give back for one more record, where so much is free.
    pub(crate) fn lack(&self, share: Share, sender: Sender, record_len: u64, free: Sum) -> Sum {
        Sum {
            messages: share.lack(self.messages.of(sender), 1, free.messages),
            bytes: share.lack(self.bytes.of(sender), record_len, free.bytes),
        }
    }

    /// Whether a message of `other` may go to make room for one of `sender`: it holds as much as that, as far as is known,
    /// or the sender has less than an equal part of the `max` there is. So one old message of somebody who holds nothing
    /// else does not keep everybody out.
    pub(crate) fn may_displace(&self, sender: Sender, other: Sender, max: Sum) -> bool {
        let may = |largest: &Largest, max: u64| {
            let held = largest.of(sender);
            held <= largest.of(other).saturating_add(largest.missed)
                || held < max / (largest.len_with(sender) + 1)
        };
        sender == other || (may(&self.messages, max.messages) && may(&self.bytes, max.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: Sender = Sender(1);
    const BEN: Sender = Sender(2);

    /// So much of 1,000 each gets, when all of them write in turn until nobody may.
    fn held_by(senders: u64, share: Share) -> Vec<u64> {
        let mut largest = Largest::new(OF_INBOX_MAX);
        let mut free = 1_000;
        let mut was_taken = true;
        while was_taken {
            was_taken = false;
            for sender in (0..senders).map(Sender) {
                if free > 0 && share.lack(largest.of(sender), 1, free) == 0 {
                    largest.add(sender, 1);
                    free -= 1;
                    was_taken = true;
                }
            }
        }
        (0..senders).map(Sender).map(|it| largest.of(it)).collect()
    }

    #[test]
    fn one_gets_half_two_a_third_each_and_so_on() {
        let half = Share::of_percent(50);
        for senders in 1..=OF_INBOX_MAX as u64 {
            let even = 1_000 / (senders + 1);
            let all = held_by(senders, half);
            assert!(all.iter().all(|held| held.abs_diff(even) <= 1), "{all:?}");
        }
        assert_eq!(held_by(1, Share::of_percent(100)), [1_000]);
        assert_eq!(held_by(1, Share::of_percent(80)), [800]);
    }

    #[test]
    fn what_a_sender_gives_back_is_its_share_then() {
        let half = Share::of_percent(50);
        for (held, more, free) in [(10, 1, 3), (500, 7, 500), (1, 1, 0), (9, 100, 1)] {
            let lack = half.lack(held, more, free);
            assert!(lack > 0);
            assert_eq!(half.lack(held - lack.min(held), more, free + lack), 0);
        }
    }

    #[test]
    fn whoever_is_large_is_counted_however_many_are_small() {
        let mut largest = Largest::new(OF_INBOX_MAX);
        for small in 100..1_100 {
            largest.add(ANNA, 1);
            largest.add(Sender(small), 1);
        }
        let told = largest.of(ANNA);
        assert!(told <= 1_000 && told + largest.missed >= 1_000, "{told}");
        assert!(told >= 1_000 - 2_000 / (OF_INBOX_MAX as u64 + 1), "{told}");
        assert!(largest.held.len() <= OF_INBOX_MAX);
    }

    #[test]
    fn what_goes_is_taken_from_those_whose_it_was() {
        let mut largest = Largest::new(OF_INBOX_MAX);
        largest.add(ANNA, 60);
        largest.add(BEN, 40);
        largest.forgo(30, 70, &[(ANNA, 5)]);
        assert_eq!((largest.of(ANNA), largest.of(BEN)), (30, 40));
        // Nothing is known: all alike.
        largest.forgo(35, 35, &[]);
        assert_eq!((largest.of(ANNA), largest.of(BEN)), (15, 20));
        // The sample was wrong: no more than there is.
        largest.forgo(25, 10, &[(Sender(3), 1)]);
        assert!(largest.of(ANNA) + largest.of(BEN) <= 10);
        largest.forgo(10, 0, &[]);
        assert!(largest.held.is_empty());
    }

    #[test]
    fn only_who_holds_as_much_gives_way() {
        let sum = |messages| Sum {
            messages,
            bytes: 100 * messages,
        };
        let senders = Senders::of(&[(ANNA, sum(9)), (BEN, sum(2))]);
        let max = sum(11);
        assert!(senders.may_displace(ANNA, ANNA, max) && senders.may_displace(BEN, ANNA, max));
        assert!(!senders.may_displace(ANNA, BEN, max));
        assert!(senders.may_displace(Sender(3), BEN, max), "a newcomer");
        // Nine of thirty are less than a third, whoever stands in front.
        assert!(senders.may_displace(ANNA, BEN, sum(30)));
    }
}
