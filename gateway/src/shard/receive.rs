//! Bytes come in: commands are decoded in place and acted upon.
//!
//! Owner: the shard. A segment is decoded where the ring put it; only what is
//! incomplete, or comes while the connection is not read, is copied. Every
//! fault of the peer ends its connection with a counted reason, and nothing else.

use iris_protocol::framed::{self, DecodeLimits, Decoded, Frame, PREFACE_LEN};
use iris_protocol::{CloseReason, Protocol, RefusalReason, classic, sniff};

use super::Shard;
use super::connection::{Phase, REST_OF_ARRIVAL, steps_of};
use super::envelope::Inquiry;
use super::slots::Key;

/// Commands of one receive after which its connection waits for its turn: a small buffer never holds so many that are
/// worth the copy of those behind, a large one may hold thousands.
const COMMANDS_AT_ONCE: u64 = 256;

/// What became of one decoding step.
enum Step {
    /// So many bytes are done with; go on.
    Took(usize),
    /// The bytes are not acted upon yet; stop here.
    Wait,
}

impl Shard {
    /// A segment was received on this connection.
    pub fn received(&mut self, id: Key, segment: &[u8]) {
        self.arrived(id, segment, false);
    }

    /// The same, and more of what arrived with it is still to be received.
    pub fn received_cut(&mut self, id: Key, segment: &[u8]) {
        self.arrived(id, segment, true);
    }

    fn arrived(&mut self, id: Key, segment: &[u8], cut: bool) {
        self.metrics.bytes_in += segment.len() as u64;
        let now_ms = self.now.core_ms;
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        // Bytes that come drop by drop do not put off the end of a login that is due.
        if connection.had_user && connection.failed.is_none() {
            connection.received_at_ms = now_ms;
        }
        let goes_on = std::mem::replace(&mut connection.cut, cut);
        if matches!(connection.phase, Phase::Closing(_)) {
            self.received_while_closing(id, segment);
        } else if connection.is_read() && connection.held.is_empty() {
            if connection.has_share(self.turn, self.limits.share_steps) {
                self.read(id, segment, cut);
            } else {
                self.wait_for_turn(id);
                self.hold_segment(id, segment, goes_on);
            }
        } else {
            self.hold_segment(id, segment, goes_on);
        }
    }

