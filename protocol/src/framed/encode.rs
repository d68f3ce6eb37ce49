//! Encodes frames: one function for each kind, appending to the caller's buffer.
//!
//! Invariant: what is written decodes to what was given. A value that has no bytes on the wire (a
//! name above 255 bytes, a credential above its limit) is a fault of the caller, which parsed its
//! input at the edge: it panics rather than write a stream the peer cannot read.

use std::borrow::Borrow;

use super::limits::{DELIVER_FIXED_LEN, SEND_FIXED_LEN, WELCOME_LEN};
use super::{
    ANSWERS_MAX, Answer, CREDENTIAL_LEN_MAX, FRAME_LEN_MAX, Frame, HEADER_LEN, Presence,
    TEXT_LEN_MAX, Welcome, kind,
};
use crate::{CloseReason, ErrorCode, MessageId, Name};

/// Appends any frame. Tools and tests use it; the gateway calls the kind's own function.
///
/// # Panics
/// As the kind's own function.
pub fn frame(out: &mut Vec<u8>, frame: &Frame<'_>) {
    match *frame {
        Frame::Login { user, credential } => login(out, user, credential),
        Frame::Welcome(ref limits) => welcome(out, limits),
        Frame::Send {
            sequence,
            ttl_seconds,
            target,
            payload,
        } => send(out, sequence, ttl_seconds, target, payload),
        Frame::Answers(entries) => answers(out, entries),
        Frame::Deliver {
            delivery,
            id,
            sent_at_ms,
            sender,
            payload,
        } => deliver(out, delivery, id, sent_at_ms, sender.as_str(), payload),
        Frame::Ack { delivery } => ack(out, delivery),
        Frame::Ping { nonce } => ping(out, nonce),
        Frame::Pong { nonce } => pong(out, nonce),
        Frame::PresenceAsk { user } => presence_ask(out, user),
        Frame::Follow { user } => follow(out, user),
        Frame::Unfollow { user } => unfollow(out, user),
        Frame::Presence { user, state } => presence(out, user, state),
        Frame::Error {
            code,
            subject,
            text,
        } => error(out, code, subject, text),
        Frame::Close {
            reason,
            retry_after_ms,
            text,
        } => close(out, reason, retry_after_ms, text),
    }
}

/// Appends a LOGIN.
///
/// # Panics
/// If the credential is longer than [`CREDENTIAL_LEN_MAX`].
pub fn login(out: &mut Vec<u8>, user: Name<'_>, credential: &[u8]) {
    assert!(
        credential.len() <= CREDENTIAL_LEN_MAX,
        "a credential is checked where it is configured"
    );
    header(out, kind::LOGIN, 1 + user.len() + 2 + credential.len());
    short_bytes(out, user.as_bytes());
    out.extend_from_slice(&(credential.len() as u16).to_be_bytes());
    out.extend_from_slice(credential);
}

/// Appends a WELCOME.
pub fn welcome(out: &mut Vec<u8>, welcome: &Welcome) {
    header(out, kind::WELCOME, WELCOME_LEN);
    for limit in [
        welcome.payload_bytes_max,
        welcome.unanswered_sends_max,
        welcome.unacked_deliveries_max,
        welcome.idle_timeout_ms,
        welcome.follows_max,
    ] {
        out.extend_from_slice(&limit.to_be_bytes());
    }
    out.extend_from_slice(&welcome.inbox_messages.to_be_bytes());
    out.extend_from_slice(&welcome.server_time_ms.to_be_bytes());
}

/// Appends a SEND. The target is taken as it is, valid or not.
///
/// # Panics
/// If the target is longer than 255 bytes, or the frame longer than [`FRAME_LEN_MAX`].
pub fn send(out: &mut Vec<u8>, sequence: u64, ttl_seconds: u32, target: &[u8], payload: &[u8]) {
    header(
        out,
        kind::SEND,
        SEND_FIXED_LEN + target.len() + payload.len(),
    );
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&ttl_seconds.to_be_bytes());
    short_bytes(out, target);
    out.extend_from_slice(payload);
}

/// Appends ANSWERS: one frame for up to [`ANSWERS_MAX`] answers, none for no answer.
pub fn answers<I>(out: &mut Vec<u8>, answers: I)
where
    I: IntoIterator<Item: Borrow<Answer>>,
{
    let mut answers = answers.into_iter().peekable();
    while answers.peek().is_some() {
        // The length is known when the frame is full: written first, put right afterwards.
        let start = out.len();
        header(out, kind::ANSWERS, 0);
        for answer in answers.by_ref().take(ANSWERS_MAX) {
            out.extend_from_slice(&answer.borrow().to_bytes());
        }
        let body_len = out.len() - start - HEADER_LEN;
        out[start..start + 4].copy_from_slice(&(body_len as u32).to_be_bytes());
    }
}

/// Length in bytes of ANSWERS with this many answers, all frames together.
pub const fn answers_len(count: usize) -> usize {
    count.div_ceil(ANSWERS_MAX) * HEADER_LEN + count * Answer::LEN
}

