//! The way back: what became of a message, told to its sender.
//!
//! Owner: the sender's shard for its sends; the reader's shard begins each
//! answer. An answer is given once for each send; a repeat of a send whose
//! answer is remembered gets it again without being delivered again.

use iris_protocol::Outcome;
use iris_protocol::framed::{self, Answer};

use super::Shard;
use super::connection::Phase;
use super::envelope::{self, Envelope};
use super::ids::Origin;
use super::slots::Key;
use super::unacked::{Passport, ReplyTo};
use super::user::Sends;

impl Shard {
    /// Tells whoever waits for it what became of a message.
    pub(super) fn answer(&mut self, reply: Option<ReplyTo>, origin: Origin, outcome: Outcome) {
        if let Outcome::Refused(reason) = outcome {
            self.metrics.count_refusal(reason);
        }
        let Some(ReplyTo { core, user }) = reply else {
            return;
        };
        if core == self.core {
            self.answered(user, origin.number, outcome);
        } else {
            let batch = &mut self.lanes[usize::from(core)].batch;
            let number = origin.number;
            envelope::push(
                batch,
                &Envelope::Answer {
                    user,
                    number,
                    outcome,
                },
            );
        }
    }

    /// The answer to a send of a user of this core.
    pub(super) fn answered(&mut self, user_key: Key, number: u64, outcome: Outcome) {
        let remembered_max = self.limits.remembered_answers_max;
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        let Some(sends) = user.sends.as_mut() else {
            return;
        };
        let Ok(at) = sends.place_of(number) else {
            return;
        };
        if sends.recent[at].outcome.is_some() {
            return;
        }
        sends.unanswered -= 1;
        if matches!(outcome, Outcome::Refused(_)) {
            // A refusal is not remembered: the same send may be tried again.
            sends.recent.remove(at);
        } else {
            sends.recent[at].outcome = Some(outcome);
        }
        // A few at once: the oldest are far from any cache, four of them on a line.
        let answered = |sends: &Sends| sends.recent.len() - sends.unanswered as usize;
        if answered(sends) > remembered_max + remembered_max / 4 {
            // Those that wait stand in front, so the search is short; behind one that waits
            // for long, the answered ones do not pile up.
            while answered(sends) > remembered_max {
                let oldest = sends
                    .recent
                    .iter()
                    .position(|send| send.outcome.is_some())
                    .expect("more are known than wait");
                sends.recent.remove(oldest);
            }
        }
        let session = user.session;
        if session != Key::NONE {
            self.push_answer(session, number, outcome);
        }
    }

    /// Puts an answer on its way to a connection.
    pub(super) fn push_answer(&mut self, id: Key, sequence: u64, outcome: Outcome) {
        if let Some(connection) = self.connections.get_mut(id)
            && connection.is_framed()
            && connection.has_session()
        {
            let message = self.ids.of(Origin {
                sender: connection.sender_id,
                number: sequence,
            });
            let outbox = connection.outbox.get_or_insert_with(|| self.pool.outbox());
            outbox.answers.push(Answer {
                sequence,
                id: message,
                outcome,
            });
            self.mark_dirty(id);
        }
    }

    /// Puts the answers of this turn into one frame.
    pub(super) fn encode_answers(&mut self, id: Key) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        // Only framed clients are answered, and nothing goes before the answer to the login.
        if !connection.is_framed() || connection.phase == Phase::Welcoming {
            return;
        }
        let Some(outbox) = connection.outbox.as_mut() else {
            return;
        };
        if outbox.answers.is_empty() {
            return;
        }
        let answers = std::mem::take(&mut outbox.answers);
        for frame in answers.chunks(framed::ANSWERS_MAX) {
            let len = framed::encode::answers_len(frame.len());
            outbox.push_answer(&mut self.pool, len, |out| {
                framed::encode::answers(out, frame)
            });
        }
        outbox.answers = answers;
        outbox.answers.clear();
        outbox.count_memory(&mut self.pool);
        self.pause_if_flooded(id);
    }

    /// The passport of a message as its reader's outbox keeps it.
    pub(super) fn reply_of(from: ReplyTo, origin: Origin) -> Option<ReplyTo> {
        // Numbers of the gateway's own are of classic senders, who know no answers.
        (origin.number <= iris_protocol::SEQUENCE_MAX).then_some(from)
    }
}

impl Passport {
    /// The passport of a parcel.
    pub(super) fn of(parcel: &envelope::Parcel<'_>) -> Passport {
        Passport {
            origin: parcel.origin,
            sent_at_ms: parcel.sent_at_ms,
            expires_at_ms: parcel.expires_at_ms,
            reply: Shard::reply_of(parcel.from, parcel.origin),
        }
    }
}
