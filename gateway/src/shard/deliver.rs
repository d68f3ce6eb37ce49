//! A message has reached its reader's home: into the session's outbox, or to the
//! inbox; and what the reader acknowledges is done with.
//!
//! Owner: the reader's shard. Order is kept by one rule: while anything older is
//! on its way through the inbox, what is newer goes the same way.

use iris_protocol::framed;
use iris_protocol::{CloseReason, Outcome, RefusalReason};

use iris_storage::UserHash;

use super::Shard;
use super::ahead::BLOCK;
use super::connection::{Connection, Pause, Phase};
use super::envelope::{self, Envelope, Parcel};
use super::limits::{
    FULL_MS, PROBE_AFTER_MS, PROBE_AGAIN_MS, PROBE_MESSAGES, UNKNOWN_TIMES, UNSENT_TIMES,
};
use super::slots::Key;
use super::unacked::{Passport, Stored, Unacked};
use super::{Effect, Limits};

/// What a message that goes into an outbox is made of, wherever it comes from.
pub(super) struct Delivery<'a> {
    pub(super) sender: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) stored: Stored,
    pub(super) passport: Passport,
}

/// Whether a message's time to live is over; 0 is never.
#[inline(always)]
pub(super) fn is_expired(expires_at_ms: u64, now_ms: u64) -> bool {
    expires_at_ms != 0 && expires_at_ms <= now_ms
}

/// Whether a session has room for one more message in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Free,
    /// If it is not behind, which its kernel or its reader has not said yet.
    Unknown,
    No,
}

/// A session that holds as much as it may is not behind before its oldest message has waited for a while: a
/// classic one whose peer's TCP has it all is only known to once the kernel is asked, a framed one
/// acknowledges when its client is let run. Until then it may have more bytes; of a framed one,
/// which was told how many deliveries it may leave unacknowledged, no more of these.
#[inline(always)]
fn room_of(connection: &Connection, limits: &Limits, now_ms: u64) -> Room {
    let Some(outbox) = connection.outbox.as_ref() else {
        return Room::Free;
    };
    let (bytes, unacked) = (outbox.retained_bytes(), outbox.unacked_len() as u64);
    let unacked_max = u64::from(limits.unacked_deliveries_max);
    if bytes < limits.outbox_bytes_max && unacked < unacked_max {
        return Room::Free;
    }
    let is_within = bytes < UNKNOWN_TIMES * limits.outbox_bytes_max
        && outbox.unsent_bytes() < UNSENT_TIMES * limits.outbox_bytes_max;
    let may_have_more = if connection.is_framed() {
        let age_ms = outbox.unstored_age_ms(now_ms).unwrap_or(0);
        unacked < unacked_max && age_ms < FULL_MS
    } else {
        unacked < UNKNOWN_TIMES * unacked_max
    };
    if is_within && may_have_more {
        Room::Unknown
    } else {
        Room::No
    }
}

impl Shard {
    /// Delivers a message to a user of this core.
    // Inlined: a message's fields stay in registers. Through memory they are copied
    // in pairs, and each such load waits for every older store to a cold line.
    #[inline(always)]
    pub(super) fn deliver(&mut self, parcel: &Parcel<'_>) {
        let user_key = match self.directory.get(&parcel.hash) {
            Some(key) => *key,
            None => self.user_entry(parcel.hash, parcel.target.as_str()),
        };
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        if user.name.as_bytes() != parcel.target.as_bytes() {
            self.metrics.name_collisions += 1;
            self.answer(
                Self::reply_of(parcel.from, parcel.origin),
                parcel.origin,
                Outcome::Refused(RefusalReason::BadTarget),
            );
            return;
        }
        if is_expired(parcel.expires_at_ms, self.now.unix_ms) {
            self.answer(
                Self::reply_of(parcel.from, parcel.origin),
                parcel.origin,
                Outcome::Refused(RefusalReason::Expired),
            );
            self.forget_if_done(user_key);
            return;
        }
        if !user.is_online() {
            self.append_parcel(user_key, parcel);
            return;
        }
        let (session, is_live) = (user.session, user.drain.is_none());
        if self.pool.budget.is_short() && self.has_its_share(session, parcel.payload.len()) {
            if is_live {
                self.metrics.output_spills += 1;
                self.spill(user_key);
            } else {
                self.store_held(user_key);
            }
            self.append_parcel(user_key, parcel);
            return;
        }
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        match user.drain.as_deref_mut() {
            None => {
                let room = self
                    .connections
                    .get(session)
                    .map_or(Room::No, |connection| {
                        room_of(connection, &self.limits, self.now.core_ms)
                    });
                if room != Room::No {
                    let delivery = Delivery {
                        sender: parcel.sender,
                        payload: parcel.payload,
                        stored: Stored::No,
                        passport: Passport::of(parcel),
                    };
                    self.push_delivery(session, &delivery);
                    if room == Room::Unknown {
                        self.ask_if_classic(session);
                    }
                } else {
                    self.spill(user_key);
                    self.append_parcel(user_key, parcel);
                }
            }
            Some(drain)
                if drain.at_end
                    && ((drain.held.len() + parcel.payload.len()) as u64)
                        < UNSENT_TIMES * self.limits.outbox_bytes_max =>
            {
                let before = drain.held.capacity();
                envelope::push(&mut drain.held, &Envelope::Deliver(*parcel));
                let grown = drain.held.capacity() - before;
                self.pool.budget.charge(grown as u64);
            }
            Some(_) => {
                self.store_held(user_key);
                self.append_parcel(user_key, parcel);
            }
        }
    }

