//! Admission: may this message enter, and where is its reader's home?
//!
//! Owner: the sender's shard. A message that is admitted goes to its reader's
//! shard, here or over a lane, exactly once; a lane without room stops its
//! sender from being read until there is room, so nothing is dropped.

use iris_protocol::{Name, Outcome, RefusalReason, SEQUENCE_MAX};
use iris_storage::UserHash;

use super::Shard;
use super::ahead::BLOCK;
use super::connection::Pause;
use super::envelope::{self, Envelope, Envelopes, Parcel};
use super::ids::Origin;
use super::slots::Key;
use super::unacked::ReplyTo;
use super::user::{Send, Sends};

/// What the sender of a framed message said besides target and payload.
#[derive(Clone, Copy)]
pub(super) struct FramedSend {
    pub(super) sequence: u64,
    pub(super) ttl_seconds: u32,
}

impl Shard {
    /// A framed client sends; `false` if it has to be read again later.
    pub(super) fn framed_send(
        &mut self,
        id: Key,
        sequence: u64,
        ttl_seconds: u32,
        target: &[u8],
        payload: &[u8],
    ) -> bool {
        if sequence == 0 || sequence > SEQUENCE_MAX {
            self.refuse_send(id, sequence, RefusalReason::BadSequence);
            return true;
        }
        let Ok(target) = Name::parse(target) else {
            self.refuse_send(id, sequence, RefusalReason::BadTarget);
            return true;
        };
        if self.draining {
            self.refuse_send(id, sequence, RefusalReason::Draining);
            return true;
        }
        let send = FramedSend {
            sequence,
            ttl_seconds,
        };
        let hash = self.name_key.hash(target.as_bytes());
        self.route(id, target, hash, Some(send), payload)
    }

    /// Sends a message of the user on this connection on its way, to the user with
    /// this name and its `hash`; `false` if there is no room for it now and it has to
    /// be read again later.
    pub(super) fn route(
        &mut self,
        id: Key,
        target: Name<'_>,
        hash: UserHash,
        framed: Option<FramedSend>,
        payload: &[u8],
    ) -> bool {
        let Some(connection) = self.connections.get(id) else {
            return true;
        };
        let Some(sender) = connection.name.clone() else {
            return true;
        };
        let (user_key, sender_id) = (connection.user, connection.sender_id);
        if payload.len() > self.limits.payload_bytes_max as usize {
            // Only a classic send gets here; its protocol has no answer.
            self.metrics.count_refusal(RefusalReason::PayloadTooLarge);
            return true;
        }
        let home = hash.home(usize::from(self.cores));
        if home != usize::from(self.core)
            && self.lanes[home].batch.len() > self.limits.lane_batch_bytes_max
        {
            self.lanes[home].waiting.push_back(id);
            self.metrics.lane_full_pauses += 1;
            self.pause(id, Pause::LANE);
            return false;
        }
        let from = ReplyTo {
            core: self.core,
            user: user_key,
        };
        if self.is_store_busy()
            && home == usize::from(self.core)
            && self.goes_to_store(hash)
            && self.waits_for_store(from)
        {
            return false;
        }
        let (number, ttl_ms) = match framed {
            None => {
                let number = self.next_number;
                self.next_number += 1;
                self.metrics.received_classic += 1;
                (number, self.limits.ttl_default_ms)
            }
            Some(send) => {
                let Some(user) = self.users.get_mut(user_key) else {
                    return true;
                };
                let sends = user.sends.get_or_insert_default();
                sends.last_at_ms = self.now.core_ms;
                match sends.find_or_begin(send.sequence, self.limits.unanswered_sends_max) {
                    Begun::New => {}
                    Begun::TooMany => {
                        self.refuse_send(id, send.sequence, RefusalReason::Overloaded);
                        return true;
                    }
                    Begun::Known(outcome) => {
                        self.metrics.duplicates_dropped += 1;
                        if let Some(outcome) = outcome {
                            self.push_answer(id, send.sequence, outcome);
                        }
                        return true;
                    }
                }
                self.metrics.received_framed += 1;
                let ttl_ms = match u64::from(send.ttl_seconds) * 1000 {
                    0 => self.limits.ttl_default_ms,
                    asked => asked.min(self.limits.ttl_max_ms),
                };
                (send.sequence, ttl_ms)
            }
        };
        let parcel = Parcel {
            target,
            hash,
            sender: &sender,
            from,
            origin: Origin {
                sender: sender_id,
                number,
            },
            sent_at_ms: self.now.unix_ms,
            expires_at_ms: self.now.unix_ms + ttl_ms,
            payload,
        };
        if home == usize::from(self.core) {
            self.deliver(&parcel);
        } else {
            self.metrics.lane_sent += 1;
            let batch = &mut self.lanes[home].batch;
            envelope::push(batch, &Envelope::Deliver(parcel));
            self.lanes_due |= batch.len() > self.limits.lane_batch_bytes_max / 2;
        }
        true
    }

