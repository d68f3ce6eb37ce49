//! Decodes frames in place: it is on the path of every message.
//!
//! Invariants:
//! - no allocation, no panic, nothing consumed beyond the input;
//! - a frame too long for its kind is found from its header, before its body is awaited, so what a
//!   peer can make the server hold is bounded by the limits;
//! - a verdict stands: it is the same for every longer input.

use super::fields::Fields;
use super::limits::{self, SEND_FIXED_LEN};
use super::{
    Answers, CREDENTIAL_LEN_MAX, DecodeLimits, FRAME_LEN_MAX, Frame, HEADER_LEN, OPTIONS_LEN_MAX,
    Presence, Welcome, kind,
};
use crate::{CloseReason, ErrorCode};

/// What the front of the input is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded<'a> {
    /// Not enough bytes yet to say. Nothing was consumed.
    Incomplete,
    /// A frame, and how many bytes it took, header included.
    Frame(Frame<'a>, usize),
    /// A frame of a kind that is not known and need not be: it took this many bytes.
    Skipped(usize),
    /// A SEND with a payload over the limit. It is refused and the connection lives.
    Oversized {
        /// The sender's own number, for the refusal.
        sequence: u64,
        /// Length of the whole frame, header included. The caller skips that many bytes, of which
        /// most may not have arrived yet.
        frame_len: usize,
    },
}

/// The header of a frame, and what stands behind it.
struct Header {
    body_len: usize,
    kind: u8,
    options_len: usize,
}

impl Header {
    #[inline]
    fn parse(bytes: [u8; HEADER_LEN]) -> Header {
        // The flags mean nothing in this version and are not looked at.
        let [l0, l1, l2, l3, kind, _flags, o0, o1] = bytes;
        Header {
            body_len: u32::from_be_bytes([l0, l1, l2, l3]) as usize,
            kind,
            options_len: usize::from(u16::from_be_bytes([o0, o1])),
        }
    }
}

/// Decodes the frame at the front of `input`. An error is the reason to close with.
#[inline]
pub fn decode<'a>(input: &'a [u8], limits: &DecodeLimits) -> Result<Decoded<'a>, CloseReason> {
    let Some((header, rest)) = input.split_first_chunk() else {
        return Ok(Decoded::Incomplete);
    };
    let header = Header::parse(*header);
    let fields_len_max = limits::fields_len_max(header.kind, limits)?;
    let Some(fields_len) = header.body_len.checked_sub(header.options_len) else {
        return Err(CloseReason::BadFrame);
    };
    if fields_len > fields_len_max
        || header.options_len > OPTIONS_LEN_MAX
        || header.body_len > FRAME_LEN_MAX
    {
        return Err(CloseReason::FrameTooLarge);
    }
    // Only a send that may be over the limit is looked at before it is there as a whole.
    if header.kind == kind::SEND
        && fields_len > SEND_FIXED_LEN + limits.payload_bytes_max as usize
        && let Some(verdict) = oversized_send(&header, rest, limits)?
    {
        return Ok(verdict);
    }
    let Some(body) = rest.get(..header.body_len) else {
        return Ok(Decoded::Incomplete);
    };
    let consumed = HEADER_LEN + header.body_len;
    if header.kind >= kind::FIRST_OPTIONAL {
        return Ok(Decoded::Skipped(consumed));
    }
    let (options, fields) = body
        .split_at_checked(header.options_len)
        .ok_or(CloseReason::BadFrame)?;
    if !options.is_empty() {
        check_options(options)?;
    }
    decode_fields(header.kind, fields, limits, consumed)
}

/// Tells whether a send that may be over the limit is, as soon as its fixed fields are there.
/// `None`: it is not.
#[cold]
fn oversized_send<'a>(
    header: &Header,
    rest: &[u8],
    limits: &DecodeLimits,
) -> Result<Option<Decoded<'a>>, CloseReason> {
    let Some(fixed) = rest
        .get(header.options_len..)
        .and_then(|fields| fields.get(..SEND_FIXED_LEN))
    else {
        return Ok(Some(Decoded::Incomplete));
    };
    let mut fields = Fields::new(fixed);
    let sequence = fields.u64()?;
    let _ttl_seconds = fields.u32()?;
    let target_len = usize::from(fields.u8()?);
    let payload_len = header
        .body_len
        .checked_sub(header.options_len + SEND_FIXED_LEN + target_len)
        .ok_or(CloseReason::BadFrame)?;
    if payload_len <= limits.payload_bytes_max as usize {
        return Ok(None);
    }
    Ok(Some(Decoded::Oversized {
        sequence,
        frame_len: HEADER_LEN + header.body_len,
    }))
}