    /// Whether a message for a user of this core would go to the store now.
    #[cold]
    pub(super) fn goes_to_store(&self, reader: UserHash) -> bool {
        let user = self.directory.get(&reader);
        let user = user.and_then(|key| self.users.get(*key));
        let Some(user) = user.filter(|user| user.is_online()) else {
            return true;
        };
        match user.drain.as_deref() {
            None => self.connections.get(user.session).is_none_or(|connection| {
                room_of(connection, &self.limits, self.now.core_ms) == Room::No
            }),
            Some(drain) => !drain.at_end,
        }
    }

    /// Whether a session that is given a message with so long a payload would have more than its share, in its outbox
    /// and held for it, while memory is short. Whoever has nothing is given a message of any length, but none that is
    /// longer than a share while all memory is taken.
    #[cold]
    pub(super) fn has_its_share(&self, session: Key, payload_len: usize) -> bool {
        let Some(connection) = self.connections.get(session) else {
            return false;
        };
        let outbox = connection.outbox.as_ref();
        let retained = outbox.map_or(0, |outbox| outbox.retained_memory());
        let user = self.users.get(connection.user);
        let held = user.map_or(0, |user| user.drain.as_ref().map_or(0, |d| d.held.len()));
        let has = retained + held as u64;
        let is_more = has + payload_len as u64 > self.outbox_bytes_max().0;
        is_more && (has > 0 || self.pool.budget.is_full())
    }

    /// Puts a message into a session's outbox.
    #[inline(always)]
    pub(super) fn push_delivery(&mut self, id: Key, delivery: &Delivery<'_>) {
        let now_ms = self.now.core_ms;
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.deliveries += 1;
        let number = connection.deliveries;
        let is_framed = connection.is_framed();
        let outbox = connection.outbox.get_or_insert_with(|| self.pool.outbox());
        if is_framed {
            let message = self.ids.of(delivery.passport.origin);
            let len = framed::encode::deliver_len(delivery.sender.len(), delivery.payload.len());
            outbox.push(&mut self.pool, len, |out| {
                framed::encode::deliver(
                    out,
                    number,
                    message,
                    delivery.passport.sent_at_ms,
                    delivery.sender,
                    delivery.payload,
                );
            });
        } else {
            outbox.push(&mut self.pool, delivery.payload.len(), |out| {
                out.extend_from_slice(delivery.payload);
            });
        }
        outbox.track(
            delivery.sender,
            delivery.payload.len() as u32,
            delivery.stored,
            delivery.passport,
            now_ms,
        );
        if outbox.has_grown() {
            outbox.count_memory(&mut self.pool);
        }
        // What the wheel looks for in a framed session is what is nowhere else.
        let is_first = if is_framed {
            outbox.unstored_len() == 1
        } else {
            outbox.unacked_len() == 1
        };
        self.mark_dirty(id);
        if is_first {
            let within_ms = if is_framed {
                self.limits.ack_timeout_ms
            } else {
                PROBE_AFTER_MS
            };
            self.check_within(id, within_ms);
        }
    }

    /// A framed reader acknowledges all deliveries up to this one.
    pub(super) fn framed_ack(&mut self, id: Key, delivery: u64) -> Result<(), CloseReason> {
        let Some(user_key) = self.user_of(id) else {
            return Ok(());
        };
        let Some(connection) = self.connections.get_mut(id) else {
            return Ok(());
        };
        if delivery > connection.deliveries {
            return Err(CloseReason::BadAck);
        }
        let folded = connection.outbox.as_mut();
        let (settled, mut head) = folded.map_or((0, 0), |outbox| outbox.fold_acked(delivery));
        self.metrics.delivered += settled;
        let mut until_expected = 0;
        loop {
            if until_expected == 0 {
                until_expected = BLOCK;
                self.expect_answers(id, delivery);
            }
            until_expected -= 1;
            let Some(connection) = self.connections.get_mut(id) else {
                break;
            };
            let Some(outbox) = connection.outbox.as_mut() else {
                break;
            };
            let oldest = connection.deliveries + 1 - outbox.unacked_len() as u64;
            if delivery < oldest {
                break;
            }
            let Some(entry) = outbox.pop_acked() else {
                break;
            };
            head = self.acknowledged(&entry).max(head);
        }
        self.after_acks(id, user_key, head);
        Ok(())
    }

