//! Draining an inbox into a session: page by page from the store, as the session
//! has room, until nothing older is on its way; then the session is live.
//!
//! Owner: the reader's shard. Messages that meet the last appends are held until
//! those are delivered, so that a drain ends even while messages keep coming.
//! A page is asked for when what the reader has not taken leaves room for it; how
//! late it acknowledges does not matter, since what it drains is in the store.

use iris_protocol::{Outcome, RefusalReason};
use iris_storage::StoredMessage;

use super::Shard;
use super::connection::Phase;
use super::deliver::{Delivery, is_expired};
use super::envelope::{self, Envelope};
use super::ids::Origin;
use super::limits::{ROOM_AGAIN_MS, STORE_RETRY_MS};
use super::outbox::Outbox;
use super::slots::Key;
use super::unacked::{Passport, Stored};

impl Shard {
    /// Takes a drain one step further, if it is time: asks for the next page when
    /// the session has room for one.
    pub(super) fn advance_drain(&mut self, user_key: Key) {
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        let session = user.session;
        let Some(connection) = self.connections.get(session) else {
            return;
        };
        if matches!(connection.phase, Phase::Welcoming | Phase::Closing(_)) {
            return;
        }
        let Some(drain) = user.drain.as_deref_mut() else {
            return;
        };
        let waits_for_appends = user.spilling > 0 || (drain.at_end && user.appending > 0);
        let is_early = self.now.core_ms < drain.retry_at_ms;
        if waits_for_appends || is_early || !self.may_ask_page(user_key, session) {
            return;
        }
        self.fold(session);
        let (bytes_max, is_short) = self.outbox_bytes_max();
        let (retained, unacked) = match self.connections.get(session).map(|c| &c.outbox) {
            Some(Some(outbox)) if is_short => (outbox.retained_memory(), outbox.unacked_len()),
            Some(Some(outbox)) => (outbox.retained_bytes(), outbox.unacked_len()),
            _ => (0, 0),
        };
        let page_bytes = bytes_max / 2;
        if retained > page_bytes || unacked > self.unacked_kept() {
            // It may be long until the reader has taken that, and nobody waits so long for an answer.
            self.store_held(user_key);
            return;
        }
        self.ask_page(user_key, session, page_bytes as usize);
    }

    /// Deliveries that may stand one by one when the next page is asked for.
    fn unacked_kept(&self) -> usize {
        let kept = self.limits.unacked_deliveries_max as usize / 2;
        match self.outbox_bytes_max() {
            (share, true) => kept.min(share as usize / 4 / Outbox::BYTES_OF_UNACKED),
            (_, false) => kept,
        }
    }

    /// Makes room for a page in the session of a reader that acknowledges late, or whose TCP does:
    /// what it was sent and is in the store needs no place of its own.
    fn fold(&mut self, id: Key) {
        let kept = self.unacked_kept();
        while let Some(connection) = self.connections.get_mut(id)
            && let is_framed = connection.is_framed()
            && let Some(outbox) = connection.outbox.as_mut()
            && outbox.unacked_len() > kept
        {
            let delivery = connection.deliveries + 1 - outbox.unacked_len() as u64;
            let Some(folded) = outbox.fold_oldest(is_framed.then_some(delivery)) else {
                return;
            };
            if let Stored::Failed(reason) = folded.stored {
                // It has been with its reader for a page and more: nobody waits longer.
                let refused = Outcome::Refused(reason);
                self.answer(folded.passport.reply, folded.passport.origin, refused);
            }
        }
    }

    /// The page that a session waits for.
    pub(super) fn page(&mut self, user_key: Key, messages: &[StoredMessage], next: u64, end: bool) {
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        let session = user.session;
        let (mut next, mut end) = (next, end);
        let mut is_without_room = false;
        for (at, message) in messages.iter().enumerate() {
            match message.record.view() {
                // It was asked for while there was room for it. What does not fit now is asked for again.
                Ok(view)
                    if self.pool.budget.is_short()
                        && (at > 0 || self.pool.budget.is_full())
                        && self.has_its_share(session, view.payload.len()) =>
                {
                    (next, end) = (message.sequence, false);
                    is_without_room = at == 0;
                    break;
                }
                Ok(view) => self.push_delivery(
                    session,
                    &Delivery {
                        sender: view.sender,
                        payload: view.payload,
                        stored: Stored::At(message.sequence),
                        passport: Passport {
                            origin: Origin {
                                sender: view.id_sender,
                                number: view.id_number,
                            },
                            sent_at_ms: view.sent_at_ms,
                            expires_at_ms: view.expires_at_ms,
                            reply: None,
                        },
                    },
                ),
                Err(_) => self.metrics.lost += 1,
            }
        }
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        user.next_sequence = user.next_sequence.max(next);
        let caught_up = end && user.tail_sequence <= user.next_sequence;
        let appending = user.appending > 0;
        if let Some(drain) = user.drain.as_deref_mut() {
            drain.is_first = false;
            drain.retry_at_ms = 0;
            drain.at_end = caught_up && appending;
            if is_without_room {
                drain.retry_at_ms = self.now.core_ms + ROOM_AGAIN_MS;
                self.check_within(session, ROOM_AGAIN_MS);
            }
        }
        if caught_up && !appending {
            self.go_live(user_key, session);
        } else {
            self.advance_drain(user_key);
        }
    }

    /// Nothing older is in the inbox: what was held follows, and then all else
    /// goes straight through.
    pub(super) fn go_live(&mut self, user_key: Key, session: Key) {
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        let Some(drain) = user.drain.take() else {
            return;
        };
        if let Some(connection) = self.connections.get_mut(session) {
            connection.drains = false;
        }
        self.pool.budget.release(drain.held.capacity() as u64);
        for envelope in envelope::Envelopes::new(&drain.held) {
            if let Envelope::Deliver(parcel) = envelope {
                if is_expired(parcel.expires_at_ms, self.now.unix_ms) {
                    let passport = Passport::of(&parcel);
                    let expired = Outcome::Refused(RefusalReason::Expired);
                    self.answer(passport.reply, passport.origin, expired);
                    continue;
                }
                let delivery = Delivery {
                    sender: parcel.sender,
                    payload: parcel.payload,
                    stored: Stored::No,
                    passport: Passport::of(&parcel),
                };
                self.push_delivery(session, &delivery);
            }
        }
    }

    /// The end of the drain is further than it seemed: what was held for it goes the way of what is newer.
    pub(super) fn store_held(&mut self, user_key: Key) {
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        if let Some(drain) = user.drain.as_deref_mut() {
            drain.at_end = false;
            let held = std::mem::take(&mut drain.held);
            self.pool.budget.release(held.capacity() as u64);
            self.append_held(user_key, &held);
        }
    }

    /// The store could not read the page that a session waits for.
    pub(super) fn page_failed(&mut self, user_key: Key) {
        let retry_at_ms = self.now.core_ms + STORE_RETRY_MS;
        if let Some(user) = self.users.get_mut(user_key)
            && let Some(drain) = user.drain.as_deref_mut()
        {
            drain.retry_at_ms = retry_at_ms;
            let session = user.session;
            self.check_within(session, STORE_RETRY_MS);
            self.store_held(user_key);
        }
    }
}