/// Options are tag u8, length u8, value. This version knows no tag, so it only sees to it that they
/// are sound: a later one must be able to rely on that. Bounded by [`OPTIONS_LEN_MAX`].
#[cold]
fn check_options(options: &[u8]) -> Result<(), CloseReason> {
    let mut options = Fields::new(options);
    while !options.is_empty() {
        let _tag = options.u8()?;
        let _value = options.short_bytes()?;
    }
    Ok(())
}

// Each kind makes the whole answer: a frame that is moved into it is written by fields and read in
// pairs, and such a read waits until all older writes are done.
#[inline(always)]
fn decode_fields<'a>(
    kind: u8,
    fields: &'a [u8],
    limits: &DecodeLimits,
    consumed: usize,
) -> Result<Decoded<'a>, CloseReason> {
    let mut fields = Fields::new(fields);
    match kind {
        kind::SEND => {
            let sequence = fields.u64()?;
            let ttl_seconds = fields.u32()?;
            let target = fields.short_bytes()?;
            let payload = fields.tail();
            let frame = Frame::Send {
                sequence,
                ttl_seconds,
                target,
                payload,
            };
            Ok(Decoded::Frame(frame, consumed))
        }
        kind::ACK => {
            let delivery = fields.u64()?;
            fields.end()?;
            Ok(Decoded::Frame(Frame::Ack { delivery }, consumed))
        }
        kind::DELIVER => {
            let delivery = fields.u64()?;
            let id = fields.id()?;
            let sent_at_ms = fields.u64()?;
            let sender = fields.name()?;
            let payload = fields.tail_within(limits.payload_bytes_max as usize)?;
            let frame = Frame::Deliver {
                delivery,
                id,
                sent_at_ms,
                sender,
                payload,
            };
            Ok(Decoded::Frame(frame, consumed))
        }
        kind::ANSWERS => {
            let answers = Answers::parse(fields.tail())?;
            Ok(Decoded::Frame(Frame::Answers(answers), consumed))
        }
        _ => Ok(Decoded::Frame(decode_rare_fields(kind, fields)?, consumed)),
    }
}

/// The kinds that do not come with every message, apart so that the ones that do stay small.
fn decode_rare_fields(kind: u8, mut fields: Fields<'_>) -> Result<Frame<'_>, CloseReason> {
    let frame = match kind {
        kind::LOGIN => {
            let user = fields.name()?;
            let credential_len = usize::from(fields.u16()?);
            if credential_len > CREDENTIAL_LEN_MAX {
                return Err(CloseReason::FrameTooLarge);
            }
            Frame::Login {
                user,
                credential: fields.bytes(credential_len)?,
            }
        }
        kind::WELCOME => Frame::Welcome(Welcome {
            payload_bytes_max: fields.u32()?,
            unanswered_sends_max: fields.u32()?,
            unacked_deliveries_max: fields.u32()?,
            idle_timeout_ms: fields.u32()?,
            follows_max: fields.u32()?,
            inbox_messages: fields.u64()?,
            server_time_ms: fields.u64()?,
        }),
        kind::PING => Frame::Ping {
            nonce: fields.u64()?,
        },
        kind::PONG => Frame::Pong {
            nonce: fields.u64()?,
        },
        kind::PRESENCE_ASK => Frame::PresenceAsk {
            user: fields.short_bytes()?,
        },
        kind::FOLLOW => Frame::Follow {
            user: fields.short_bytes()?,
        },
        kind::UNFOLLOW => Frame::Unfollow {
            user: fields.short_bytes()?,
        },
        kind::PRESENCE => Frame::Presence {
            user: fields.name()?,
            state: match (fields.u8()?, fields.u64()?) {
                (0, last_seen_ms) => Presence::Away { last_seen_ms },
                (1, 0) => Presence::Online,
                _ => return Err(CloseReason::BadFrame),
            },
        },
        kind::ERROR => {
            return Ok(Frame::Error {
                code: ErrorCode::from_code(fields.u8()?).ok_or(CloseReason::BadFrame)?,
                subject: fields.short_bytes()?,
                text: fields.text()?,
            });
        }
        kind::CLOSE => {
            return Ok(Frame::Close {
                reason: CloseReason::from_code(fields.u8()?).ok_or(CloseReason::BadFrame)?,
                retry_after_ms: fields.u32()?,
                text: fields.text()?,
            });
        }
        _ => return Err(CloseReason::UnknownFrame),
    };
    fields.end()?;
    Ok(frame)
}
