//! Messages between users who are all logged in, in an open or a closed loop.

use super::contender::Running;
use crate::BenchError;
use crate::dialect::Protocol;
use crate::engine::{Clients, Pace, Tally, Topology, Traffic};
use crate::measure::{Cost, Meter};
use crate::report::Verdict;
use crate::scenario::flags::Timing;

/// What came of it.
#[derive(Debug)]
pub(super) struct Online {
    pub(super) tally: Tally,
    pub(super) cost: Cost,
    pub(super) verdict: Verdict,
}

/// Runs it against `server` among `users` who write to random others.
pub(super) fn run(
    server: &Running,
    protocol: Protocol,
    users: u32,
    pace: Pace,
    timing: &Timing,
) -> Result<Online, BenchError> {
    let topology = Topology::Mesh { users };
    let clients = Clients::open(server.address, protocol, users)?;
    let mut traffic = Traffic::new(clients, topology, super::MESSAGE_BYTES);
    traffic.start(pace);
    traffic.run(timing.warm_up)?;
    traffic.begin();
    let meter = Meter::begin(Some(server.pid()))?;
    traffic.run(timing.duration)?;
    traffic.end();
    let cost = meter.end()?;
    let tally = traffic.finish()?;
    Ok(Online {
        tally,
        cost,
        verdict: super::verdict_of(&traffic),
    })
}
