//! Which read is next: the line of pages and accounts that wait for a reader.
//!
//! Owner: the queue to the readers. Reads wait apart by party, and the parties are served in turn, so that a read waits
//! for one of each other party and not for all that the others have asked. Two rules keep that wait short:
//!
//! - accounts are light and go before pages, but no more than [`LIGHT_IN_A_ROW`] while a page waits;
//! - a party that was not served lately goes before those that were, but no more than [`NEW_IN_A_ROW`] of them while
//!   another waits (as in fq_codel, RFC 8290). A party counts as served until its next turn comes and finds nothing:
//!   whoever asks again and again, or takes back what it asked and asks anew, gains nothing by it.
//!
//! Bounds: `max` reads in all, a quarter of them for parties of which nothing waits. Of the rest, one party has no more
//! than a [`SHARE_PARTS`]th of what is free: those who ask much fill the line together only up to that quarter, and
//! each of the others finds room for its first read there. What is refused or cancelled is counted. Invariants: reads of one party and kind come out in the order they went in; a party is in
//! a list as long as anything of it waits; what the store asks of itself comes last.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::client::{Envelope, Read};
use crate::entrance::Line;
use crate::request::{FailureKind, Party};

/// Accounts that go before a page that waits. An account takes about a tenth of the time of a full page.
const LIGHT_IN_A_ROW: u32 = 16;
/// Parties that were not served lately, before one that was.
const NEW_IN_A_ROW: u32 = 16;
/// Parts of what is free of which a party may have one. In an empty line of 16,384 that is 95, more than a connection
/// has under way at most: 64 presence questions, a page and an account.
const SHARE_PARTS: usize = 128;

/// Reads that wait, and those who asked for them.
pub(crate) struct FairReads {
    max: usize,
    accounts: Turns,
    pages: Turns,
    /// Accounts that came out since a page did, while one waited.
    light_in_a_row: u32,
    /// What the store asks of itself.
    own: VecDeque<Envelope<Read>>,
    /// Refused because the line was full.
    pub(crate) refused_full: u64,
    /// Refused because the party had its share of it.
    pub(crate) refused_share: u64,
    /// Taken out because they were not wanted any more.
    pub(crate) cancelled: u64,
}

impl FairReads {
    /// A line of at most `max` reads.
    pub(crate) fn new(max: usize) -> FairReads {
        FairReads {
            max: max.max(1),
            accounts: Turns::default(),
            pages: Turns::default(),
            light_in_a_row: 0,
            own: VecDeque::new(),
            refused_full: 0,
            refused_share: 0,
            cancelled: 0,
        }
    }

    /// Takes out a read that is not wanted any more; false if a reader has it.
    pub(crate) fn cancel(&mut self, client: usize, token: u64, party: Party) -> bool {
        let is_it = |waiting: &Envelope<Read>| {
            waiting.client == client && waiting.request.token() == Some(token)
        };
        let found = self.pages.take_out(party, is_it) || self.accounts.take_out(party, is_it);
        self.cancelled += u64::from(found);
        found
    }
}

impl Line for FairReads {
    type Request = Read;

    fn offer(&mut self, request: Envelope<Read>) -> Result<(), FailureKind> {
        let Some(party) = request.request.party() else {
            self.own.push_back(request);
            return Ok(());
        };
        if self.len() >= self.max {
            self.refused_full += 1;
            return Err(FailureKind::Overloaded);
        }
        let waiting = self.accounts.waiting_of(party) + self.pages.waiting_of(party);
        let free = (self.max - self.max / 4).saturating_sub(self.len());
        if waiting >= (free / SHARE_PARTS).max(1) {
            self.refused_share += 1;
            return Err(FailureKind::Overloaded);
        }
        match request.request {
            Read::Page { .. } => self.pages.add(party, request),
            _ => self.accounts.add(party, request),
        }
        Ok(())
    }

    fn put(&mut self, request: Envelope<Read>) {
        self.own.push_back(request);
    }

    fn next(&mut self) -> Option<Envelope<Read>> {
        let page_is_due = self.light_in_a_row >= LIGHT_IN_A_ROW;
        if !page_is_due && let Some(account) = self.accounts.next() {
            self.light_in_a_row += u32::from(self.pages.waiting > 0);
            return Some(account);
        }
        self.light_in_a_row = 0;
        self.pages
            .next()
            .or_else(|| self.accounts.next())
            .or_else(|| self.own.pop_front())
    }

