//! The load engine: the owner of the clients' sockets, the ledger of what they send, and the loops
//! that drive them.
//!
//! Owner: one thread, pinned apart from the server's. Scenarios say what is to be driven and for
//! how long; nothing here prints or starts a process.

mod clients;
pub mod clock;
mod message;
mod names;
mod post;
mod random;
mod recorder;
mod rings;
mod sizes;
mod sources;
mod streams;
mod traffic;

pub use clients::{Clients, End, Handler};
pub use message::Message;
pub use names::{Names, UserName};
pub use post::Post;
pub use random::Random;
pub use recorder::{Interval, Recorder, Tally, histogram};
pub use sizes::Sizes;
pub use streams::{Faults, Streams, Taken, Topology};
pub use traffic::{Pace, Traffic};
