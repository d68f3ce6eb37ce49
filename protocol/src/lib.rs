//! The two wire protocols of Iris, encoded and decoded in place.
//!
//! `SPEC.md` beside this crate is the text that clients are written from; tests hold its golden
//! bytes and its code lists to this code.
//!
//! Owner: nobody. Everything here is a pure function of its arguments and may be called from any
//! thread; the gateway calls it from the core that owns the connection.
//!
//! Invariants:
//! - no I/O, no clock, no state: what to do with a frame is the caller's business;
//! - decoding allocates nothing, borrows from the input, never panics whatever the bytes are, and
//!   never consumes more than it was given;
//! - a verdict once given stands: more bytes behind the same prefix never change it (the one
//!   exception is written down in [`classic`]);
//! - every limit is checked from a frame's header, before its body is awaited.
//!
//! Not here: which side may send which frame, and when. The receiver's state machine decides that.

#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod check;
pub mod classic;
mod close;
mod code_list;
pub mod framed;
mod id;
mod name;
mod outcome;
mod sniff;

pub use close::CloseReason;
pub use id::{MessageId, SEQUENCE_MAX};
pub use name::{Name, NameError};
pub use outcome::{ErrorCode, Outcome, RefusalReason};
pub use sniff::{Protocol, Protocols, sniff};
