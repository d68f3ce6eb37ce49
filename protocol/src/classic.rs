//! The classic protocol: the bytes of the Erlang Iris, which its clients speak unchanged.
//!
//! | Client sends | Bytes |
//! |---|---|
//! | login | `01`, then the name: up to the first byte below 0x20, or the end of what arrived |
//! | send | `02`, target length u16, target, message length u16, message |
//! | ack | `03`, then an id: the rest of what arrived. Accepted and ignored |
//!
//! The server answers a login with [`LOGIN_OK`]; a delivery is the message's bytes alone.
//!
//! Invariants:
//! - a send may be split anywhere and any number of sends may share a segment: its verdict does not
//!   depend on where the input was cut;
//! - a login or an ack has no length, so it is what arrived with its first byte. **The input must
//!   therefore be everything that has arrived**, and must be decoded as soon as it arrives; this is
//!   the one place where a verdict depends on the cut. Who knows that more has arrived than the input
//!   holds asks [`is_open_login`] first.

use crate::{CloseReason, Name};

/// The command byte of a login.
pub const LOGIN: u8 = 0x01;
/// The command byte of a send.
pub const SEND: u8 = 0x02;
/// The command byte of an ack.
pub const ACK: u8 = 0x03;

/// The answer to a login.
pub const LOGIN_OK: &[u8; 9] = b"\x03LOGIN_OK";

/// The longest message in bytes: what its two-byte length can say.
pub const PAYLOAD_BYTES_MAX: usize = u16::MAX as usize;

/// What a classic client says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// The connection becomes this user's. May come again, as the same or another user.
    Login(Name<'a>),
    /// A message to a user. It is never answered.
    Send {
        /// The reader's name.
        target: Name<'a>,
        /// The message, possibly empty.
        payload: &'a [u8],
    },
    /// Accepted and ignored.
    Ack,
}

/// Decodes the first command of `input`, and how many bytes it took.
///
/// `Ok(None)` asks for more bytes: nothing was consumed. An error is the reason to close with; a
/// bad target is found as soon as the target is there, before the message is awaited.
#[inline]
pub fn decode(input: &[u8]) -> Result<Option<(Command<'_>, usize)>, CloseReason> {
    let Some((&command, rest)) = input.split_first() else {
        return Ok(None);
    };
    match command {
        SEND => decode_send(rest),
        LOGIN => decode_login(rest),
        ACK => Ok(Some((Command::Ack, input.len()))),
        _ => Err(CloseReason::UnknownCommand),
    }
}

/// `rest` is the input behind the command byte.
#[inline]
fn decode_send(rest: &[u8]) -> Result<Option<(Command<'_>, usize)>, CloseReason> {
    let Some((target_len, rest)) = split_length(rest) else {
        return Ok(None);
    };
    if target_len == 0 {
        return Err(CloseReason::EmptyTarget);
    }
    if target_len > Name::LEN_MAX {
        return Err(CloseReason::BadName);
    }
    let Some((target, rest)) = rest.split_at_checked(target_len) else {
        return Ok(None);
    };
    let target = Name::parse(target).map_err(|_| CloseReason::BadName)?;
    let Some((payload_len, rest)) = split_length(rest) else {
        return Ok(None);
    };
    let Some(payload) = rest.get(..payload_len) else {
        return Ok(None);
    };
    let consumed = 1 + 2 + target_len + 2 + payload_len;
    Ok(Some((Command::Send { target, payload }, consumed)))
}

/// `rest` is the input behind the command byte. Looks at one byte more than a name may have, so
/// the cost is bounded whatever arrived.
fn decode_login(rest: &[u8]) -> Result<Option<(Command<'_>, usize)>, CloseReason> {
    if rest.is_empty() {
        return Ok(None);
    }
    let window = rest.get(..=Name::LEN_MAX).unwrap_or(rest);
    let end = window.iter().position(|&byte| byte < 0x20);
    let (name, _) = window.split_at(end.unwrap_or(window.len()));
    let name = Name::parse(name).map_err(|_| CloseReason::BadName)?;
    Ok(Some((Command::Login(name), 1 + name.len())))
}

/// Length of the send that `input` begins with, once so much of it is there that it says so. What it says may still be
/// malformed.
pub fn send_len(input: &[u8]) -> Option<usize> {
    let (&SEND, rest) = input.split_first()? else {
        return None;
    };
    let (target_len, rest) = split_length(rest)?;
    let (payload_len, _) = split_length(rest.get(target_len..)?)?;
    Some(1 + 2 + target_len + 2 + payload_len)
}

/// Whether `input` begins with a login that ends only because the input does, and might go on: if
/// more has arrived than there is in `input`, that has to be awaited.
pub fn is_open_login(input: &[u8]) -> bool {
    match input.split_first() {
        Some((&LOGIN, name)) => {
            name.len() <= Name::LEN_MAX && name.iter().all(|&byte| byte >= 0x20)
        }
        _ => false,
    }
}

/// Takes a big-endian u16 off the front.
#[inline]
fn split_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    Some((usize::from(u16::from_be_bytes(*length)), rest))
}

/// Appends a login, as a client sends it.
///
/// Nothing but a command may follow in the same segment: the name ends at the first byte below
/// 0x20.
pub fn encode_login(out: &mut Vec<u8>, user: Name<'_>) {
    out.push(LOGIN);
    out.extend_from_slice(user.as_bytes());
}

/// Appends a send, as a client sends it.
///
/// # Panics
/// If the payload is longer than [`PAYLOAD_BYTES_MAX`]: its length has no bytes on the wire.
pub fn encode_send(out: &mut Vec<u8>, target: Name<'_>, payload: &[u8]) {
    assert!(
        payload.len() <= PAYLOAD_BYTES_MAX,
        "a classic message has a two-byte length"
    );
    out.push(SEND);
    out.extend_from_slice(&(target.len() as u16).to_be_bytes());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    out.extend_from_slice(payload);
}
