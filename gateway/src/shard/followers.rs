//! Who follows a user, and how far it is told of the newest state: a *round* tells each follower once.
//!
//! Owner: the shard of the user's home. Invariants: a follower is told whatever the state is at that moment, so a change
//! during a round replaces what those are told who are still to come; for the others another round follows, no sooner
//! than [`REST_MS`] after this one has ended. So no follower hears of a user twice within that time, and the last state
//! is always told in the end.

use super::slots::Key;

/// Time between two rounds of one user, milliseconds.
pub const REST_MS: u64 = 1_000;

/// A connection, here or on another core, that wants to know about a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Follower {
    /// Core of the connection.
    pub core: u16,
    /// The connection there.
    pub connection: Key,
}

/// What a user's followers are told of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Round {
    /// All know the newest state, and a change is told at once.
    #[default]
    Quiet,
    /// Those before this place have been told.
    Telling(usize),
    /// A round has ended a little while ago.
    Resting,
}

/// Those who want to know about a user; boxed, since most users have none.
#[derive(Default)]
pub struct Followers {
    list: Vec<Follower>,
    round: Round,
    /// The state has changed since the round began.
    changed: bool,
}

impl Followers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether this one is among them.
    pub fn contains(&self, follower: Follower) -> bool {
        self.list.contains(&follower)
    }

    /// Whether there is nobody to be told, now or later.
    pub fn is_over(&self) -> bool {
        self.list.is_empty() && self.round == Round::Quiet
    }

    /// One more, who was told the state.
    pub fn add(&mut self, follower: Follower) {
        self.list.push(follower);
    }

    /// One less.
    pub fn remove(&mut self, follower: Follower) {
        if let Some(at) = self.list.iter().position(|other| *other == follower) {
            self.list.remove(at);
            if let Round::Telling(next) = &mut self.round
                && at < *next
            {
                *next -= 1;
            }
        }
    }

    /// The user came or went; says whether a round begins with that.
    pub fn change(&mut self) -> bool {
        if self.round == Round::Quiet && !self.list.is_empty() {
            self.round = Round::Telling(0);
            return true;
        }
        self.changed = self.round != Round::Quiet;
        false
    }

    /// Who is told next in this round; nobody if it has none left.
    pub fn peek(&self) -> Option<Follower> {
        match self.round {
            Round::Telling(next) => self.list.get(next).copied(),
            _ => None,
        }
    }

    /// That one has been told.
    pub fn told(&mut self) {
        if let Round::Telling(next) = &mut self.round {
            *next += 1;
        }
    }

    /// All have been told, and a rest begins.
    pub fn end_round(&mut self) {
        self.round = Round::Resting;
    }

    /// The rest after a round is over; says whether another round begins.
    pub fn rested(&mut self) -> bool {
        self.round = Round::Quiet;
        std::mem::take(&mut self.changed) && self.change()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(index: u32) -> Follower {
        Follower {
            core: 0,
            connection: Key {
                index,
                generation: 0,
            },
        }
    }

    fn three() -> Followers {
        let mut followers = Followers::default();
        (0..3).for_each(|n| followers.add(follower(n)));
        followers
    }

    /// Goes on with a round for so many followers.
    fn tell(followers: &mut Followers, count: usize) -> Vec<u32> {
        let mut told = Vec::new();
        while told.len() < count
            && let Some(follower) = followers.peek()
        {
            followers.told();
            told.push(follower.connection.index);
        }
        told
    }

    #[test]
    fn changes_during_a_round_make_one_more() {
        let mut followers = three();
        assert!(followers.change());
        assert_eq!(tell(&mut followers, 1), [0]);
        assert!(!followers.change() && !followers.change());
        assert_eq!(tell(&mut followers, 9), [1, 2]);
        followers.end_round();
        assert!(!followers.change(), "it rests");
        assert!(followers.rested());
        assert_eq!(tell(&mut followers, 9), [0, 1, 2]);
        followers.end_round();
        assert!(!followers.rested(), "all know");
        assert!(followers.change());
    }

    #[test]
    fn who_leaves_during_a_round_makes_nobody_be_left_out() {
        let mut followers = three();
        followers.change();
        tell(&mut followers, 1);
        followers.remove(follower(0));
        assert_eq!(followers.peek(), Some(follower(1)));
        followers.remove(follower(2));
        assert_eq!(tell(&mut followers, 9), [1]);
        followers.remove(follower(1));
        followers.end_round();
        assert!(!followers.is_over(), "it rests");
        followers.change();
        assert!(!followers.rested());
        assert!(followers.is_over());
    }
}