    /// Decodes a segment, together with what was incomplete before it.
    pub(super) fn read(&mut self, id: Key, segment: &[u8], cut: bool) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.partial.is_empty() {
            let consumed = self.consume(id, segment, cut);
            self.keep_partial(id, &segment[consumed..]);
            self.settle_in_budget(id, consumed > 0);
            return;
        }
        let whole = connection.command_len();
        let mut input = std::mem::take(&mut connection.partial);
        self.input.append(&mut input, segment, whole);
        let consumed = self.consume(id, &input, cut);
        self.keep_rest(id, input, consumed);
    }

    /// Keeps what was not consumed of a connection's `partial`, which was accounted for.
    pub(super) fn keep_rest(&mut self, id: Key, input: Vec<u8>, consumed: usize) {
        if consumed == 0
            && let Some(connection) = self.connections.get_mut(id)
        {
            // A long frame grows in place; it is not copied for each segment.
            connection.partial = input;
            self.look_past_sends(id);
            self.stay_in_budget(id);
            return;
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.looked = 0;
        }
        self.keep_partial(id, &input[consumed..]);
        self.input.put(input);
        self.settle_in_budget(id, true);
    }

    /// Keeps what a segment left over until more comes.
    pub(super) fn keep_partial(&mut self, id: Key, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        if let Some(connection) = self.connections.get_mut(id)
            && !matches!(connection.phase, Phase::Closing(_))
        {
            connection.partial = self.input.of(rest);
            connection.looked = 0;
            self.look_past_sends(id);
            self.stay_in_budget(id);
        }
    }

    /// Decodes and acts until the input ends or the connection stops being read;
    /// says how many bytes are done with. Of a `cut` input more arrived than there is.
    pub(super) fn consume(&mut self, id: Key, input: &[u8], cut: bool) -> usize {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.reading = true;
        }
        let before = self.commands;
        let consumed = self.consume_commands(id, input, cut);
        let steps = steps_of((self.commands - before) as usize, consumed);
        self.steps += steps;
        if let Some(connection) = self.connections.get_mut(id) {
            connection.reading = false;
            connection.spent = connection.spent.saturating_add(steps.min(255) as u8);
        }
        consumed
    }

    fn consume_commands(&mut self, id: Key, input: &[u8], cut: bool) -> usize {
        let mut at = 0;
        // Up to where frames have been looked at before they are acted upon.
        let mut expected = 0;
        let before = self.commands;
        while at < input.len() {
            let Some(connection) = self.connections.get_mut(id) else {
                return input.len();
            };
            if !connection.is_read() {
                break;
            }
            if connection.skip == REST_OF_ARRIVAL {
                if !cut {
                    connection.skip = 0;
                }
                return input.len();
            }
            if connection.skip > 0 {
                let len = (connection.skip as usize).min(input.len() - at);
                connection.skip -= len as u32;
                at += len;
                continue;
            }
            if self.commands - before >= COMMANDS_AT_ONCE {
                self.wait_for_turn(id);
                break;
            }
            self.commands += 1;
            let rest = &input[at..];
            let step = match connection.protocol {
                None => {
                    connection.protocol =
                        sniff(rest[0]).filter(|it| self.limits.protocols.speaks(*it));
                    if connection.protocol.is_some() {
                        Ok(Step::Took(0))
                    } else {
                        Err(CloseReason::UnknownProtocol)
                    }
                }
                Some(Protocol::Classic) => self.classic_command(id, rest, cut),
                Some(Protocol::Framed) => {
                    // The first was, with those of other connections.
                    if at > 0 && at >= expected {
                        expected = at + self.expect_frames(rest);
                    }
                    self.frame(id, rest)
                }
            };
            match step {
                Ok(Step::Took(len)) => at += len,
                Ok(Step::Wait) => break,
                Err(reason) => {
                    self.close(id, reason);
                    return input.len();
                }
            }
        }
        at
    }

    fn classic_command(&mut self, id: Key, input: &[u8], cut: bool) -> Result<Step, CloseReason> {
        if cut && classic::is_open_login(input) {
            return Ok(Step::Wait);
        }
        let Some((command, len)) = classic::decode(input)? else {
            return Ok(Step::Wait);
        };
        match command {
            classic::Command::Login(_) if !self.admits_login(id) => Ok(Step::Wait),
            classic::Command::Login(name) => {
                self.classic_login(id, name.as_str())?;
                Ok(Step::Took(len))
            }
            classic::Command::Send { target, payload } => {
                if self.user_of(id).is_none() {
                    return Err(CloseReason::NotLoggedIn);
                }
                let first = self.sighted(target, payload, len);
                Ok(match self.classic_sends(id, input, first) {
                    0 => Step::Wait,
                    took => Step::Took(took),
                })
            }
            classic::Command::Ack => {
                if cut && let Some(connection) = self.connections.get_mut(id) {
                    connection.skip = REST_OF_ARRIVAL;
                }
                Ok(Step::Took(len))
            }
        }
    }

    fn frame(&mut self, id: Key, input: &[u8]) -> Result<Step, CloseReason> {
        let Some(connection) = self.connections.get_mut(id) else {
            return Ok(Step::Wait);
        };
        if !connection.preface_read {
            return Ok(match framed::preface(input)? {
                Some(_) => {
                    connection.preface_read = true;
                    Step::Took(PREFACE_LEN)
                }
                None => Step::Wait,
            });
        }
        let decode_limits = if connection.has_session() {
            self.limits.decoding()
        } else {
            DecodeLimits::BEFORE_LOGIN
        };
        match framed::decode(input, &decode_limits)? {
            Decoded::Incomplete => Ok(Step::Wait),
            Decoded::Skipped(len) => Ok(Step::Took(len)),
            Decoded::Frame(frame, len) => {
                if self.act(id, frame)? {
                    Ok(Step::Took(len))
                } else {
                    Ok(Step::Wait)
                }
            }
            Decoded::Oversized {
                sequence,
                frame_len,
            } => {
                if !connection.has_session() {
                    return Err(CloseReason::NotLoggedIn);
                }
                connection.skip = frame_len as u32;
                self.refuse_send(id, sequence, RefusalReason::PayloadTooLarge);
                Ok(Step::Took(0))
            }
        }
    }

    /// Acts upon a frame; `false` if it has to be read again later.
    fn act(&mut self, id: Key, frame: Frame<'_>) -> Result<bool, CloseReason> {
        let logged_in = self.user_of(id).is_some();
        match frame {
            Frame::Login { user, credential } => {
                if logged_in {
                    return Err(CloseReason::AlreadyLoggedIn);
                }
                self.framed_login(id, user.as_str(), credential)?;
            }
            Frame::Close { .. } => return Err(CloseReason::LoggedOut),
            _ if !logged_in => return Err(CloseReason::NotLoggedIn),
            Frame::Ping { nonce } => {
                self.push_frame(id, |out| framed::encode::pong(out, nonce));
                self.pause_if_flooded(id);
            }
            Frame::Pong { .. } => {}
            Frame::Send {
                sequence,
                ttl_seconds,
                target,
                payload,
            } => return Ok(self.framed_send(id, sequence, ttl_seconds, target, payload)),
            Frame::Ack { delivery } => self.framed_ack(id, delivery)?,
            Frame::PresenceAsk { user } => self.inquire(id, Inquiry::Ask, user),
            Frame::Follow { user } => self.inquire(id, Inquiry::Follow, user),
            Frame::Unfollow { user } => self.inquire(id, Inquiry::Unfollow, user),
            Frame::Welcome(_)
            | Frame::Answers(_)
            | Frame::Deliver { .. }
            | Frame::Presence { .. }
            | Frame::Error { .. } => return Err(CloseReason::UnknownFrame),
        }
        Ok(true)
    }

    /// A closing connection is heard only when it acknowledges: what its reader
    /// has need not go to the inbox.
    fn received_while_closing(&mut self, id: Key, segment: &[u8]) {
        let decode_limits = self.limits.decoding();
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if !connection.is_framed() || !connection.has_session() || connection.skip > 0 {
            return;
        }
        let mut rest = segment;
        // Acknowledgements that are cut by a segment's end, or stand behind a
        // frame that is, are missed: the messages come again with the same ids.
        while let Ok(Decoded::Frame(frame, len)) = framed::decode(rest, &decode_limits) {
            if let Frame::Ack { delivery } = frame
                && self.framed_ack(id, delivery).is_err()
            {
                return;
            }
            rest = &rest[len..];
        }
    }
}