/// Appends a DELIVER.
///
/// # Panics
/// If the sender's name is longer than 255 bytes, or the frame longer than [`FRAME_LEN_MAX`].
#[inline]
pub fn deliver(
    out: &mut Vec<u8>,
    delivery: u64,
    id: MessageId,
    sent_at_ms: u64,
    sender: &str,
    payload: &[u8],
) {
    header(
        out,
        kind::DELIVER,
        DELIVER_FIXED_LEN + sender.len() + payload.len(),
    );
    out.extend_from_slice(&delivery.to_be_bytes());
    out.extend_from_slice(&id.to_bytes());
    out.extend_from_slice(&sent_at_ms.to_be_bytes());
    short_bytes(out, sender.as_bytes());
    out.extend_from_slice(payload);
}

/// Length in bytes of a DELIVER, header included.
#[inline]
pub const fn deliver_len(sender_len: usize, payload_len: usize) -> usize {
    HEADER_LEN + DELIVER_FIXED_LEN + sender_len + payload_len
}

/// Appends an ACK.
pub fn ack(out: &mut Vec<u8>, delivery: u64) {
    number(out, kind::ACK, delivery);
}

/// Appends a PING.
pub fn ping(out: &mut Vec<u8>, nonce: u64) {
    number(out, kind::PING, nonce);
}

/// Appends a PONG.
pub fn pong(out: &mut Vec<u8>, nonce: u64) {
    number(out, kind::PONG, nonce);
}

/// Appends a PRESENCE_ASK. The name is taken as it is, valid or not.
///
/// # Panics
/// If it is longer than 255 bytes.
pub fn presence_ask(out: &mut Vec<u8>, user: &[u8]) {
    one_name(out, kind::PRESENCE_ASK, user);
}

/// Appends a FOLLOW. The name is taken as it is, valid or not.
///
/// # Panics
/// If it is longer than 255 bytes.
pub fn follow(out: &mut Vec<u8>, user: &[u8]) {
    one_name(out, kind::FOLLOW, user);
}

/// Appends an UNFOLLOW. The name is taken as it is, valid or not.
///
/// # Panics
/// If it is longer than 255 bytes.
pub fn unfollow(out: &mut Vec<u8>, user: &[u8]) {
    one_name(out, kind::UNFOLLOW, user);
}

/// Appends a PRESENCE.
pub fn presence(out: &mut Vec<u8>, user: Name<'_>, state: Presence) {
    let (state, last_seen_ms) = match state {
        Presence::Away { last_seen_ms } => (0, last_seen_ms),
        Presence::Online => (1, 0),
    };
    header(out, kind::PRESENCE, presence_len(user.len()) - HEADER_LEN);
    short_bytes(out, user.as_bytes());
    out.push(state);
    out.extend_from_slice(&last_seen_ms.to_be_bytes());
}

/// Length in bytes of a PRESENCE, header included.
pub const fn presence_len(user_len: usize) -> usize {
    HEADER_LEN + 1 + user_len + 1 + 8
}

/// Appends an ERROR. `subject` is the name the request was about, as it came; a text longer than
/// [`TEXT_LEN_MAX`] is cut.
///
/// # Panics
/// If the subject is longer than 255 bytes.
pub fn error(out: &mut Vec<u8>, code: ErrorCode, subject: &[u8], text: &str) {
    let text = cut(text);
    header(out, kind::ERROR, 1 + 1 + subject.len() + text.len());
    out.push(code.code());
    short_bytes(out, subject);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a CLOSE. A text longer than [`TEXT_LEN_MAX`] is cut.
pub fn close(out: &mut Vec<u8>, reason: CloseReason, retry_after_ms: u32, text: &str) {
    let text = cut(text);
    header(out, kind::CLOSE, 1 + 4 + text.len());
    out.push(reason.code());
    out.extend_from_slice(&retry_after_ms.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a header without options, and makes room for the body behind it.
#[inline]
fn header(out: &mut Vec<u8>, kind: u8, body_len: usize) {
    assert!(
        body_len <= FRAME_LEN_MAX,
        "a payload is checked where it enters"
    );
    out.reserve(HEADER_LEN + body_len);
    let [l0, l1, l2, l3] = (body_len as u32).to_be_bytes();
    out.extend_from_slice(&[l0, l1, l2, l3, kind, 0, 0, 0]);
}

#[inline]
fn short_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u8::try_from(bytes.len()).expect("a name is checked where it enters");
    out.push(len);
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, kind: u8, number: u64) {
    header(out, kind, 8);
    out.extend_from_slice(&number.to_be_bytes());
}

fn one_name(out: &mut Vec<u8>, kind: u8, user: &[u8]) {
    header(out, kind, 1 + user.len());
    short_bytes(out, user);
}

/// Cuts a text to what a frame may carry, between two characters.
fn cut(text: &str) -> &str {
    let mut len = text.len().min(TEXT_LEN_MAX);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    &text[..len]
}
