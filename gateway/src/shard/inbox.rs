//! The inbox of a user of this core: appends, burns, and the way back into it for
//! what a reader did not take. The way out is in `drain`.
//!
//! Owner: the reader's shard. The store does the work on threads of its own;
//! here is who waits for which reply.

use iris_protocol::{Outcome, RefusalReason};
use iris_storage::{FailureKind, NewRecord, Reply, Request, record};

use super::Shard;
use super::deliver::is_expired;
use super::envelope::{self, Envelope, Parcel};
use super::followers::Follower;
use super::limits::STORE_RETRY_MS;
use super::reads::PageAsked;
use super::slots::Key;
use super::unacked::{Passport, ReplyTo, Stored};

/// A message's append that waits for the store.
pub(super) struct Append {
    user: Key,
    passport: Passport,
    /// What it counts for against the limit.
    bytes: u64,
    /// The session it was given to as well, and its delivery number there.
    given: Option<(Key, u64)>,
    /// Whose share it counts for, if it came from its sender just now and not out of an outbox.
    sender: Option<ReplyTo>,
    /// Its reader has acknowledged it meanwhile.
    acknowledged: bool,
}

/// Who waits for a reply of the store.
pub(super) enum Pending {
    /// An append.
    Append(Append),
    /// A burn of this user's inbox, up to this head.
    Burn { user: Key, head: u64 },
    /// A page for a session.
    Page(PageAsked),
    /// The depth of the inbox, for the answer to a login.
    Welcome { user: Key, connection: Key },
    /// When a user was last seen, for a connection of this or another core.
    LastSeen {
        user: Key,
        core: u16,
        connection: Key,
    },
}

/// Memory of an append besides its record: the request, who waits for it, and an
/// absent user's entry. Many small messages to as many absent users cost more by
/// these than by what they say.
pub const APPEND_BYTES: usize = 640;

/// What an append of a record of so many bytes counts for.
fn append_bytes(record_len: usize) -> u64 {
    (record_len + APPEND_BYTES) as u64
}

/// What a sender is told when the store did not do an append.
fn reason_of(error: FailureKind) -> RefusalReason {
    match error {
        FailureKind::Overloaded => RefusalReason::Overloaded,
        FailureKind::InboxFull | FailureKind::InboxShare => RefusalReason::InboxFull,
        FailureKind::NameCollision | FailureKind::BadRequest => RefusalReason::BadTarget,
        _ => RefusalReason::Storage,
    }
}

impl Shard {
    /// Stores a message for a user.
    pub(super) fn append_parcel(&mut self, user_key: Key, parcel: &Parcel<'_>) {
        let passport = Passport::of(parcel);
        let token = self.append(user_key, parcel.sender, parcel.payload, passport, None);
        if let Some(Pending::Append(append)) = self.pending.get_mut(token as usize) {
            append.sender = Some(parcel.from);
            let bytes = append.bytes;
            self.count_append(parcel.from, bytes);
        }
    }

    /// Stores what was held back, in order. It was admitted before: only what has expired is refused now.
    pub(super) fn append_held(&mut self, user_key: Key, held: &[u8]) {
        for envelope in envelope::Envelopes::new(held) {
            if let Envelope::Deliver(parcel) = envelope {
                let passport = Passport::of(&parcel);
                if is_expired(passport.expires_at_ms, self.now.unix_ms) {
                    let expired = Outcome::Refused(RefusalReason::Expired);
                    self.answer(passport.reply, passport.origin, expired);
                    continue;
                }
                self.metrics.spilled += 1;
                self.append(user_key, parcel.sender, parcel.payload, passport, None);
            }
        }
    }

    fn append(
        &mut self,
        user_key: Key,
        sender: &str,
        payload: &[u8],
        passport: Passport,
        given: Option<(Key, u64)>,
    ) -> u32 {
        let Some(user) = self.users.get_mut(user_key) else {
            return u32::MAX;
        };
        let mut bytes = Vec::with_capacity(record::OVERHEAD + sender.len() + payload.len());
        record::encode(
            &mut bytes,
            &NewRecord {
                id_sender: passport.origin.sender,
                id_number: passport.origin.number,
                sent_at_ms: passport.sent_at_ms,
                expires_at_ms: passport.expires_at_ms,
                sender,
                payload,
            },
        );
        user.appending += 1;
        user.spilling += u32::from(given.is_some());
        self.store_pending_bytes += append_bytes(bytes.len());
        let token = self.pending.insert(Pending::Append(Append {
            user: user_key,
            passport,
            bytes: append_bytes(bytes.len()),
            given,
            sender: None,
            acknowledged: false,
        }));
        self.effects.store.push(Request::Append {
            token: token as u64,
            user: user.hash(self.name_key),
            name: Box::from(&*user.name),
            record: bytes,
        });
        token as u32
    }

