//! What travels on a lane: envelopes, back to back in a batch.
//!
//! An envelope is a fixed head, archived by rkyv with no alignment and always
//! read through the checked access, and the bytes its head counts (names, then
//! payload). The batch belongs to one core at a time; it is written by the
//! sender's shard and read in place by the receiver's.

use iris_protocol::{MessageId, Name, Outcome};
use iris_storage::UserHash;
use rkyv::{Archive, Serialize};

use super::slots::Key;
use super::unacked::ReplyTo;

/// A message on its way to its reader, borrowed from wherever it lies.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// The reader's name.
    pub target: Name<'a>,
    /// Hash of the reader's name.
    pub hash: UserHash,
    /// The sender's name.
    pub sender: &'a str,
    /// The sender, for answers and throttling.
    pub from: ReplyTo,
    /// Identity that a repeat keeps.
    pub id: MessageId,
    /// Unix time of sending, milliseconds.
    pub sent_at_ms: u64,
    /// Unix time after which it is not delivered any more; 0 is never.
    pub expires_at_ms: u64,
    /// The message.
    pub payload: &'a [u8],
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
    /// A user of the receiving core sends faster than the store of another can take.
    Throttle {
        /// The sender.
        user: Key,
    },
    /// A connection moves here with its login.
    Arrival {
        /// Net ring of the receiving core that holds the socket now.
        segment: u16,
        /// Slot of the socket in that ring.
        slot: u32,
        /// Whether it speaks the framed protocol.
        framed: bool,
        /// Who logs in.
        name: &'a str,
    },
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
    Throttle {
        user: u64,
    },
    Arrival {
        segment: u16,
        slot: u32,
        framed: bool,
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

const HEAD_LEN: usize = size_of::<ArchivedHead>();

fn push_head(batch: &mut Vec<u8>, head: &Head) {
    let writer = std::mem::take(batch);
    let mut serializer = rkyv::ser::Serializer::new(writer, (), ());
    rkyv::api::serialize_using::<_, rkyv::rancor::Panic>(head, &mut serializer)
        .unwrap_or_else(|never| match never {});
    *batch = serializer.into_writer();
}

/// Appends an envelope to a batch.
pub fn push(batch: &mut Vec<u8>, envelope: &Envelope<'_>) {
    match *envelope {
        Envelope::Deliver(parcel) => {
            push_head(
                batch,
                &Head::Deliver {
                    hash_high: (parcel.hash.0 >> 64) as u64,
                    hash_low: parcel.hash.0 as u64,
                    core: parcel.from.core,
                    user: parcel.from.user.token(),
                    id_sender: parcel.id.sender,
                    id_number: parcel.id.number,
                    sent_at_ms: parcel.sent_at_ms,
                    expires_at_ms: parcel.expires_at_ms,
                    target_len: parcel.target.len() as u8,
                    sender_len: parcel.sender.len() as u8,
                    payload_len: parcel.payload.len() as u32,
                },
            );
            batch.extend_from_slice(parcel.target.as_bytes());
            batch.extend_from_slice(parcel.sender.as_bytes());
            batch.extend_from_slice(parcel.payload);
        }
        Envelope::Answer {
            user,
            number,
            outcome,
        } => push_head(
            batch,
            &Head::Answer {
                user: user.token(),
                number,
                outcome: outcome.to_bytes(),
            },
        ),
        Envelope::Throttle { user } => push_head(batch, &Head::Throttle { user: user.token() }),
        Envelope::Arrival {
            segment,
            slot,
            framed,
            name,
        } => {
            push_head(
                batch,
                &Head::Arrival {
                    segment,
                    slot,
                    framed,
                    name_len: name.len() as u8,
                },
            );
            batch.extend_from_slice(name.as_bytes());
        }
        Envelope::Received { bytes, cut } => {
            push_head(
                batch,
                &Head::Received {
                    len: bytes.len() as u32,
                    cut,
                },
            );
            batch.extend_from_slice(bytes);
        }
        Envelope::Inquire {
            inquiry,
            connection,
            name,
        } => {
            push_head(
                batch,
                &Head::Inquire {
                    inquiry: inquiry as u8,
                    connection: connection.token(),
                    name_len: name.len() as u8,
                },
            );
            batch.extend_from_slice(name.as_bytes());
        }
        Envelope::Presence {
            connection,
            name,
            away_since_ms,
            notice,
        } => {
            push_head(
                batch,
                &Head::Presence {
                    connection: connection.token(),
                    online: away_since_ms.is_none(),
                    last_seen_ms: away_since_ms.unwrap_or(0),
                    notice: notice as u8,
                    name_len: name.len() as u8,
                },
            );
            batch.extend_from_slice(name.as_bytes());
        }
    }
}

fn joined(high: &rkyv::Archived<u64>, low: &rkyv::Archived<u64>) -> UserHash {
    UserHash(u128::from(high.to_native()) << 64 | u128::from(low.to_native()))
}

/// Reads the envelopes of a batch in place.
#[derive(Clone)]
pub struct Envelopes<'a> {
    rest: &'a [u8],
}

