//! `iris-bench sweep`: the highest rate at which a percentile of latency stays under a bound, found
//! by search: the ceiling by a closed loop, then bisection with open loops.

use std::time::Duration;

use clap::Args;

use super::flags::{Common, Timing};
use super::run::{Run, seconds_between};
use crate::BenchError;
use crate::engine::{Pace, Tally, Topology, Traffic};
use crate::measure::microseconds;

/// The window of the closed loop that finds the ceiling.
const WINDOW: u32 = 16;
/// Bisections: the rate is known to about a hundredth of the ceiling.
const STEPS: u32 = 7;
/// What was found is tried at so much less, as often, until it holds in every round.
const STEP_BACK: f64 = 0.9;
const STEPS_BACK_MAX: u32 = 10;
/// A rate counts as held from this share on.
const HELD_SHARE: f64 = 0.99;

/// Flags of `sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Connections, each a user of its own.
    #[arg(long, value_name = "N", default_value = "200", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    connections: u32,
    /// The bound, in milliseconds.
    #[arg(long, value_name = "MS", default_value = "5", value_parser = milliseconds)]
    bound: Duration,
    /// The percentile that must stay under it.
    #[arg(long, value_name = "P", default_value = "99", value_parser = percentile)]
    percentile: f64,
    /// Bytes of each message.
    #[arg(long, value_name = "N", default_value = "64", value_parser = super::message_bytes)]
    bytes: u32,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &SweepArgs) -> Result<(), BenchError> {
    let mut run = Run::begin("sweep", &args.common)?;
    run.report.setting("message bytes", args.bytes);
    let topology = Topology::Mesh {
        users: args.connections,
    };
    let clients = run.open_clients(topology.users())?;
    let mut traffic = Traffic::new(clients, topology, args.bytes);
    let pace = Pace::Window(WINDOW);
    let (tally, cost) = run.measure("finding the ceiling", &mut traffic, pace, &args.timing)?;
    run.record("ceiling, closed loop", &tally, &cost, pace);
    let ceiling = tally.delivered as f64 / seconds_between(0, tally.elapsed_ns);
    let found = search(&mut run, &mut traffic, args, ceiling)?;
    confirm(&mut run, &mut traffic, args, found, ceiling)?;
    run.settle(&traffic);
    run.finish()
}

/// The highest rate of the bisection that met the bound; 0 if none did.
fn search(
    run: &mut Run<'_>,
    traffic: &mut Traffic,
    args: &SweepArgs,
    ceiling: f64,
) -> Result<f64, BenchError> {
    let (mut good, mut bad) = (0.0, ceiling);
    let mut tried = Vec::new();
    for _ in 0..STEPS {
        let rate = (good + bad) / 2.0;
        let pace = Pace::Rate(rate);
        let what = format!("trying {rate:.0} msg/s");
        let (tally, _) = run.measure(&what, traffic, pace, &args.timing)?;
        let met = args.is_met_by(&tally, rate);
        tried.push(format!(
            "{rate:.0} msg/s: {:.0} us{}",
            args.latency_us(&tally),
            if met { "" } else { ", too much" }
        ));
        if met {
            good = rate;
        } else {
            bad = rate;
        }
    }
    run.report.setting("tried", tried.join("; "));
    Ok(good)
}

/// Measures what was found in several rounds; steps back as long as one of them fails.
fn confirm(
    run: &mut Run<'_>,
    traffic: &mut Traffic,
    args: &SweepArgs,
    found: f64,
    ceiling: f64,
) -> Result<(), BenchError> {
    let mut rate = found;
    for _ in 0..STEPS_BACK_MAX {
        if rate < 1.0 {
            break;
        }
        let pace = Pace::Rate(rate);
        let mut rounds = Vec::new();
        while rounds.len() < args.common.repeat.rounds as usize {
            let what = format!("confirming {rate:.0} msg/s");
            let (tally, cost) = run.measure(&what, traffic, pace, &args.timing)?;
            if !args.is_met_by(&tally, rate) {
                break;
            }
            rounds.push((tally, cost));
        }
        if rounds.len() == args.common.repeat.rounds as usize {
            let case = format!(
                "highest rate with p{} under {:?}",
                args.percentile, args.bound
            );
            run.report.headline = Some(format!(
                "{rate:.0} msg/s is the {case}; in a closed loop it was {ceiling:.0}"
            ));
            for (tally, cost) in &rounds {
                run.report.case(&case).figure("rate", "msg/s", rate);
                run.record(&case, tally, cost, pace);
            }
            return Ok(());
        }
        rate *= STEP_BACK;
    }
    run.report.warn(format!(
        "no rate kept p{} under {:?} in every round",
        args.percentile, args.bound
    ));
    Ok(())
}

impl SweepArgs {
    fn latency_us(&self, tally: &Tally) -> f64 {
        microseconds(tally.latency_ns.value_at_percentile(self.percentile))
    }

    fn is_met_by(&self, tally: &Tally, rate: f64) -> bool {
        let due = rate * seconds_between(0, tally.elapsed_ns);
        let held = tally.due as f64 >= due * HELD_SHARE;
        held && self.latency_us(tally) <= self.bound.as_secs_f64() * 1e6
    }
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(ms) if (0.01..=60_000.0).contains(&ms) => Ok(Duration::from_secs_f64(ms / 1e3)),
        _ => Err(format!("{text:?} is no bound between 0.01 and 60,000 ms")),
    }
}

fn percentile(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percentile) if (0.0..=100.0).contains(&percentile) => Ok(percentile),
        _ => Err(format!("{text:?} is no percentile between 0 and 100")),
    }
}
