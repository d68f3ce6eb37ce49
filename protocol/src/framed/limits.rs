//! What a framed peer may send at most, each number with its reason.
//!
//! Invariant: the longest frame of a kind follows from the header alone, so that a frame that is too
//! long is found before a byte of its body is awaited. `SPEC.md` lists these numbers; a test holds
//! the list to them.

use super::{Answer, HEADER_LEN, kind};
use crate::{CloseReason, MessageId, Name};

/// Payload limit of a server that is not configured otherwise.
pub const PAYLOAD_BYTES_DEFAULT: u32 = 64 * 1024;

/// The highest payload limit a server may be given, and so the longest payload a reader must be
/// ready to take: an inbox may hold messages from before the limit was lowered.
pub const PAYLOAD_BYTES_MAX: u32 = 1024 * 1024;

/// The longest frame that is skipped rather than closed for, as its length field counts it. A
/// sender with a payload beyond every limit still learns it by a refusal; beyond this the stream is
/// taken for noise.
pub const FRAME_LEN_MAX: usize = 16 * 1024 * 1024;

/// The longest options of one frame: room for minor versions to come, little enough to wait for.
pub const OPTIONS_LEN_MAX: usize = 1024;

/// The longest credential: a signed token fits.
pub const CREDENTIAL_LEN_MAX: usize = 4096;

/// The longest text of an ERROR or a CLOSE: a sentence or two for people.
pub const TEXT_LEN_MAX: usize = 512;

/// The most answers in one frame: an answer to each of a thousand sends in flight, twice over.
pub const ANSWERS_MAX: usize = 2048;

/// The longest fields of a frame whose kind is not known and may be skipped: it is
/// awaited whole.
pub const OPTIONAL_LEN_MAX: usize = 64 * 1024;

/// Bytes of a SEND before its target: sequence, time to live, length of the target.
pub(super) const SEND_FIXED_LEN: usize = 8 + 4 + 1;

/// Bytes of a DELIVER besides sender and payload: delivery, id, time, length of the sender.
pub(super) const DELIVER_FIXED_LEN: usize = 8 + MessageId::LEN + 8 + 1;

/// Bytes of a WELCOME.
pub(super) const WELCOME_LEN: usize = 5 * 4 + 2 * 8;

/// Limits of the receiver that a configuration sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeLimits {
    /// The longest payload in bytes. A SEND above it is told to the caller as oversized, a DELIVER
    /// above it ends the connection: a reader takes [`PAYLOAD_BYTES_MAX`].
    pub payload_bytes_max: u32,
}

impl DecodeLimits {
    /// For a connection without a session: no payload is taken, so a peer that has not logged in
    /// cannot make the server hold one.
    pub const BEFORE_LOGIN: DecodeLimits = DecodeLimits {
        payload_bytes_max: 0,
    };

    /// For a reader: whatever a server may deliver.
    pub const READER: DecodeLimits = DecodeLimits {
        payload_bytes_max: PAYLOAD_BYTES_MAX,
    };
}

/// The longest fields of a kind, or why the kind is not taken at all.
#[inline]
pub(super) fn fields_len_max(kind: u8, limits: &DecodeLimits) -> Result<usize, CloseReason> {
    const NAME: usize = 1 + Name::LEN_MAX;
    Ok(match kind {
        // A send over the payload limit is refused and skipped, not closed for.
        kind::SEND => FRAME_LEN_MAX,
        kind::DELIVER => DELIVER_FIXED_LEN + Name::LEN_MAX + limits.payload_bytes_max as usize,
        kind::ACK | kind::PING | kind::PONG => 8,
        kind::ANSWERS => ANSWERS_MAX * Answer::LEN,
        kind::LOGIN => NAME + 2 + CREDENTIAL_LEN_MAX,
        kind::WELCOME => WELCOME_LEN,
        kind::PRESENCE_ASK | kind::FOLLOW | kind::UNFOLLOW => NAME,
        kind::PRESENCE => NAME + 1 + 8,
        kind::ERROR => 1 + NAME + TEXT_LEN_MAX,
        kind::CLOSE => 1 + 4 + TEXT_LEN_MAX,
        kind::FIRST_OPTIONAL.. => OPTIONAL_LEN_MAX,
        _ => return Err(CloseReason::UnknownFrame),
    })
}

// A header's length must not overflow an address, also where that has 32 bits.
const _: () = assert!(FRAME_LEN_MAX < u32::MAX as usize - HEADER_LEN);
// The largest send anyone may be allowed stays far below what is taken for noise.
const _: () = assert!(PAYLOAD_BYTES_MAX as usize * 8 < FRAME_LEN_MAX);
