//! A user at home: its session, the state of its inbox, what it waits for, who
//! follows it.
//!
//! Owner: the shard of the user's home core. An entry exists while the user is
//! online or anything about it is under way; an absent user about whom nothing
//! is under way costs no memory.

use std::collections::VecDeque;
use std::rc::Rc;

use iris_protocol::Outcome;
use iris_storage::UserHash;

use super::slots::Key;

/// How messages reach a user's session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Flow {
    /// From the sender straight into the outbox.
    Live,
    /// Through the inbox: there are older messages to deliver first.
    Draining {
        /// A page was asked for.
        page_asked: bool,
        /// Not before this moment, milliseconds: the store failed.
        retry_at_ms: u64,
        /// The last page ended where the inbox ended; only appends that are under
        /// way stand between here and [`Flow::Live`].
        at_end: bool,
        /// Messages that came meanwhile, as envelopes, to follow those appends.
        held: Vec<u8>,
    },
}

impl Flow {
    /// The start of every session.
    pub fn draining() -> Flow {
        Flow::Draining {
            page_asked: false,
            retry_at_ms: 0,
            at_end: false,
            held: Vec::new(),
        }
    }
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
}

/// A connection, here or on another core, that wants to know about a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Follower {
    /// Core of the connection.
    pub core: u16,
    /// The connection there.
    pub connection: Key,
}

/// State of one user.
pub struct User {
    /// Hash of the name.
    pub hash: UserHash,
    /// The name.
    pub name: Rc<str>,
    /// Its session's connection, or [`Key::NONE`].
    pub session: Key,
    /// Counts the sessions, so that replies meant for an older one are known.
    pub session_number: u32,
    /// A login that waits for the session to end, or [`Key::NONE`].
    pub waiting: Key,
    /// How messages reach the session.
    pub flow: Flow,
    /// Sequence of the first message of the inbox that the session has not been given.
    pub next_sequence: u64,
    /// Sequence behind the newest message that is known to be in the inbox.
    pub tail_sequence: u64,
    /// Appends under way.
    pub appending: u32,
    /// Those among them that the session has been given already.
    pub spilling: u32,
    /// First sequence that its reader has not acknowledged, as far as known here.
    pub head: u64,
    /// The head that the store was told last.
    pub head_told: u64,
    /// A burn is under way.
    pub burning: bool,
    /// Other store requests under way.
    pub requests: u32,
    /// Its sends, if it sent any lately.
    pub sends: Option<Box<Sends>>,
    /// Who wants to know about it.
    pub followers: Vec<Follower>,
    /// When its last session ended, Unix milliseconds; 0 if that is not known here.
    pub last_seen_ms: u64,
}

impl User {
    /// A user about whom nothing is known yet.
    pub fn new(hash: UserHash, name: &str) -> User {
        User {
            hash,
            name: Rc::from(name),
            session: Key::NONE,
            session_number: 0,
            waiting: Key::NONE,
            flow: Flow::Live,
            next_sequence: 0,
            tail_sequence: 0,
            appending: 0,
            spilling: 0,
            head: 0,
            head_told: 0,
            burning: false,
            requests: 0,
            sends: None,
            followers: Vec::new(),
            last_seen_ms: 0,
        }
    }

    /// First half of the ids of its messages: the same for as long as the store
    /// lives, so that a repeat keeps its id.
    pub fn sender_id(&self) -> u64 {
        (self.hash.0 >> 64) as u64
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
            && self.sends.is_none()
            && self.followers.is_empty()
    }
}