    /// The peer's TCP has all but `outstanding` of the bytes sent on a classic
    /// connection: those messages are read.
    pub(super) fn peer_has(&mut self, id: Key, outstanding: Option<u32>) {
        let (Some(outstanding), Some(user_key)) = (outstanding, self.user_of(id)) else {
            return;
        };
        let mut head = 0;
        let before = self.metrics.delivered;
        loop {
            let Some(connection) = self.connections.get_mut(id) else {
                return;
            };
            if connection.is_framed() {
                return;
            }
            let Some(outbox) = connection.outbox.as_mut() else {
                break;
            };
            let acked = outbox
                .sent_position()
                .saturating_sub(u64::from(outstanding));
            let (settled, folded_head) = outbox.fold_acked(acked);
            head = folded_head.max(head);
            self.metrics.delivered += settled + outbox.drop_plain_until(acked);
            if outbox.oldest_end().is_none_or(|end| end > acked) {
                break;
            }
            let Some(entry) = outbox.pop_acked() else {
                break;
            };
            head = self.acknowledged(&entry).max(head);
        }
        if self.metrics.delivered > before
            && let Some(connection) = self.connections.get_mut(id)
        {
            // Whoever takes messages is not idle.
            connection.received_at_ms = self.now.core_ms;
        }
        self.after_acks(id, user_key, head);
    }

    /// One message is in its reader's hands. Says up to where the inbox can be
    /// burned for it; 0 if it is not there.
    fn acknowledged(&mut self, entry: &Unacked) -> u64 {
        self.metrics.delivered += 1;
        self.answer(
            entry.passport.reply,
            entry.passport.origin,
            Outcome::Delivered,
        );
        match entry.stored {
            Stored::No | Stored::Failed(_) => 0,
            Stored::At(sequence) => sequence + 1,
            Stored::Appending(token) => {
                self.acknowledged_while_appending(token);
                0
            }
        }
    }

    fn after_acks(&mut self, id: Key, user_key: Key, head: u64) {
        if let Some(outbox) = self.connections.get_mut(id).and_then(|c| c.outbox.as_mut()) {
            outbox.release(&mut self.pool);
        }
        self.burn_to(user_key, head);
        self.advance_drain(user_key);
        self.rest(id);
    }

    /// Asks the kernel what the peer has, if that is how it is known.
    #[cold]
    fn ask_if_classic(&mut self, id: Key) {
        if self.connections.get(id).is_some_and(|one| !one.is_framed()) {
            self.probe(id);
        }
    }

    /// Asks the kernel what the peer of a classic connection has.
    pub(super) fn probe(&mut self, id: Key) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.probing
        {
            connection.probing = true;
            if let Some(outbox) = connection.outbox.as_mut() {
                outbox.asked();
            }
            self.effects.connections.push(Effect::Probe(id));
        }
    }

    /// Whether the kernel shall be asked, before the next send of a classic
    /// session, what the peer has of the ones before. The caller asks.
    pub(super) fn probe_with_send(&mut self, id: Key) -> bool {
        let Some(connection) = self.connections.get_mut(id) else {
            return false;
        };
        if connection.is_framed() || connection.probing || !connection.has_session() {
            return false;
        }
        let Some(outbox) = connection.outbox.as_mut() else {
            return false;
        };
        let is_due = outbox.unasked() >= PROBE_MESSAGES;
        if is_due {
            connection.probing = true;
            outbox.asked();
        }
        is_due
    }

    /// Bytes of a connection went out.
    pub(super) fn after_sent(&mut self, id: Key) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        let Some(outbox) = connection.outbox.as_ref() else {
            return;
        };
        let unsent = outbox.unsent_bytes();
        let (user_key, drains) = (connection.user, connection.drains);
        let is_classic_session = !connection.is_framed() && connection.has_session();
        let is_much = unsent == 0 && outbox.unasked() > 0 && outbox.holds_much();
        let wants_probe = is_classic_session
            && outbox.has_unacked()
            && (outbox.awaited() > 0 || drains || is_much);
        if unsent < self.outbox_bytes_max().0.max(1) {
            self.resume(id, Pause::OUTBOX);
        }
        if wants_probe {
            self.probe(id);
        }
        if drains {
            // Answers that were in the way are out.
            self.advance_drain(user_key);
        }
    }

    /// The kernel's answer left something open.
    pub(super) fn after_probe(&mut self, id: Key) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        let Some(outbox) = connection.outbox.as_ref() else {
            return;
        };
        if outbox.has_unacked() {
            let is_full = room_of(connection, &self.limits, self.now.core_ms) != Room::Free;
            let hurry = is_full || outbox.awaited() > 0 || connection.drains || outbox.holds_much();
            let age_ms = outbox.unstored_age_ms(self.now.core_ms).unwrap_or(0);
            if is_full && age_ms >= FULL_MS && !connection.drains {
                let user_key = connection.user;
                self.spill(user_key);
            }
            self.check_within(
                id,
                if hurry {
                    PROBE_AGAIN_MS
                } else {
                    PROBE_AFTER_MS
                },
            );
        }
    }

    /// Whether a connection is beyond being talked to.
    pub(super) fn is_closing(&self, id: Key) -> bool {
        self.connections
            .get(id)
            .is_none_or(|connection| matches!(connection.phase, Phase::Closing(_)))
    }
}
