//! The framed protocol: a preface, then frames in both directions.
//!
//! A frame is a header of eight bytes and a body; the header says how long the body is, of which
//! kind, and how many bytes of options stand at the body's start. All integers are big-endian.
//!
//! ```text
//! length u32 | kind u8 | flags u8 | options_len u16 | options | fields of the kind
//!            '-- length counts the bytes behind the header: options and fields --'
//! ```
//!
//! [`preface`] and [`decode`] read, [`encode`] writes; `SPEC.md` tells the rest.
//!
//! Invariant: [`Frame`] borrows from the bytes it was decoded from; a frame that needs no room of
//! its own costs none.

mod answers;
mod decode;
pub mod encode;
mod fields;
mod limits;
mod preface;

pub use answers::{Answer, Answers};
pub use decode::{Decoded, decode};
pub use limits::{
    ANSWERS_MAX, CREDENTIAL_LEN_MAX, DecodeLimits, FRAME_LEN_MAX, OPTIONAL_LEN_MAX,
    OPTIONS_LEN_MAX, PAYLOAD_BYTES_DEFAULT, PAYLOAD_BYTES_MAX, TEXT_LEN_MAX,
};
pub use preface::{PREFACE, PREFACE_LEN, Preface, VERSION_MAJOR, VERSION_MINOR, preface};

use crate::{CloseReason, ErrorCode, MessageId, Name};

/// Length of a frame's header in bytes.
pub const HEADER_LEN: usize = 8;

/// The kinds of frames. From [`FIRST_OPTIONAL`](kind::FIRST_OPTIONAL) on, a kind that is not known
/// is skipped; below, it ends the connection.
pub mod kind {
    /// Client: who I am.
    pub const LOGIN: u8 = 0x01;
    /// Server: you are in, and these are the limits.
    pub const WELCOME: u8 = 0x02;
    /// Client: a message to a user.
    pub const SEND: u8 = 0x10;
    /// Server: what became of sends.
    pub const ANSWERS: u8 = 0x11;
    /// Server: a message from a user.
    pub const DELIVER: u8 = 0x12;
    /// Client: deliveries up to this one are in my hands.
    pub const ACK: u8 = 0x13;
    /// Either side: are you there?
    pub const PING: u8 = 0x20;
    /// Either side: I am.
    pub const PONG: u8 = 0x21;
    /// Client: is this user online?
    pub const PRESENCE_ASK: u8 = 0x30;
    /// Client: tell me when this user comes and goes.
    pub const FOLLOW: u8 = 0x31;
    /// Client: no more.
    pub const UNFOLLOW: u8 = 0x32;
    /// Server: a user is online, or was last seen then.
    pub const PRESENCE: u8 = 0x33;
    /// Server: a request came to nothing; the session lives.
    pub const ERROR: u8 = 0x40;
    /// Either side: the last frame, with its reason.
    pub const CLOSE: u8 = 0x41;
    /// The first kind that may be skipped by who does not know it.
    pub const FIRST_OPTIONAL: u8 = 0x80;
}

/// A frame, either direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// Client to server, the first frame.
    Login {
        /// Who logs in.
        user: Name<'a>,
        /// For the server's authenticator; empty if it asks for none. Up to
        /// [`CREDENTIAL_LEN_MAX`] bytes.
        credential: &'a [u8],
    },
    /// Server to client, the answer to a login.
    Welcome(Welcome),
    /// Client to server.
    Send {
        /// The sender's own number, 1 to [`SEQUENCE_MAX`](crate::SEQUENCE_MAX): the caller checks
        /// it, a bad one is refused.
        sequence: u64,
        /// Time to live in seconds; 0 for the server's default.
        ttl_seconds: u32,
        /// The reader's name as it came, up to 255 bytes: the caller parses it, a bad one is
        /// refused and the connection lives.
        target: &'a [u8],
        /// The message.
        payload: &'a [u8],
    },
    /// Server to client: what became of one or more sends.
    Answers(Answers<'a>),
    /// Server to client.
    Deliver {
        /// Number of the delivery in this session: 1, 2, 3 and so on.
        delivery: u64,
        /// Id of the message, the same each time it comes.
        id: MessageId,
        /// When the server took it, in milliseconds since 1970 (Unix time).
        sent_at_ms: u64,
        /// Who sent it.
        sender: Name<'a>,
        /// The message. It is the tail of the frame.
        payload: &'a [u8],
    },
    /// Client to server: this delivery and all before it are in the reader's hands.
    Ack {
        /// Number of the last delivery acknowledged.
        delivery: u64,
    },
    /// Either side.
    Ping {
        /// Comes back in the PONG.
        nonce: u64,
    },
    /// Either side: the answer to a PING.
    Pong {
        /// As it was in the PING.
        nonce: u64,
    },
    /// Client to server: the user's presence, once.
    PresenceAsk {
        /// The user's name as it came: a bad one is answered with an ERROR.
        user: &'a [u8],
    },
    /// Client to server: the user's presence, now and at each change.
    Follow {
        /// The user's name as it came: a bad one is answered with an ERROR.
        user: &'a [u8],
    },
    /// Client to server: no more of it.
    Unfollow {
        /// The user's name as it came: a bad one is answered with an ERROR.
        user: &'a [u8],
    },
    /// Server to client.
    Presence {
        /// Whose presence.
        user: Name<'a>,
        /// Online or away.
        state: Presence,
    },
    /// Server to client: a request came to nothing; the session lives.
    Error {
        /// What went wrong.
        code: ErrorCode,
        /// The name the request was about, as it came: up to 255 bytes, possibly empty, not
        /// necessarily a valid name.
        subject: &'a [u8],
        /// For people; up to [`TEXT_LEN_MAX`] bytes.
        text: &'a str,
    },
    /// Either side, the last frame. From a client it is a logout.
    Close {
        /// Why.
        reason: CloseReason,
        /// How long to wait before coming back, in milliseconds; 0 says nothing about it.
        retry_after_ms: u32,
        /// For people; up to [`TEXT_LEN_MAX`] bytes.
        text: &'a str,
    },
}

/// What the server tells at login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The longest payload of a SEND in bytes; a longer one is refused.
    pub payload_bytes_max: u32,
    /// Sends that may be without an answer at once; one more may be refused.
    pub unanswered_sends_max: u32,
    /// Deliveries that may be without an ack at once; the server waits with the next one.
    pub unacked_deliveries_max: u32,
    /// The session ends when nothing is heard of the client for this long, in milliseconds.
    pub idle_timeout_ms: u32,
    /// Users a session may follow at once.
    pub follows_max: u32,
    /// Messages in the inbox that are about to be delivered.
    pub inbox_messages: u64,
    /// The server's clock, in milliseconds since 1970 (Unix time).
    pub server_time_ms: u64,
}

/// Whether a user is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Presence {
    /// Logged in.
    Online,
    /// Not logged in.
    Away {
        /// End of the last session, in milliseconds since 1970 (Unix time); 0 for a user never
        /// seen.
        last_seen_ms: u64,
    },
}