impl<'a> Envelopes<'a> {
    /// The envelopes of `batch`.
    pub fn new(batch: &'a [u8]) -> Envelopes<'a> {
        Envelopes { rest: batch }
    }

    /// Whether all were read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .expect("lanes carry whole envelopes, written by `push` in this process");
        self.rest = rest;
        head
    }

    fn take_head(&mut self) -> &'a ArchivedHead {
        rkyv::access::<ArchivedHead, rkyv::rancor::Failure>(self.take(HEAD_LEN))
            .expect("lanes carry whole envelopes, written by `push` in this process")
    }

    /// Whom they are for, those that are messages: a look ahead that reads nothing
    /// else of them.
    pub fn readers(mut self) -> impl Iterator<Item = Option<UserHash>> {
        std::iter::from_fn(move || (!self.is_empty()).then(|| self.pass_over()))
    }

    /// Passes over an envelope; says whom it is for if it is a message.
    fn pass_over(&mut self) -> Option<UserHash> {
        let (reader, len) = match self.take_head() {
            ArchivedHead::Deliver {
                hash_high,
                hash_low,
                target_len,
                sender_len,
                payload_len,
                ..
            } => {
                let names = usize::from(*target_len) + usize::from(*sender_len);
                let len = names + payload_len.to_native() as usize;
                (Some(joined(hash_high, hash_low)), len)
            }
            ArchivedHead::Answer { .. } | ArchivedHead::Throttle { .. } => (None, 0),
            ArchivedHead::Received { len, .. } => (None, len.to_native() as usize),
            ArchivedHead::Arrival { name_len, .. }
            | ArchivedHead::Inquire { name_len, .. }
            | ArchivedHead::Presence { name_len, .. } => (None, usize::from(*name_len)),
        };
        self.take(len);
        reader
    }

    fn take_name(&mut self, len: u8) -> &'a str {
        std::str::from_utf8(self.take(usize::from(len)))
            .expect("names were valid when they were pushed")
    }
}

impl<'a> Iterator for Envelopes<'a> {
    type Item = Envelope<'a>;

    fn next(&mut self) -> Option<Envelope<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        Some(match self.take_head() {
            ArchivedHead::Deliver {
                hash_high,
                hash_low,
                core,
                user,
                id_sender,
                id_number,
                sent_at_ms,
                expires_at_ms,
                target_len,
                sender_len,
                payload_len,
            } => Envelope::Deliver(Parcel {
                target: Name::parse(self.take(usize::from(*target_len)))
                    .expect("names were valid when they were pushed"),
                hash: joined(hash_high, hash_low),
                sender: self.take_name(*sender_len),
                from: ReplyTo {
                    core: core.to_native(),
                    user: Key::from_token(user.to_native()),
                },
                id: MessageId {
                    sender: id_sender.to_native(),
                    number: id_number.to_native(),
                },
                sent_at_ms: sent_at_ms.to_native(),
                expires_at_ms: expires_at_ms.to_native(),
                payload: self.take(payload_len.to_native() as usize),
            }),
            ArchivedHead::Answer {
                user,
                number,
                outcome,
            } => Envelope::Answer {
                user: Key::from_token(user.to_native()),
                number: number.to_native(),
                outcome: Outcome::from_bytes(*outcome)
                    .expect("outcomes were valid when they were pushed"),
            },
            ArchivedHead::Throttle { user } => Envelope::Throttle {
                user: Key::from_token(user.to_native()),
            },
            ArchivedHead::Arrival {
                segment,
                slot,
                framed,
                name_len,
            } => Envelope::Arrival {
                segment: segment.to_native(),
                slot: slot.to_native(),
                framed: *framed,
                name: self.take_name(*name_len),
            },
            ArchivedHead::Received { len, cut } => Envelope::Received {
                bytes: self.take(len.to_native() as usize),
                cut: *cut,
            },
            ArchivedHead::Inquire {
                inquiry,
                connection,
                name_len,
            } => Envelope::Inquire {
                inquiry: match inquiry {
                    0 => Inquiry::Ask,
                    1 => Inquiry::Follow,
                    _ => Inquiry::Unfollow,
                },
                connection: Key::from_token(connection.to_native()),
                name: self.take_name(*name_len),
            },
            ArchivedHead::Presence {
                connection,
                online,
                last_seen_ms,
                notice,
                name_len,
            } => Envelope::Presence {
                connection: Key::from_token(connection.to_native()),
                name: self.take_name(*name_len),
                away_since_ms: (!*online).then_some(last_seen_ms.to_native()),
                notice: match notice {
                    0 => Notice::Answer,
                    1 => Notice::FollowRefused,
                    _ => Notice::Change,
                },
            },
        })
    }
}

#[cfg(test)]
mod tests;
