//! Memory that a server takes for each connection: what it grows by when more users log in.

use std::thread;
use std::time::Duration;

use super::contender::Running;
use crate::BenchError;
use crate::dialect::Protocol;
use crate::engine::{Clients, Pace, Topology, Traffic};
use crate::measure::resident_bytes;

/// Users that are there before: what a server has for any number of users exists by then.
const BEFORE: u32 = 2_000;
/// Users that come, and are charged.
const CHARGED: u32 = 8_000;
/// How long those who were there before write to each other, so that buffers have been in use.
const WARM_UP: Duration = Duration::from_millis(1_000);
/// How long a server may take to give back what it used for messages or logins only: it may look at what is idle once
/// a second, and the gateway's allocator keeps what was freed for ten more. What goes back later than it is looked at would hide
/// what the users take.
const SETTLE: Duration = Duration::from_secs(12);

/// Bytes of resident memory for each idle user.
pub(super) fn run(server: &Running, protocol: Protocol) -> Result<f64, BenchError> {
    let clients = Clients::open(server.address, protocol, BEFORE)?;
    let topology = Topology::Mesh { users: BEFORE };
    let mut traffic = Traffic::new(clients, topology, super::MESSAGE_BYTES);
    traffic.start(Pace::Window(4));
    traffic.run(WARM_UP)?;
    traffic.finish()?;
    thread::sleep(SETTLE);
    let before = resident_bytes(server.pid())?;
    let charged = Clients::open(server.address, protocol, CHARGED)?;
    thread::sleep(SETTLE);
    let after = resident_bytes(server.pid())?;
    drop(charged);
    Ok(after.saturating_sub(before) as f64 / f64::from(CHARGED))
}