    fn len(&self) -> usize {
        self.accounts.waiting + self.pages.waiting + self.own.len()
    }
}

/// Reads of one kind, by party, and whose turn it is.
#[derive(Default)]
struct Turns {
    parties: HashMap<Party, Waiting>,
    /// Parties that were not served lately, by the number of their turn; something of each of them waits.
    new: BTreeMap<u64, Party>,
    /// Parties that were; of some of them nothing waits.
    served: BTreeMap<u64, Party>,
    /// New parties that were served since one of the others was.
    new_in_a_row: u32,
    next_turn: u64,
    /// Reads that wait.
    waiting: usize,
}

/// What waits of one party, and when its turn is.
struct Waiting {
    reads: VecDeque<Envelope<Read>>,
    turn: u64,
}

impl Turns {
    fn waiting_of(&self, party: Party) -> usize {
        let waiting = self.parties.get(&party);
        waiting.map_or(0, |waiting| waiting.reads.len())
    }

    fn add(&mut self, party: Party, read: Envelope<Read>) {
        self.waiting += 1;
        let (new, next_turn) = (&mut self.new, &mut self.next_turn);
        let waiting = self.parties.entry(party).or_insert_with(|| {
            *next_turn += 1;
            new.insert(*next_turn, party);
            Waiting {
                reads: VecDeque::new(),
                turn: *next_turn,
            }
        });
        waiting.reads.push_back(read);
    }

    fn next(&mut self) -> Option<Envelope<Read>> {
        if self.new_in_a_row < NEW_IN_A_ROW
            && let Some((_, party)) = self.new.pop_first()
        {
            self.new_in_a_row += 1;
            return self.serve(party);
        }
        self.new_in_a_row = 0;
        while let Some((_, party)) = self.served.pop_first() {
            if self.waiting_of(party) > 0 {
                return self.serve(party);
            }
            self.parties.remove(&party);
        }
        let (_, party) = self.new.pop_first()?;
        self.serve(party)
    }

    /// The oldest read of a party that is in no list; its next turn comes after those of all who were served.
    fn serve(&mut self, party: Party) -> Option<Envelope<Read>> {
        let waiting = self.parties.get_mut(&party)?;
        let read = waiting.reads.pop_front()?;
        self.next_turn += 1;
        waiting.turn = self.next_turn;
        self.served.insert(waiting.turn, party);
        self.waiting -= 1;
        Some(read)
    }

