//! The load engine: who owns the clients' sockets, and the loops that drive them.
//!
//! Owner: one thread, pinned apart from the server's. Scenarios say what is to be driven and for
//! how long; nothing here prints or starts a process.

mod clients;
mod closed_loop;
mod message;
mod random;
mod sources;

pub(crate) use clients::{Clients, Handler, Outboxes};
pub(crate) use closed_loop::{ClosedLoop, Pattern, Tally};
pub(crate) use message::MESSAGE_BYTES;