    /// Stores what an online reader is behind with; from now on its messages go
    /// through the inbox until it has caught up.
    pub(super) fn spill(&mut self, user_key: Key) {
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        let session = user.session;
        user.drain = Some(Box::default());
        if let Some(connection) = self.connections.get_mut(session) {
            connection.drains = true;
        }
        let spilled = self.append_unacked(session, user_key, true);
        self.metrics.spilled += spilled;
    }

    /// At the end of a session: what is neither acknowledged nor stored goes back.
    pub(super) fn return_unacked(&mut self, id: Key, user_key: Key) {
        let returned = self.append_unacked(id, user_key, false);
        self.metrics.returned += returned;
        if let Some(outbox) = self.connections.get_mut(id).and_then(|c| c.outbox.as_mut()) {
            outbox.abandon_unacked(&mut self.pool);
        }
        let held = match self.users.get_mut(user_key).map(|user| &mut user.drain) {
            Some(Some(drain)) => std::mem::take(&mut drain.held),
            _ => Vec::new(),
        };
        self.pool.budget.release(held.capacity() as u64);
        self.append_held(user_key, &held);
    }

    fn append_unacked(&mut self, id: Key, user_key: Key, stays_given: bool) -> u64 {
        let Some(connection) = self.connections.get_mut(id) else {
            return 0;
        };
        let deliveries = connection.deliveries;
        let Some(mut outbox) = connection.outbox.take() else {
            return 0;
        };
        let mut appended = 0;
        let mut number = deliveries - outbox.unacked_len() as u64;
        outbox.visit_unacked(|entry, message| {
            number += 1;
            if let Some((sender, payload)) = message {
                if is_expired(entry.passport.expires_at_ms, self.now.unix_ms) {
                    // While the session has it, its reader may yet acknowledge it.
                    if !stays_given {
                        let expired = Outcome::Refused(RefusalReason::Expired);
                        self.answer(entry.passport.reply, entry.passport.origin, expired);
                    }
                    return Stored::Failed(RefusalReason::Expired);
                }
                let given = stays_given.then_some((id, number));
                let token = self.append(user_key, sender, payload, entry.passport, given);
                appended += 1;
                return Stored::Appending(token);
            }
            if let Stored::Failed(reason) = entry.stored
                && !stays_given
            {
                let refused = Outcome::Refused(reason);
                self.answer(entry.passport.reply, entry.passport.origin, refused);
            }
            entry.stored
        });
        // What was sent need not be kept for the way back any more.
        outbox.release(&mut self.pool);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.outbox = Some(outbox);
        }
        appended
    }

    /// A message was acknowledged while the store still writes it.
    pub(super) fn acknowledged_while_appending(&mut self, token: u32) {
        if let Some(Pending::Append(append)) = self.pending.get_mut(token as usize) {
            append.acknowledged = true;
            append.passport.reply = None;
        }
    }

    /// Everything before `head` is in its reader's hands.
    pub(super) fn burn_to(&mut self, user_key: Key, head: u64) {
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        user.head = user.head.max(head);
        if user.burning || user.head == user.head_told {
            return;
        }
        user.burning = true;
        let token = self.pending.insert(Pending::Burn {
            user: user_key,
            head: user.head,
        });
        self.effects.store.push(Request::Burn {
            token: token as u64,
            user: user.hash(self.name_key),
            name: Box::from(&*user.name),
            head: user.head,
        });
    }

    /// A reply of the store.
    pub fn stored(&mut self, reply: Reply) {
        let Some(pending) = self.pending.try_remove(reply.token() as usize) else {
            return;
        };
        match (pending, reply) {
            (Pending::Append(append), Reply::Appended { sequence, .. }) => {
                self.appended(&append, Ok(sequence));
                self.let_go_of_senders();
            }
            (Pending::Append(append), reply) => {
                let error = match reply {
                    Reply::Failed { error, .. } => error,
                    _ => FailureKind::BadRequest,
                };
                self.appended(&append, Err(error));
                self.let_go_of_senders();
            }
            (Pending::Burn { user, head }, reply) => {
                let done = matches!(reply, Reply::Burned { .. });
                self.burned(user, head, done);
            }
            (Pending::Page(asked), reply) => self.page_replied(asked, reply),
            (Pending::Welcome { user, connection }, reply) => {
                self.depth_replied(user, connection, &reply);
            }
            (
                Pending::LastSeen {
                    user,
                    core,
                    connection,
                },
                reply,
            ) => {
                self.request_done(user);
                let follower = Follower { core, connection };
                match reply {
                    Reply::Account { last_seen_ms, .. } => {
                        self.last_seen_known(user, follower, last_seen_ms);
                    }
                    Reply::Failed {
                        error: FailureKind::NameCollision,
                        ..
                    } => self.inquiry_collided(user, follower),
                    _ => self.last_seen_known(user, follower, 0),
                }
                self.forget_if_done(user);
            }
        }
    }

    pub(super) fn request_done(&mut self, user_key: Key) {
        if let Some(user) = self.users.get_mut(user_key) {
            user.requests -= 1;
        }
    }

    fn appended(&mut self, append: &Append, result: Result<u64, FailureKind>) {
        self.store_pending_bytes -= append.bytes;
        if let Some(sender) = append.sender {
            self.senders.remove(sender, append.bytes);
        }
        let user_key = append.user;
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        user.appending -= 1;
        user.spilling -= u32::from(append.given.is_some());
        if let Some(drain) = user.drain.as_deref_mut() {
            drain.appends_before = drain.appends_before.saturating_sub(1);
        }
        match result {
            Ok(sequence) => {
                user.tail_sequence = sequence + 1;
                self.metrics.stored += 1;
                self.answer(
                    append.passport.reply,
                    append.passport.origin,
                    Outcome::Stored,
                );
                let is_with_reader =
                    append.acknowledged || self.note_stored(append, Stored::At(sequence));
                if is_with_reader && let Some(user) = self.users.get_mut(user_key) {
                    user.next_sequence = user.next_sequence.max(sequence + 1);
                }
                if append.acknowledged {
                    self.burn_to(user_key, sequence + 1);
                }
            }
            Err(error) => {
                if error == FailureKind::NameCollision {
                    self.metrics.name_collisions += 1;
                } else {
                    self.metrics.store_failures += 1;
                }
                let reason = reason_of(error);
                if append.given.is_some() && self.note_stored(append, Stored::Failed(reason)) {
                    // The session still has it: its reader may yet acknowledge it.
                } else if !append.acknowledged {
                    self.answer(
                        append.passport.reply,
                        append.passport.origin,
                        Outcome::Refused(reason),
                    );
                }
            }
        }
        self.ask_depth(user_key);
        self.advance_drain(user_key);
        self.forget_if_done(user_key);
    }

    /// Notes in the session's outbox where a message stands in the store.
    fn note_stored(&mut self, append: &Append, stored: Stored) -> bool {
        let Some((id, number)) = append.given else {
            return false;
        };
        let Some(connection) = self.connections.get_mut(id) else {
            return false;
        };
        if connection.user != append.user {
            return false;
        }
        let from_back = connection.deliveries - number;
        connection
            .outbox
            .as_mut()
            .is_some_and(|outbox| outbox.set_stored(from_back, stored))
    }

    fn burned(&mut self, user_key: Key, head: u64, done: bool) {
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        user.burning = false;
        if done {
            user.head_told = head;
            self.burn_to(user_key, 0);
        } else if user.is_online() {
            // Tried again when its connection is looked at, whether its reader acknowledges more or not.
            user.head_told = user.head_told.min(head);
            let session = user.session;
            self.check_within(session, STORE_RETRY_MS);
        } else {
            // Not burned: its reader sees these again, with the same ids.
            user.head = user.head_told;
        }
        self.ask_depth(user_key);
        self.forget_if_done(user_key);
    }
}
