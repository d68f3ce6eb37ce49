//! A user at home: its session, the state of its inbox, what it waits for, who
//! follows it.
//!
//! Owner: the shard of the user's home core. An entry exists while the user is
//! online or anything about it is under way; an absent user about whom nothing
//! is under way costs no memory.

use std::collections::VecDeque;
use std::rc::Rc;

use iris_protocol::Outcome;
use iris_ring::prefetch;
use iris_storage::{NameKey, UserHash};

use super::followers::Followers;
use super::search::partition_point;
use super::slots::Key;

/// A session whose messages come through the inbox, because there are older ones
/// to deliver first. Boxed, since most users are without one.
#[derive(Default)]
pub struct Drain {
    /// The token of the page that was asked for and has not come.
    pub page: Option<u32>,
    /// No page of the session has come yet: the first is a short one.
    pub is_first: bool,
    /// Not before this moment, milliseconds: the store failed.
    pub retry_at_ms: u64,
    /// The last page ended where the inbox ended; only appends that are under way
    /// stand between here and the end of the drain.
    pub at_end: bool,
    /// Messages that came meanwhile, as envelopes, to follow those appends.
    pub held: Vec<u8>,
    /// Appends that were under way when the session began and still are: until they
    /// are done, the depth of the inbox is not known.
    pub appends_before: u32,
    /// The depth of the inbox was asked for and has not come.
    pub depth_asked: Option<DepthAsked>,
    /// How often the store could not answer that.
    pub depth_failures: u8,
}

/// A question for the depth of an inbox.
#[derive(Clone, Copy)]
pub struct DepthAsked {
    /// Its token.
    pub token: u32,
    /// The user's tail when it was asked: while that stays, no append has come to its end.
    pub tail_sequence: u64,
}

/// One send of a framed user, by its sequence number.
#[derive(Clone, Copy, Debug)]
pub struct Send {
    /// The sender's number.
    pub sequence: u64,
    /// What became of it, once known.
    pub outcome: Option<Outcome>,
}

/// The sends of a framed user that are unanswered, or answered lately.
#[derive(Default)]
pub struct Sends {
    /// In ascending order of sequence.
    pub recent: VecDeque<Send>,
    /// How many of them wait for an answer.
    pub unanswered: u32,
    /// When the last one came, milliseconds of the core's clock.
    pub last_at_ms: u64,
    /// The user stands in the list of those that have left.
    pub departed: bool,
}

/// The newest sends, among which one is looked for first: two cache lines of them.
const NEWEST: usize = 8;

impl Sends {
    /// Asks the memory for the newest.
    pub(super) fn prefetch_newest(&self) {
        if let Some(newest) = self.recent.back() {
            prefetch(newest);
            prefetch(std::ptr::from_ref(newest).wrapping_sub(NEWEST / 2));
        }
    }

    /// Where a send stands, or where it would. From the newest on, in steps that double: what
    /// comes is mostly newer than all, and what is answered is mostly among the newest.
    pub(super) fn place_of(&self, sequence: u64) -> Result<usize, usize> {
        let is_before = |at: usize| self.recent[at].sequence < sequence;
        let (mut low, mut high) = (0, self.recent.len());
        let mut step = 1;
        while high > 0 {
            let at = high.saturating_sub(step);
            if is_before(at) {
                low = at + 1;
                break;
            }
            high = at;
            step = (step * 2).max(NEWEST);
        }
        let place = partition_point(low..high, is_before);
        match self.recent.get(place) {
            Some(send) if send.sequence == sequence => Ok(place),
            _ => Err(place),
        }
    }
}

/// State of one user. What every message asks for stands first, on one cache line.
#[repr(C)]
pub struct User {
    /// The name.
    pub name: Rc<str>,
    /// Its session's connection, or [`Key::NONE`].
    pub session: Key,
    /// How messages reach the session: through the inbox while this is there,
    /// straight into the outbox (live) when it is not.
    pub drain: Option<Box<Drain>>,
    /// Appends under way.
    pub appending: u32,
    /// Those among them that the session has been given already.
    pub spilling: u32,
    /// Other store requests under way.
    pub requests: u32,
    /// A login that waits for the session to end, or [`Key::NONE`].
    pub waiting: Key,
    /// Sequence of the first message of the inbox that the session has not been given.
    pub next_sequence: u64,
    /// Sequence behind the newest message that is known to be in the inbox.
    pub tail_sequence: u64,
    /// First sequence that its reader has not acknowledged, as far as known here.
    pub head: u64,
    /// The head that the store was told last.
    pub head_told: u64,
    /// Its sends, if it sent any lately.
    pub sends: Option<Box<Sends>>,
    /// Who wants to know about it.
    pub followers: Option<Box<Followers>>,
    /// When its last session ended, Unix milliseconds; 0 if that is not known here.
    pub last_seen_ms: u64,
    /// Cores that have no room at their store for what it sends.
    pub held_by: u16,
    /// A burn is under way.
    pub burning: bool,
    /// A page is under way, for this session or an older one.
    pub paging: bool,
}

// With its slot's generation, two cache lines.
const _: () = assert!(size_of::<User>() <= 120);

impl User {
    /// A user about whom nothing is known yet.
    pub fn new(name: &str) -> User {
        User {
            name: Rc::from(name),
            session: Key::NONE,
            waiting: Key::NONE,
            drain: None,
            next_sequence: 0,
            tail_sequence: 0,
            appending: 0,
            spilling: 0,
            head: 0,
            head_told: 0,
            held_by: 0,
            burning: false,
            paging: false,
            requests: 0,
            sends: None,
            followers: None,
            last_seen_ms: 0,
        }
    }

    /// What its messages have in common: the same for as long as the store
    /// lives, so that a repeat is known.
    pub fn sender_id(&self, key: NameKey) -> u64 {
        (self.hash(key).0 >> 64) as u64
    }

    /// Hash of the name; worked out again, because the store asks for it seldom and
    /// every user would carry it.
    pub fn hash(&self, key: NameKey) -> UserHash {
        key.hash(self.name.as_bytes())
    }

    /// Whether a session is attached.
    pub fn is_online(&self) -> bool {
        self.session != Key::NONE
    }

    /// Whether nothing needs this entry any more.
    pub fn is_forgettable(&self) -> bool {
        !self.is_online()
            && self.waiting == Key::NONE
            && self.appending == 0
            && !self.burning
            && self.head == self.head_told
            && self.requests == 0
            && self.held_by == 0
            && self.sends.is_none()
            && self.followers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_send_is_found_as_by_a_plain_search(
            sequences in prop::collection::btree_set(0u64..400, 0..120),
            wanted in 0u64..400,
        ) {
            let mut sends = Sends::default();
            for sequence in sequences {
                sends.recent.push_back(Send { sequence, outcome: None });
            }
            let plain = sends.recent.binary_search_by_key(&wanted, |send| send.sequence);
            prop_assert_eq!(sends.place_of(wanted), plain);
        }
    }
}
