//! The end of sessions and of connections, from this side or the peer's.
//!
//! Owner: the shard. Invariants: a session ends once, whatever its connection goes through after that, and what its
//! reader does not have returns to the inbox then; every connection that ends is counted with one reason, that which
//! came first.

use iris_protocol::CloseReason;
use iris_protocol::framed;
use iris_storage::Request;

use super::connection::{Pause, Phase};
use super::limits::{ANSWERS_KEPT_MS, FAILED_MS};
use super::slots::Key;
use super::{Effect, Shard};

/// What a framed client is told to wait before it comes back after a drain, milliseconds.
const RETRY_AFTER_DRAIN_MS: u32 = 1_000;

impl Shard {
    /// Detaches the user from a connection: what its reader does not have goes
    /// back to the inbox, and a login that waited takes the user over.
    pub(super) fn end_session(&mut self, id: Key) {
        let Some(user_key) = self.user_of(id) else {
            return;
        };
        self.cancel_reads(id, user_key);
        self.return_unacked(id, user_key);
        self.unfollow_all(id);
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.user = Key::NONE;
        connection.name = None;
        connection.pause = connection.pause.without(Pause::STORE);
        if let Some(outbox) = connection.outbox.as_mut() {
            outbox.answers.clear();
        }
        let unix_ms = self.now.unix_ms;
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        user.session = Key::NONE;
        self.sessions -= 1;
        user.drain = None;
        user.last_seen_ms = unix_ms;
        let waiting = std::mem::replace(&mut user.waiting, Key::NONE);
        let name = Box::from(&*user.name);
        let hash = user.hash(self.name_key);
        self.effects.store.push(Request::Seen {
            user: hash,
            name,
            at_ms: unix_ms,
        });
        self.remember_departed(user_key, self.now.core_ms + ANSWERS_KEPT_MS);
        // A burn that failed is tried once more.
        self.burn_to(user_key, 0);
        if waiting != Key::NONE {
            self.attach(waiting, user_key);
        }
        self.presence_changed(user_key);
        self.forget_if_done(user_key);
    }

    /// Ends a connection from this side: says why if the protocol can, lets the
    /// driver send what is due, and waits for it to report the end.
    pub(super) fn close(&mut self, id: Key, reason: CloseReason) {
        let draining = self.draining;
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        // A socket that moves is closed where it arrives.
        if connection.is_out_of_reach() {
            return;
        }
        let waited = std::mem::replace(&mut connection.phase, Phase::Closing(reason));
        connection.pause = Pause::NO;
        let is_peer_gone = matches!(reason, CloseReason::PeerReset | CloseReason::Unreachable);
        let is_framed = connection.is_framed()
            && !is_peer_gone
            && (connection.preface_read || reason == CloseReason::UnsupportedVersion);
        if is_framed {
            let retry_after_ms = if draining { RETRY_AFTER_DRAIN_MS } else { 0 };
            self.encode_answers(id);
            self.push_frame(id, |out| {
                framed::encode::close(out, reason, retry_after_ms, reason.text());
            });
        }
        self.drop_unread(id);
        if let Some(connection) = self.connections.get_mut(id)
            && let Some(outbox) = connection.outbox.as_mut()
        {
            outbox.seal();
        }
        if let Phase::Waiting(user_key) = waited {
            self.stop_waiting(id, user_key);
        }
        if let Some(user_key) = self.user_of(id) {
            self.cancel_reads(id, user_key);
        }
        self.effects.connections.push(Effect::Close(id));
    }

    /// A connection that waited to take a user over will not.
    fn stop_waiting(&mut self, id: Key, user_key: Key) {
        if let Some(user) = self.users.get_mut(user_key)
            && user.waiting == id
        {
            user.waiting = Key::NONE;
        }
    }

    /// The socket is gone; `outstanding` bytes of what was sent were never
    /// acknowledged by the peer's TCP (`None` if that cannot be known).
    pub fn ended(&mut self, id: Key, reason: CloseReason, outstanding: Option<u32>) {
        self.peer_has(id, outstanding);
        self.end_session(id);
        self.drop_unread(id);
        self.relogins.forget(id, self.now.core_ms);
        let Some(mut connection) = self.connections.remove(id) else {
            return;
        };
        let reason = match connection.phase {
            Phase::Closing(reason) => reason,
            Phase::Waiting(user_key) => {
                self.stop_waiting(id, user_key);
                reason
            }
            _ => reason,
        };
        self.metrics.count_close(reason);
        if let Some(outbox) = connection.outbox.take() {
            self.pool.put_outbox(outbox);
        }
    }

    /// The kernel takes no more bytes on this connection, for good. What the peer said before that is still received, and
    /// then [`Shard::peer_ended`] comes; should it not, the connection ends without it.
    pub fn send_failed(&mut self, id: Key, reason: CloseReason) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if let Some(outbox) = connection.outbox.as_mut() {
            outbox.sent(&mut self.pool, 0);
        }
        if connection.pause.has(Pause::OUTBOX) {
            // It waits to be read again until its bytes are out, which will not be.
            self.close(id, reason);
        } else if connection.failed.is_none() && !matches!(connection.phase, Phase::Closing(_)) {
            // One that moves does so without its last bytes, and is closed where it arrives.
            connection.failed = Some(reason);
            connection.received_at_ms = self.now.core_ms;
            self.check_within(id, FAILED_MS);
        }
    }

    /// There is no socket any more, and no operation told so.
    pub fn socket_gone(&mut self, id: Key) {
        if let Some(connection) = self.connections.get_mut(id)
            && matches!(connection.phase, Phase::HandingOver { .. })
        {
            connection.phase = Phase::Open;
        }
        self.close(id, CloseReason::Internal);
    }

    /// The peer has finished sending, or is gone. What it said before is read
    /// first; then the connection is closed.
    pub fn peer_ended(&mut self, id: Key, reason: CloseReason) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        // What failed first tells why.
        let reason = connection.failed.unwrap_or(reason);
        if std::mem::take(&mut connection.cut) {
            // There was no more to what arrived last.
            self.read_unread(id);
        }
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        match connection.phase {
            // The end comes again where the socket moves to.
            Phase::Closing(_) | Phase::HandingOver { .. } => {}
            Phase::Open if !connection.is_held_up() => self.close(id, reason),
            _ if connection.is_read() => self.close(id, reason),
            _ => connection.peer_ended = Some(reason),
        }
    }

    /// Why a connection is closing, if it is.
    pub fn closing_reason(&self, id: Key) -> Option<CloseReason> {
        match self.connections.get(id)?.phase {
            Phase::Closing(reason) => Some(reason),
            _ => None,
        }
    }
}
