//! `iris-bench burn`: users log in, take what waits for them, log out, and log in again: then
//! nothing may be left.
//!
//! Owner: the scenario. Invariant: a user logs in again only when the first session has ended from
//! both sides, so its acknowledgements were read.

use std::ops::Range;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;

use super::flags::Common;
use super::inbox::store;
use super::run::{Run, latency_figures};
use crate::BenchError;
use crate::engine::{Topology, Traffic, clock, histogram};
use crate::measure::Meter;

/// Senders; a sixteenth of the users if that is less.
const SENDERS_MAX: u32 = 64;
/// How long a second session waits for what ought not to come, where the server did not say that
/// nothing waits.
const SUSPICION_NS: u64 = 200_000_000;
/// A user who gets no further for this long is given up.
const PATIENCE_NS: u64 = 10_000_000_000;

/// Flags of `burn`.
#[derive(Debug, Args)]
pub struct BurnArgs {
    /// Users.
    #[arg(long, value_name = "N", default_value = "2000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    users: u32,
    /// Messages that wait for each user.
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    messages: u32,
    /// Users who are on their way at a time.
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    at_once: u32,
    /// Bytes of each message.
    #[arg(long, value_name = "N", default_value = "100", value_parser = super::message_bytes)]
    bytes: u32,
    #[command(flatten)]
    common: Common,
}

/// Where a user is on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Takes what waits.
    Consumes,
    /// Has it all, and leaves.
    Leaves,
    /// Logged in again.
    Verifies,
    /// Saw that nothing was left, and leaves.
    LeavesAgain,
}

/// A user on the way.
#[derive(Debug, Clone, Copy)]
struct Traveller {
    user: u32,
    stage: Stage,
    since_ns: u64,
}

/// What a round came to.
struct Journey {
    consumed_ns: Histogram<u64>,
    verified_ns: Histogram<u64>,
    verified: u64,
    /// Those of whom the server said that nothing waits.
    told_empty: u64,
    stuck: u64,
}

pub(super) fn run(args: &BurnArgs) -> Result<(), BenchError> {
    let mut run = Run::begin("burn", &args.common)?;
    run.needs_inbox("burn")?;
    run.report.setting("message bytes", args.bytes);
    run.report.setting("messages for each user", args.messages);
    let senders = args.users.div_ceil(16).min(SENDERS_MAX);
    let topology = Topology::FanOut {
        senders,
        readers_each: args.users.div_ceil(senders),
    };
    let users = senders..topology.users();
    run.report.setting("users", users.len());
    let clients = run.clients(topology.users())?;
    let mut traffic = Traffic::new(clients, topology, args.bytes);
    traffic.log_in(topology.senders())?;
    let total = users.len() as u64 * u64::from(args.messages);
    for _ in 0..args.common.repeat.rounds {
        store(&mut run, &mut traffic, "stored before", 16, total)?;
        burn(&mut run, &mut traffic, users.clone(), args.at_once)?;
    }
    run.settle(&traffic);
    run.finish()
}

/// Sends all users on their way, and adds the round.
fn burn(
    run: &mut Run<'_>,
    traffic: &mut Traffic,
    users: Range<u32>,
    at_once: u32,
) -> Result<(), BenchError> {
    let count = users.len() as u64;
    run.progress
        .phase("login, consume, login, verify", Some(count));
    let repeated = traffic.faults().repeated;
    let meter = Meter::begin(run.target.pid)?;
    let journey = Journey::of(run, traffic, users, at_once as usize)?;
    let cost = meter.end()?;
    run.report
        .verdict
        .add_logins(2 * count, 2 * count - journey.stuck);
    let left_over = traffic.faults().repeated - repeated;
    let resident_mib = run.resident_mib();
    let case = run.report.case("consumed");
    latency_figures(case, &journey.consumed_ns);
    case.latencies(&journey.consumed_ns);
    let case = run.report.case("verified empty");
    case.figure("verified", "users", journey.verified as f64)
        .figure(
            "told that nothing waits",
            "users",
            journey.told_empty as f64,
        )
        .figure("left over", "messages", left_over as f64)
        .figure(
            "cycles",
            "each s",
            journey.verified as f64 / cost.elapsed.as_secs_f64(),
        );
    latency_figures(case, &journey.verified_ns);
    case.latencies(&journey.verified_ns)
        .figure("server, CPU", "us/cycle", cost.server_us_each(count))
        .figure("server, busy", "% of a cpu", cost.server_percent())
        .figure("server, resident", "MiB", resident_mib)
        .figure("generator, busy", "% of a cpu", cost.generator_percent());
    Ok(())
}

impl Journey {
    fn of(
        run: &Run<'_>,
        traffic: &mut Traffic,
        users: Range<u32>,
        at_once: usize,
    ) -> Result<Self, BenchError> {
        let mut journey = Self {
            consumed_ns: histogram(),
            verified_ns: histogram(),
            verified: 0,
            told_empty: 0,
            stuck: 0,
        };
        let mut coming = users;
        let mut under_way: Vec<Traveller> = Vec::new();
        loop {
            while under_way.len() < at_once
                && let Some(user) = coming.next()
            {
                traffic.clients().connect(user, user)?;
                under_way.push(Traveller::at(user, Stage::Consumes));
            }
            if under_way.is_empty() {
                return Ok(journey);
            }
            traffic.run(Duration::from_micros(200))?;
            let mut still = Vec::with_capacity(under_way.len());
            for traveller in under_way.drain(..) {
                still.extend(journey.step(traffic, traveller)?);
            }
            under_way = still;
            run.progress.at(journey.verified);
        }
    }

    /// Where a user goes next; `None` at the end of the way.
    fn step(
        &mut self,
        traffic: &mut Traffic,
        traveller: Traveller,
    ) -> Result<Option<Traveller>, BenchError> {
        let Traveller {
            user,
            stage,
            since_ns,
        } = traveller;
        let spent_ns = clock::now_ns().saturating_sub(since_ns);
        let is_open = traffic.clients().is_open(user);
        let next = match stage {
            Stage::Consumes if traffic.owed_to(user) == 0 && traffic.is_logged_in(user) => {
                self.consumed_ns.saturating_record(spent_ns);
                traffic.leave(user);
                Some(Stage::Leaves)
            }
            Stage::Leaves if !is_open => {
                traffic.clients().connect(user, user)?;
                Some(Stage::Verifies)
            }
            Stage::Verifies if traffic.is_logged_in(user) => {
                let told_empty = traffic.waiting(user) == Some(0);
                if told_empty || spent_ns > SUSPICION_NS {
                    self.verified += 1;
                    self.told_empty += u64::from(told_empty);
                    self.verified_ns.saturating_record(spent_ns);
                    traffic.leave(user);
                    Some(Stage::LeavesAgain)
                } else {
                    None
                }
            }
            Stage::LeavesAgain if !is_open => return Ok(None),
            _ => None,
        };
        match next {
            Some(stage) => Ok(Some(Traveller::at(user, stage))),
            None if spent_ns > PATIENCE_NS => {
                self.stuck += 1;
                traffic.clients().close(user);
                Ok(None)
            }
            None => Ok(Some(traveller)),
        }
    }
}

impl Traveller {
    fn at(user: u32, stage: Stage) -> Self {
        Self {
            user,
            stage,
            since_ns: clock::now_ns(),
        }
    }
}
