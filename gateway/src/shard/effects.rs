//! What a shard asks of the world around it.
//!
//! The driver (or the simulator) takes these after each event. Bytes to send are
//! not among them: the driver fetches those once a turn, connection by
//! connection, so that many messages share one send.

use iris_storage::Request;

use super::slots::Key;

/// One thing to do for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// A connection that came over a lane: the socket in this slot of this
    /// segment is its.
    Adopt {
        /// The connection.
        connection: Key,
        /// Net ring that holds the socket.
        segment: u16,
        /// Slot of the socket in that ring.
        slot: u32,
        /// Where its peer is: the driver's number for it.
        place: u32,
    },
    /// The connection is at home: receive for as long as it lives.
    AtHome(Key),
    /// Move the socket to this core, then call `Shard::handed_over`. Receiving
    /// stops first, and what is in flight is sent first.
    HandOver {
        /// The connection.
        connection: Key,
        /// The core that is home to its user.
        core: u16,
    },
    /// Ask how many sent bytes the peer has not acknowledged; answer with
    /// `Shard::probed`.
    Probe(Key),
    /// Receive no more for now; what still comes is held.
    Pause(Key),
    /// Receive again.
    Resume(Key),
    /// Send what is before the seal, close the socket, call `Shard::ended`.
    Close(Key),
}

/// Everything a shard asked for since it was last looked at.
#[derive(Default)]
pub struct Effects {
    /// For connections, in order.
    pub connections: Vec<Effect>,
    /// For the store, in order.
    pub store: Vec<Request>,
}
