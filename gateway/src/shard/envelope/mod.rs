//! What travels on a lane: envelopes, back to back in a batch.
//!
//! An envelope is a fixed head, archived by rkyv with no alignment and always
//! read through the checked access, and the bytes its head counts (names, then
//! payload). The batch belongs to one core at a time; it is written by the
//! sender's shard and read in place by the receiver's.

mod read;
mod write;

use iris_protocol::{Name, Outcome};
use iris_storage::UserHash;
use rkyv::{Archive, Serialize};

use super::ids::Origin;
use super::slots::Key;
use super::unacked::ReplyTo;

pub use read::{Envelopes, Whom};
pub use write::push;

/// A message on its way to its reader, borrowed from wherever it lies.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// The reader's name.
    pub target: Name<'a>,
    /// Hash of the reader's name.
    pub hash: UserHash,
    /// The sender's name.
    pub sender: &'a str,
    /// The sender, for answers, and to be held up.
    pub from: ReplyTo,
    /// Which message it is; a repeat has the same.
    pub origin: Origin,
    /// Unix time of sending, milliseconds.
    pub sent_at_ms: u64,
    /// Unix time after which it is not delivered any more; 0 is never.
    pub expires_at_ms: u64,
    /// The message.
    pub payload: &'a [u8],
}

/// A connection that moves to the core its user is at home on.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Net ring of the receiving core that holds the socket now.
    pub segment: u16,
    /// Slot of the socket in that ring.
    pub slot: u32,
    /// Where its peer is: the drivers' number for it.
    pub place: u32,
    /// Whether it speaks the framed protocol.
    pub framed: bool,
    /// How far its logins are ahead of their time, microseconds.
    pub relogins_ahead_us: u64,
    /// Who logs in.
    pub name: &'a str,
}

/// What a framed client asks about another user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inquiry {
    /// Is the user online now?
    Ask,
    /// The same, and tell me of changes.
    Follow,
    /// Tell me no more.
    Unfollow,
}

/// Why somebody is told about a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// It asked.
    Answer,
    /// It asked to follow, but the user has as many followers as it may.
    FollowRefused,
    /// It follows, and the user came or went.
    Change,
    /// It asked, but the store keeps another user under the name's key.
    NameCollision,
}

/// A decoded envelope. Connections and users are keys of the core that is meant.
#[derive(Clone, Copy, Debug)]
pub enum Envelope<'a> {
    /// A message for a user of the receiving core.
    Deliver(Parcel<'a>),
    /// What became of a message that a user of the receiving core sent.
    Answer {
        /// The sender.
        user: Key,
        /// The sender's own number of the message.
        number: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// A user of the receiving core has no room at the store of another for what it sends, or has room again.
    Room {
        /// The sender.
        user: Key,
        /// It has none.
        held: bool,
    },
    /// A connection moves here with its login.
    Arrival(Arrival<'a>),
    /// Bytes that the connection of the last [`Envelope::Arrival`] had received before.
    Received {
        /// The bytes of one segment.
        bytes: &'a [u8],
        /// More of what arrived with them follows.
        cut: bool,
    },
    /// A question about a user of the receiving core.
    Inquire {
        /// What is asked.
        inquiry: Inquiry,
        /// The asking connection, on the core that sent this.
        connection: Key,
        /// The user in question.
        name: &'a str,
    },
    /// The answer to a question, or a change of a user one follows.
    Presence {
        /// The connection that is told.
        connection: Key,
        /// The user in question.
        name: &'a str,
        /// `None` while online, else when last seen, Unix milliseconds, 0 for never.
        away_since_ms: Option<u64>,
        /// Why it is told.
        notice: Notice,
    },
}

#[derive(Archive, Serialize)]
enum Head {
    Deliver {
        hash_high: u64,
        hash_low: u64,
        core: u16,
        user: u64,
        id_sender: u64,
        id_number: u64,
        sent_at_ms: u64,
        expires_at_ms: u64,
        target_len: u8,
        sender_len: u8,
        payload_len: u32,
    },
    Answer {
        user: u64,
        number: u64,
        outcome: [u8; 2],
    },
    Room {
        user: u64,
        held: bool,
    },
    Arrival {
        segment: u16,
        slot: u32,
        place: u32,
        framed: bool,
        relogins_ahead_us: u64,
        name_len: u8,
    },
    Received {
        len: u32,
        cut: bool,
    },
    Inquire {
        inquiry: u8,
        connection: u64,
        name_len: u8,
    },
    Presence {
        connection: u64,
        online: bool,
        last_seen_ms: u64,
        notice: u8,
        name_len: u8,
    },
}

#[cfg(test)]
mod tests;