    /// Takes out the read that is meant, if it is there.
    fn take_out(&mut self, party: Party, is_it: impl Fn(&Envelope<Read>) -> bool) -> bool {
        let Some(waiting) = self.parties.get_mut(&party) else {
            return false;
        };
        let Some(at) = waiting.reads.iter().position(is_it) else {
            return false;
        };
        waiting.reads.remove(at);
        self.waiting -= 1;
        if waiting.reads.is_empty() && self.new.remove(&waiting.turn).is_some() {
            self.parties.remove(&party);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::UserHash;

    fn page(party: u128, token: u64) -> Envelope<Read> {
        let request = Read::Page {
            token,
            party: Party(party),
            user: UserHash(1),
            name: "a".into(),
            from: 0,
            messages_max: 1,
            bytes_max: 1,
        };
        Envelope { client: 0, request }
    }

    fn account(party: u128, token: u64) -> Envelope<Read> {
        let request = Read::Account {
            token,
            party: Party(party),
            user: UserHash(1),
            name: "a".into(),
        };
        Envelope { client: 0, request }
    }

    fn next(line: &mut FairReads) -> Option<u64> {
        line.next().and_then(|read| read.request.token())
    }

    fn rest(line: &mut FairReads) -> Vec<u64> {
        std::iter::from_fn(|| next(line)).collect()
    }

    fn offered(reads: impl IntoIterator<Item = Envelope<Read>>) -> FairReads {
        let mut line = FairReads::new(16_384);
        for read in reads {
            line.offer(read).expect("room");
        }
        line
    }

    #[test]
    fn parties_are_served_in_turn_and_each_in_its_order() {
        let asked = [(1, 10), (1, 11), (1, 12), (2, 20), (2, 21), (3, 30)];
        let mut line = offered(asked.map(|(party, token)| page(party, token)));
        assert_eq!(rest(&mut line), [10, 20, 30, 11, 21, 12]);
        assert_eq!(line.len(), 0);
    }

    #[test]
    fn who_was_not_served_lately_goes_first_but_not_for_ever() {
        let mut line = offered((0..90).map(|token| page(1, token)));
        assert_eq!(next(&mut line), Some(0));
        for party in 0..40 {
            line.offer(page(100 + party, 1_000 + party as u64))
                .expect("room");
        }
        let order = rest(&mut line);
        let turns: Vec<usize> = (0..order.len()).filter(|at| order[*at] < 100).collect();
        assert_eq!(
            &turns[..3],
            [15, 32, 42],
            "sixteen in a row, the first of them before"
        );
    }

    #[test]
    fn a_party_does_not_become_new_by_taking_back_what_it_asked() {
        let mut line = offered([page(1, 10), page(2, 20), page(1, 11), page(2, 21)]);
        assert_eq!((next(&mut line), next(&mut line)), (Some(10), Some(20)));
        assert!(line.cancel(0, 21, Party(2)));
        line.offer(page(2, 22)).expect("room");
        line.offer(page(3, 30)).expect("room");
        assert_eq!(rest(&mut line), [30, 11, 22]);
    }

    #[test]
    fn accounts_go_before_pages_but_pages_do_not_starve() {
        let accounts = (0..40).map(|n| account(10 + n, 100 + n as u64));
        let mut line = offered([page(1, 1), page(2, 2)].into_iter().chain(accounts));
        let order = rest(&mut line);
        let pages: Vec<usize> = (0..order.len()).filter(|at| order[*at] < 100).collect();
        assert_eq!(pages, [16, 33]);
    }

    #[test]
    fn one_party_has_a_share_and_others_find_room() {
        let mut line = FairReads::new(16_384);
        let taken = (0..1_000).filter(|token| line.offer(account(1, *token)).is_ok());
        assert_eq!(taken.count(), 95);
        assert_eq!(line.refused_share, 905);
        for party in 2..1_000 {
            while line.offer(account(party, 0)).is_ok() {}
        }
        assert!(line.len() < 13_000, "{} wait", line.len());
        for party in 1_000..4_000 {
            line.offer(page(party, 1))
                .expect("room for one of each other");
        }
        assert_eq!(line.refused_full, 0);
    }

    #[test]
    fn a_full_line_takes_nothing_but_what_the_store_asks() {
        let mut line = FairReads::new(2);
        line.offer(page(1, 1)).expect("room");
        assert_eq!(line.offer(page(1, 2)), Err(FailureKind::Overloaded));
        line.offer(page(2, 2)).expect("room");
        assert_eq!(line.offer(page(3, 3)), Err(FailureKind::Overloaded));
        assert_eq!((line.refused_share, line.refused_full), (1, 1));
        let request = Read::Close;
        line.put(Envelope { client: 0, request });
        assert_eq!(line.len(), 3);
        assert_eq!((next(&mut line), next(&mut line)), (Some(1), Some(2)));
        assert!(matches!(
            line.next(),
            Some(Envelope {
                request: Read::Close,
                ..
            })
        ));
    }

    #[test]
    fn what_is_cancelled_is_gone_and_what_is_taken_cannot_be() {
        let mut line = offered([page(1, 1), account(1, 2), account(2, 3)]);
        assert_eq!(next(&mut line), Some(2));
        assert!(!line.cancel(0, 2, Party(1)), "a reader has it");
        assert!(!line.cancel(1, 1, Party(1)), "of another client");
        assert!(!line.cancel(0, 1, Party(2)), "of another party");
        assert!(line.cancel(0, 1, Party(1)));
        assert!(!line.cancel(0, 1, Party(1)));
        assert_eq!(line.cancelled, 1);
        assert_eq!(rest(&mut line), [3]);
    }

    #[test]
    fn of_parties_that_have_gone_nothing_is_kept() {
        let mut line = FairReads::new(16_384);
        for party in 0..10_000 {
            line.offer(page(party, 1)).expect("room");
            if party % 2 == 0 {
                assert!(line.cancel(0, 1, Party(party)));
            } else {
                assert_eq!(next(&mut line), Some(1));
            }
        }
        assert_eq!(next(&mut line), None);
        let pages = &line.pages;
        let kept = (pages.parties.len(), pages.new.len(), pages.served.len());
        assert_eq!(kept, (0, 0, 0));
    }
}
