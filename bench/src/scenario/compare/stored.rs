//! Messages for users who are away: stored by many senders in a closed loop, then drained by all of
//! their readers.
//!
//! Invariants: each sender has one reader of its own, who was logged in before, so that what a
//! server makes for a new user is there, and who is away while anything is sent; nothing is sent
//! while anything is drained.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::contender::Running;
use crate::BenchError;
use crate::dialect::Protocol;
use crate::engine::{Clients, Pace, Topology, Traffic};
use crate::measure::{Cost, Meter};
use crate::report::Verdict;
use crate::scenario::flags::Timing;

/// How long servers may take to notice who has left.
const AWAY: Duration = Duration::from_millis(300);

/// What came of it.
#[derive(Debug)]
pub(super) struct Stored {
    /// Messages that were answered as stored in the time that was measured.
    pub(super) stored: u64,
    pub(super) store: Cost,
    /// From sent to answered, in ns.
    pub(super) answer_ns: Histogram<u64>,
    /// Messages that were drained, from the first login to the last message.
    pub(super) drained: u64,
    pub(super) drain: Cost,
    pub(super) verdict: Verdict,
}

/// Runs it against `server` with `senders`, each with `in_flight` messages unanswered.
pub(super) fn run(
    server: &Running,
    protocol: Protocol,
    senders: u32,
    in_flight: u32,
    timing: &Timing,
) -> Result<Stored, BenchError> {
    let topology = Topology::FanOut {
        senders,
        readers_each: 1,
    };
    let readers = senders..topology.users();
    let clients = Clients::new(server.address, protocol, topology.users())?;
    let mut traffic = Traffic::new(clients, topology, super::MESSAGE_BYTES);
    log_in(&mut traffic, 0..topology.users())?;
    traffic.log_out(readers.clone())?;
    traffic.run(AWAY)?;

    traffic.start(Pace::Unanswered(in_flight));
    traffic.run(timing.warm_up)?;
    traffic.begin();
    let (meter, before) = (Meter::begin(Some(server.pid()))?, traffic.answered());
    traffic.run(timing.duration)?;
    traffic.end();
    let (store, stored) = (meter.end()?, traffic.answered() - before);
    traffic.start_total(Pace::Unanswered(0), 0);
    let is_answered = |traffic: &Traffic| {
        traffic.answered() + traffic.streams().refusals() == traffic.streams().sent()
    };
    traffic.run_until(is_answered)?;
    let answer_ns = traffic.take().answer_ns;

    let meter = Meter::begin(Some(server.pid()))?;
    log_in(&mut traffic, readers)?;
    traffic.run_until(|traffic| traffic.streams().in_flight() == 0)?;
    Ok(Stored {
        stored,
        store,
        answer_ns,
        drained: traffic.streams().delivered(),
        drain: meter.end()?,
        verdict: super::verdict_of(&traffic),
    })
}

fn log_in(traffic: &mut Traffic, users: std::ops::Range<u32>) -> Result<(), BenchError> {
    if traffic.log_in(users)? {
        return Ok(());
    }
    Err(match traffic.last_word() {
        Some(word) => BenchError::TurnedAway(word.into()),
        None => BenchError::Unanswered("logging in"),
    })
}