    /// Answers a send that is not even looked at.
    pub(super) fn refuse_send(&mut self, id: Key, sequence: u64, reason: RefusalReason) {
        self.metrics.count_refusal(reason);
        self.push_answer(id, sequence, Outcome::Refused(reason));
    }

    /// A batch of envelopes came from another core.
    pub fn lane_received(&mut self, from_core: u16, batch: &[u8]) {
        let mut arrived = Key::NONE;
        let mut envelopes = Envelopes::new(batch);
        while !envelopes.is_empty() {
            self.expect_envelopes(envelopes.clone().whom().take(BLOCK));
            for _ in 0..BLOCK {
                if let Some(parcel) = envelopes.next_parcel() {
                    self.metrics.lane_received += 1;
                    self.deliver(&parcel);
                } else if let Some(envelope) = envelopes.next() {
                    self.envelope_received(from_core, &mut arrived, envelope);
                } else {
                    break;
                }
            }
        }
    }

    /// Takes an envelope that is no message. `arrived` is the connection that moved here last: what it
    /// had received before follows it.
    fn envelope_received(&mut self, from_core: u16, arrived: &mut Key, envelope: Envelope<'_>) {
        match envelope {
            Envelope::Deliver(_) => unreachable!("messages are taken by `next_parcel`"),
            Envelope::Answer {
                user,
                number,
                outcome,
            } => self.answered(user, number, outcome),
            Envelope::Room { user, held } => self.sender_told(user, held),
            Envelope::Arrival(arrival) => *arrived = self.arrival(&arrival),
            Envelope::Received { bytes, cut: false } => self.received(*arrived, bytes),
            Envelope::Received { bytes, cut: true } => self.received_cut(*arrived, bytes),
            Envelope::Inquire {
                inquiry,
                connection,
                name,
            } => self.inquired(from_core, connection, inquiry, name),
            Envelope::Presence {
                connection,
                name,
                away_since_ms,
                notice,
            } => self.presence_told(connection, name, away_since_ms, notice),
        }
    }
}

/// Whether a send is one that is known.
enum Begun {
    /// It is new, and waits for its answer from now on.
    New,
    /// It is new, and one too many.
    TooMany,
    /// It is a repeat; its answer is given again, or given to both once it is known.
    Known(Option<Outcome>),
}

impl Sends {
    fn find_or_begin(&mut self, sequence: u64, unanswered_max: u32) -> Begun {
        match self.place_of(sequence) {
            Ok(at) => Begun::Known(self.recent[at].outcome),
            Err(_) if self.unanswered >= unanswered_max => Begun::TooMany,
            Err(at) => {
                self.unanswered += 1;
                let outcome = None;
                self.recent.insert(at, Send { sequence, outcome });
                Begun::New
            }
        }
    }
}
