//! Frames that do not wait behind sends: while a framed connection is left unread because its sends have no room, what else
//! it says is looked for in what it has said.
//!
//! Owner: the shard. A client that is held up would else seem silent: its acks would not be heard, so that what it was
//! sent would go to the inbox, and it would take the gateway for dead for want of a PONG. Invariants: only frames that may
//! overtake a send are acted upon (ACK, PING, PONG); the bytes stay where they are, so the connection is read on in order
//! later, and nothing is done twice: an ACK is done once more without effect, a PING becomes a PONG, which asks for nothing.

use iris_protocol::framed::{self, Decoded, Frame, kind};

use super::connection::{Pause, Phase};
use super::slots::Key;
use super::{Effect, Shard};

/// Bytes of one connection that are looked through; the kernel keeps what comes behind them. As many sends as a client may
/// leave unanswered fit, if they are small.
const LOOKED_THROUGH_BYTES_MAX: usize = 128 << 10;
/// Where a frame says of which kind it is.
const KIND_AT: usize = 4;

impl Shard {
    /// Whether what a connection says while it is not read is looked through.
    pub(super) fn is_looked_through(&self, id: Key) -> bool {
        self.connections.get(id).is_some_and(|connection| {
            connection.is_framed()
                && connection.phase == Phase::Session
                && connection.pause.has(Pause::LANE.with(Pause::STORE))
                && !connection.pause.has(Pause::OUTBOX)
                && connection.skip == 0
        })
    }

    /// A segment was received on a connection that is looked through.
    pub(super) fn look_through_segment(&mut self, id: Key, segment: &[u8]) {
        self.join_unread(id);
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let whole = connection.command_len();
        self.input.append(&mut connection.partial, segment, whole);
        if connection.partial.len() > LOOKED_THROUGH_BYTES_MAX {
            self.effects.connections.push(Effect::Pause(id));
        }
        self.look_past_sends(id);
        self.stay_in_budget(id);
    }

    /// What it said lies in one piece from now on: frames say where they end, wherever what arrived was cut.
    fn join_unread(&mut self, id: Key) {
        while let Some(connection) = self.connections.get_mut(id)
            && let Some(next) = connection.held.pop_front()
        {
            self.input
                .append(&mut connection.partial, &next.bytes, None);
            self.let_go(next);
        }
    }

    /// Acts upon what may overtake the sends that wait, as far as that was not looked at yet.
    pub(super) fn look_past_sends(&mut self, id: Key) {
        if !self.is_looked_through(id) {
            return;
        }
        self.join_unread(id);
        let decode_limits = self.limits.decoding();
        while let Some(connection) = self.connections.get_mut(id)
            && let Some(rest) = connection.partial.get(connection.looked as usize..)
            && let Ok(decoded) = framed::decode(rest, &decode_limits)
        {
            let (frame, len) = match decoded {
                Decoded::Frame(frame, len) => (frame, len),
                Decoded::Skipped(len) => {
                    connection.looked += len as u32;
                    continue;
                }
                Decoded::Incomplete | Decoded::Oversized { .. } => return,
            };
            let at = connection.looked as usize;
            let done = match frame {
                Frame::Ack { delivery } => self.framed_ack(id, delivery).is_ok(),
                Frame::Ping { nonce } => {
                    connection.partial[at + KIND_AT] = kind::PONG;
                    self.push_frame(id, |out| framed::encode::pong(out, nonce));
                    self.pause_if_flooded(id);
                    true
                }
                Frame::Pong { .. } | Frame::Send { .. } => true,
                // It ends the session, asks what is answered in order, or is a fault: all that is for when it is read.
                _ => false,
            };
            if !done {
                return;
            }
            if let Some(connection) = self.connections.get_mut(id) {
                connection.looked += len as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use iris_protocol::Name;
    use iris_storage::Reply;

    use super::super::harness;
    use super::*;

    /// A shard with a framed session of anna's.
    fn anna() -> (Shard, Key) {
        let mut shard = harness::first_of(1);
        let id = shard.accepted();
        let mut login = framed::PREFACE.to_vec();
        framed::encode::login(&mut login, Name::parse(b"anna").expect("a name"), b"");
        shard.received(id, &login);
        for token in 0..2 {
            shard.stored(Reply::Account {
                token,
                messages: 0,
                bytes: 0,
                last_seen_ms: 0,
            });
        }
        shard.take_sent(id);
        (shard, id)
    }

    #[test]
    fn who_is_held_up_by_another_core_again_is_looked_through_from_the_beginning() {
        let (mut shard, id) = anna();
        let user = shard.connections.get(id).expect("there").user;
        for nonce in 1..4 {
            shard.begin_turn();
            shard.sender_told(user, true);
            let mut said = Vec::new();
            framed::encode::send(&mut said, nonce, 0, b"carl", &[0; 300]);
            framed::encode::ping(&mut said, nonce);
            let mut pong = Vec::new();
            framed::encode::pong(&mut pong, nonce);
            let (begin, end) = said.split_at(150);
            shard.received(id, begin);
            shard.received(id, end);
            assert_eq!(shard.take_sent(id), pong, "past the send");
            assert_eq!(shard.metrics.received_framed, nonce - 1);
            shard.sender_told(user, false);
            assert_eq!(shard.metrics.received_framed, nonce);
            assert!(shard.take_sent(id).is_empty(), "no second one");
        }
    }
}
