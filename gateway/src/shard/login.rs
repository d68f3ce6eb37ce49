//! How a connection becomes the session of its user: logins, moves to the user's home, takeovers.
//!
//! Owner: the shard of the core that holds the socket; from the moment a user is
//! attached, that core is the user's home. The newest login of a user wins. An
//! older classic session is asked first what its peer's TCP has, so that nothing
//! is delivered twice without need; until that is known, it stays the session.

use std::rc::Rc;

use super::connection::{Connection, Pause, Phase};
use super::envelope::{self, Arrival, Envelope};
use super::limits::{ANSWER_ALONE_MS, CHECK_MS, PROBE_AFTER_MS, PROBE_AGAIN_MS};
use super::slots::Key;
use super::user::Drain;
use super::{Effect, Shard};
use iris_protocol::framed::{self, Welcome};
use iris_protocol::{CloseReason, Protocol, classic};

impl Shard {
    pub(super) fn classic_login(&mut self, id: Key, name: &str) -> Result<(), CloseReason> {
        if !self.authenticator.admits(name, None) {
            return Err(CloseReason::BadCredential);
        }
        if self.user_of(id).is_some() {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.phase = Phase::Relogin(name.into());
            }
            self.probe(id);
            return Ok(());
        }
        self.begin_login(id, name);
        Ok(())
    }

    pub(super) fn framed_login(
        &mut self,
        id: Key,
        name: &str,
        credential: &[u8],
    ) -> Result<(), CloseReason> {
        if !self.authenticator.admits(name, Some(credential)) {
            return Err(CloseReason::BadCredential);
        }
        self.begin_login(id, name);
        Ok(())
    }

    /// Logs in here, or sends the connection to the user's home.
    fn begin_login(&mut self, id: Key, name: &str) {
        let home = self.name_key.hash(name).home(usize::from(self.cores)) as u16;
        if home == self.core {
            self.login_here(id, name);
        } else if let Some(connection) = self.connections.get_mut(id) {
            connection.phase = Phase::HandingOver {
                core: home,
                name: name.into(),
            };
            self.effects.connections.push(Effect::HandOver {
                connection: id,
                core: home,
            });
        }
    }

    /// The socket of a connection is in the ring of its user's home now: its
    /// login follows it over the lane, and it is forgotten here.
    pub fn handed_over(&mut self, id: Key, segment: u16, slot: u32, place: u32) {
        let relogins_ahead_us = self.relogins.forget(id, self.now.core_ms);
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        if let Phase::HandingOver { core, name } = &connection.phase {
            let batch = &mut self.lanes[usize::from(*core)].batch;
            envelope::push(
                batch,
                &Envelope::Arrival(Arrival {
                    segment,
                    slot,
                    place,
                    framed: connection.is_framed(),
                    relogins_ahead_us,
                    name,
                }),
            );
            let partial = Some((&connection.partial[..], false));
            let held = connection.held.iter();
            let held = held.map(|held| (&held.bytes[..], held.goes_on));
            let pieces = partial.filter(|(bytes, _)| !bytes.is_empty());
            let mut pieces = pieces.into_iter().chain(held).peekable();
            while let Some((bytes, _)) = pieces.next() {
                let next = pieces.peek();
                let cut = next.map_or(connection.cut, |(_, goes_on)| *goes_on);
                envelope::push(batch, &Envelope::Received { bytes, cut });
            }
        }
        self.metrics.handed_over += 1;
        self.drop_unread(id);
        if let Some(mut connection) = self.connections.remove(id)
            && let Some(outbox) = connection.outbox.take()
        {
            self.pool.put_outbox(outbox);
        }
    }

    /// The connection's socket does not get to the home core.
    pub fn hand_over_failed(&mut self, id: Key, reason: CloseReason) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.phase = Phase::Open;
        }
        self.close(id, reason);
    }

    /// A connection came over a lane with its login.
    pub(super) fn arrival(&mut self, arrival: &Arrival<'_>) -> Key {
        let Arrival {
            segment,
            slot,
            place,
            framed,
            relogins_ahead_us,
            name,
        } = *arrival;
        let mut connection = Connection::new(self.now.core_ms);
        connection.protocol = Some(if framed {
            Protocol::Framed
        } else {
            Protocol::Classic
        });
        connection.preface_read = framed;
        let id = self.connections.insert(connection);
        self.relogins
            .arrived(id, self.now.core_ms, relogins_ahead_us);
        self.effects.connections.push(Effect::Adopt {
            connection: id,
            segment,
            slot,
            place,
        });
        if self.draining {
            self.close(id, CloseReason::Draining);
        } else {
            self.login_here(id, name);
        }
        id
    }

    /// Makes this connection the session of a user of this core, after the
    /// session it takes over from has ended.
    fn login_here(&mut self, id: Key, name: &str) {
        self.effects.connections.push(Effect::AtHome(id));
        let hash = self.name_key.hash(name);
        let user_key = self.user_entry(hash, name);
        let user = self.users.get_mut(user_key).expect("user_entry made it");
        if *user.name != *name {
            self.metrics.name_collisions += 1;
            self.close(id, CloseReason::NameCollision);
            return;
        }
        let (older, overtaken) = (user.session, user.waiting);
        if !user.is_online() {
            self.attach(id, user_key);
            return;
        }
        self.metrics.takeovers += 1;
        let older_is_framed = self
            .connections
            .get(older)
            .is_some_and(|connection| connection.is_framed());
        if let Some(connection) = self.connections.get_mut(id) {
            connection.phase = Phase::Waiting(user_key);
        }
        if let Some(user) = self.users.get_mut(user_key) {
            user.waiting = id;
        }
        self.displace(overtaken);
        if older_is_framed {
            // What its reader has is known: its session ends now, and this one begins.
            self.end_session(older);
            self.close(older, CloseReason::Replaced);
        } else {
            self.probe(older);
        }
    }

    /// A login that waited was overtaken by a newer one of the same user.
    fn displace(&mut self, id: Key) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.is_framed() {
            self.close(id, CloseReason::Replaced);
        } else {
            connection.phase = Phase::Open;
            connection.had_user = true;
            let idle_ms = self.limits.idle_ms(false);
            self.check_within(id, idle_ms.min(CHECK_MS));
            self.answer_login(id);
            self.pause_if_flooded(id);
            self.read_unread(id);
        }
    }

    /// Tells a classic client that it is logged in. Old clients throw away what comes in the same
    /// read as that, so nothing follows before the peer has it.
    fn answer_login(&mut self, id: Key) {
        self.push_frame(id, |out| out.extend(classic::LOGIN_OK));
        let until_ms = self.now.core_ms + ANSWER_ALONE_MS;
        if let Some(outbox) = self.connections.get_mut(id).and_then(|c| c.outbox.as_mut()) {
            outbox.bar(until_ms);
            self.answered_logins.push(until_ms, id);
        }
    }

    /// Asks the peers of those whose logins were answered a while ago whether they have the answer.
    pub(super) fn ask_for_answered(&mut self) {
        while let Some(id) = self.answered_logins.pop_due(self.now.core_ms) {
            if self.is_barred(id) {
                self.probe(id);
            }
        }
    }

    fn is_barred(&self, id: Key) -> bool {
        let connection = self.connections.get(id);
        let outbox = connection.and_then(|connection| connection.outbox.as_ref());
        outbox.is_some_and(|outbox| outbox.is_barred())
    }

    /// What waits behind the answer to a login follows, if the peer has that; else it is asked again.
    fn unbar(&mut self, id: Key, outstanding: Option<u32>) {
        let now_ms = self.now.core_ms;
        let outbox = self.connections.get_mut(id).and_then(|c| c.outbox.as_mut());
        let Some(outbox) = outbox.filter(|outbox| outbox.is_barred()) else {
            return;
        };
        let answered_at_ms = outbox.barred_until_ms();
        if outstanding.is_some_and(|outstanding| outbox.unbar(outstanding, now_ms)) {
            self.mark_dirty(id);
            self.rest(id);
        } else {
            // A peer that has not taken a few bytes by then is far away, or gone.
            let is_slow = now_ms >= answered_at_ms + PROBE_AFTER_MS;
            let again_ms = if is_slow {
                PROBE_AFTER_MS
            } else {
                PROBE_AGAIN_MS
            };
            self.check_within(id, again_ms);
        }
    }

    /// Makes this connection the session of a user that has none.
    pub(super) fn attach(&mut self, id: Key, user_key: Key) {
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(id) else {
            self.forget_if_done(user_key);
            return;
        };
        user.session = id;
        let is_held = user.held_by > 0;
        user.drain = Some(Box::new(Drain {
            appends_before: user.appending,
            is_first: true,
            ..Drain::default()
        }));
        user.next_sequence = user.head;
        connection.user = user_key;
        connection.name = Some(Rc::clone(&user.name));
        connection.sender_id = user.sender_id(self.name_key);
        connection.had_user = true;
        connection.received_at_ms = self.now.core_ms;
        connection.drains = true;
        self.metrics.logins += 1;
        self.sessions += 1;
        if is_held {
            self.pause(id, Pause::STORE);
        }
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let idle_ms = self.limits.idle_ms(connection.is_framed());
        if connection.is_framed() {
            connection.phase = Phase::Welcoming;
            self.ask_depth(user_key);
        } else {
            connection.phase = Phase::Session;
            self.answer_login(id);
            self.pause_if_flooded(id);
            self.advance_drain(user_key);
            self.read_unread(id);
        }
        self.check_within(id, idle_ms.min(CHECK_MS));
        self.presence_changed(user_key);
    }

    /// The store keeps another user under this one's key: there is no inbox for this
    /// session, and asking again gives nothing else while that account lives.
    pub(super) fn name_collided(&mut self, user_key: Key) {
        let session = self.users.get(user_key).map(|user| user.session);
        if let Some(session) = session
            && !self.is_closing(session)
        {
            self.metrics.name_collisions += 1;
            self.close(session, CloseReason::NameCollision);
        }
        self.forget_if_done(user_key);
    }

    /// The store said how deep the inbox of a framed user is (or could not).
    pub(super) fn welcome(&mut self, id: Key, inbox_messages: u64) {
        let welcome = Welcome {
            payload_bytes_max: self.limits.payload_bytes_max,
            unanswered_sends_max: self.limits.unanswered_sends_max,
            unacked_deliveries_max: self.limits.unacked_deliveries_max,
            idle_timeout_ms: self.limits.idle_timeout_ms as u32,
            follows_max: self.limits.follows_max,
            inbox_messages,
            server_time_ms: self.now.unix_ms,
        };
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.phase != Phase::Welcoming {
            return;
        }
        connection.phase = Phase::Session;
        self.push_frame(id, |out| framed::encode::welcome(out, &welcome));
        self.look_past_sends(id);
    }

    /// The kernel said how many sent bytes the peer of a connection has not
    /// acknowledged; `None` if it could not.
    pub fn probed(&mut self, id: Key, outstanding: Option<u32>) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.probing = false;
        self.unbar(id, outstanding);
        self.peer_has(id, outstanding);
        let Some(user_key) = self.user_of(id) else {
            return;
        };
        let next_name = match self.connections.get(id).map(|connection| &connection.phase) {
            Some(Phase::Relogin(name)) => Some(name.clone()),
            _ => None,
        };
        let taken_over = self
            .users
            .get(user_key)
            .is_some_and(|user| user.waiting != Key::NONE);
        if taken_over || next_name.is_some() {
            self.end_session(id);
            if let Some(connection) = self.connections.get_mut(id)
                && !matches!(connection.phase, Phase::Closing(_))
            {
                connection.phase = Phase::Open;
                if let Some(name) = next_name {
                    self.begin_login(id, &name);
                } else {
                    self.read_unread(id);
                }
            }
        } else {
            self.after_probe(id);
        }
    }

    /// The core a connection moves to, if it does.
    pub fn moving_to(&self, id: Key) -> Option<u16> {
        match self.connections.get(id)?.phase {
            Phase::HandingOver { core, .. } => Some(core),
            _ => None,
        }
    }

    /// The name of the user on a connection, for logs.
    pub fn user_name(&self, id: Key) -> Option<Rc<str>> {
        self.connections.get(id)?.name.clone()
    }
}
