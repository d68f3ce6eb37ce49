//! Reads the envelopes of a batch in place.
//!
//! What a lane carries was written by [`push`](super::push) in this process, so a batch that cannot be read is a fault
//! of ours, and no peer can cause one.

use iris_protocol::{Name, Outcome};
use iris_storage::UserHash;

use super::{ArchivedHead, Arrival, Envelope, Inquiry, Notice, Parcel};
use crate::shard::ids::Origin;
use crate::shard::slots::Key;
use crate::shard::unacked::ReplyTo;

const HEAD_LEN: usize = size_of::<ArchivedHead>();

/// Whom an envelope is for, as far as the look ahead asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whom {
    /// The reader of a message.
    Reader(UserHash),
    /// The sender of one, who is answered.
    Sender(Key),
    /// Anyone else: these are rare.
    Other,
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

    #[inline(always)]
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .expect("lanes carry whole envelopes, written by `push` in this process");
        self.rest = rest;
        head
    }

    #[inline(always)]
    fn take_head(&mut self) -> &'a ArchivedHead {
        rkyv::access::<ArchivedHead, rkyv::rancor::Failure>(self.take(HEAD_LEN))
            .expect("lanes carry whole envelopes, written by `push` in this process")
    }

    /// Whom they are for: a look ahead that reads nothing else of them.
    pub fn whom(mut self) -> impl Iterator<Item = Whom> {
        std::iter::from_fn(move || (!self.is_empty()).then(|| self.pass_over()))
    }

    /// Passes over an envelope; says whom it is for.
    fn pass_over(&mut self) -> Whom {
        let (whom, len) = match self.take_head() {
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
                (Whom::Reader(joined(hash_high, hash_low)), len)
            }
            ArchivedHead::Answer { user, .. } => {
                (Whom::Sender(Key::from_token(user.to_native())), 0)
            }
            ArchivedHead::Room { .. } => (Whom::Other, 0),
            ArchivedHead::Received { len, .. } => (Whom::Other, len.to_native() as usize),
            ArchivedHead::Arrival { name_len, .. }
            | ArchivedHead::Inquire { name_len, .. }
            | ArchivedHead::Presence { name_len, .. } => (Whom::Other, usize::from(*name_len)),
        };
        self.take(len);
        whom
    }

    /// The next envelope, if it is a message.
    // Inlined, for the same reason as `Shard::deliver`, which it is for.
    #[inline(always)]
    pub fn next_parcel(&mut self) -> Option<Parcel<'a>> {
        if self.is_empty() {
            return None;
        }
        let mut rest = self.clone();
        let head = rest.take_head();
        let parcel = rest.take_parcel(head)?;
        *self = rest;
        Some(parcel)
    }

    /// The message that this head, taken just now, is of; `None` if it is of something else.
    #[inline(always)]
    fn take_parcel(&mut self, head: &ArchivedHead) -> Option<Parcel<'a>> {
        let ArchivedHead::Deliver {
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
        } = head
        else {
            return None;
        };
        Some(Parcel {
            target: Name::parse(self.take(usize::from(*target_len)))
                .expect("names were valid when they were pushed"),
            hash: joined(hash_high, hash_low),
            sender: self.take_name(*sender_len),
            from: ReplyTo {
                core: core.to_native(),
                user: Key::from_token(user.to_native()),
            },
            origin: Origin {
                sender: id_sender.to_native(),
                number: id_number.to_native(),
            },
            sent_at_ms: sent_at_ms.to_native(),
            expires_at_ms: expires_at_ms.to_native(),
            payload: self.take(payload_len.to_native() as usize),
        })
    }

    #[inline(always)]
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
        let head = self.take_head();
        Some(match head {
            ArchivedHead::Deliver { .. } => Envelope::Deliver(self.take_parcel(head)?),
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
            ArchivedHead::Room { user, held } => Envelope::Room {
                user: Key::from_token(user.to_native()),
                held: *held,
            },
            ArchivedHead::Arrival {
                segment,
                slot,
                place,
                framed,
                relogins_ahead_us,
                name_len,
            } => Envelope::Arrival(Arrival {
                segment: segment.to_native(),
                slot: slot.to_native(),
                place: place.to_native(),
                framed: *framed,
                relogins_ahead_us: relogins_ahead_us.to_native(),
                name: self.take_name(*name_len),
            }),
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
                    2 => Notice::Change,
                    _ => Notice::NameCollision,
                },
            },
        })
    }
}

fn joined(high: &rkyv::Archived<u64>, low: &rkyv::Archived<u64>) -> UserHash {
    UserHash(u128::from(high.to_native()) << 64 | u128::from(low.to_native()))
}
