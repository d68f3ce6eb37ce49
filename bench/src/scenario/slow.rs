//! `iris-bench slow`: readers that do not read. What do those who do notice of it, what does it
//! cost the server's memory, and does everything come when they read again?

use clap::Args;

use super::flags::{Common, Timing};
use super::run::Run;
use crate::BenchError;
use crate::engine::{Pace, Topology, Traffic};
use crate::measure::Meter;

/// Flags of `slow`.
#[derive(Debug, Args)]
pub struct SlowArgs {
    /// Pairs whose reader reads.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    healthy: u32,
    /// Pairs whose reader does not.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    slow: u32,
    /// Messages a second that are due, of all senders together.
    #[arg(long, value_name = "N", default_value = "20000", value_parser = super::rate)]
    rate: f64,
    /// Bytes of each message.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = super::message_bytes)]
    bytes: u32,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &SlowArgs) -> Result<(), BenchError> {
    let mut run = Run::begin("slow", &args.common)?;
    run.report.setting("message bytes", args.bytes);
    let pairs = args.healthy + args.slow;
    let topology = Topology::FanOut {
        senders: pairs,
        readers_each: 1,
    };
    let clients = run.open_clients(topology.users())?;
    let mut traffic = Traffic::new(clients, topology, args.bytes);
    traffic.watch(args.healthy);
    let slow = pairs + args.healthy..topology.users();
    let pace = Pace::Rate(args.rate);
    for _ in 0..args.common.repeat.rounds {
        run.round("everybody reads", &mut traffic, pace, &args.timing)?;
    }
    slow.clone()
        .for_each(|reader| traffic.clients().set_deaf(reader, true));
    let case = format!("{} of {pairs} do not read; the others", args.slow);
    for _ in 0..args.common.repeat.rounds {
        run.round(&case, &mut traffic, pace, &args.timing)?;
    }
    slow.for_each(|reader| traffic.clients().set_deaf(reader, false));
    catch_up(&mut run, &mut traffic)?;
    compare(&mut run, &case);
    run.settle(&traffic);
    run.finish()
}

/// The slow ones read again, until they have everything.
fn catch_up(run: &mut Run<'_>, traffic: &mut Traffic) -> Result<(), BenchError> {
    const CASE: &str = "they read again";
    let waiting = traffic.streams().in_flight();
    run.progress.phase(CASE, Some(waiting));
    let meter = Meter::begin(run.target.pid)?;
    let progress = &run.progress;
    traffic.run_until(|traffic| {
        let left = traffic.streams().in_flight();
        progress.at(waiting.saturating_sub(left));
        left == 0
    })?;
    let cost = meter.end()?;
    let caught_up = waiting - traffic.streams().in_flight();
    let seconds = cost.elapsed.as_secs_f64();
    let resident_mib = run.resident_mib();
    run.report
        .case(CASE)
        .figure("waited for them", "messages", waiting as f64)
        .figure("caught up", "msg/s", caught_up as f64 / seconds)
        .figure("until all had come", "ms", seconds * 1e3)
        .figure("server, CPU", "us/msg", cost.server_us_each(caught_up))
        .figure("server, resident", "MiB", resident_mib);
    Ok(())
}

/// What those who read notice of those who do not.
fn compare(run: &mut Run<'_>, with: &str) {
    for name in ["latency, p50", "latency, p99"] {
        let of = |case: &str| run.report.median_of(case, name);
        let ratio = of(with)
            .zip(of("everybody reads"))
            .map(|(with, without)| with / without);
        run.report
            .case("with slow readers over without")
            .figure(name, "ratio of medians", ratio);
    }
}
