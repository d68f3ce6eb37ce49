//! `iris-bench hot`: one user to whom everybody writes: while away, at the return, and while the
//! inbox is drained.

use clap::Args;

use super::flags::Common;
use super::inbox::{drain, store};
use super::run::{Run, latency_figures};
use crate::BenchError;
use crate::engine::{Pace, Topology, Traffic};
use crate::measure::Meter;

/// Flags of `hot`.
#[derive(Debug, Args)]
pub struct HotArgs {
    /// Senders.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    senders: u32,
    /// Messages that fill the inbox, in each round.
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    messages: u64,
    /// Messages of each sender that are unanswered at a time.
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    in_flight: u32,
    /// Bytes of each message.
    #[arg(long, value_name = "N", default_value = "64", value_parser = super::message_bytes)]
    bytes: u32,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &HotArgs) -> Result<(), BenchError> {
    let mut run = Run::begin("hot", &args.common)?;
    run.needs_inbox("hot")?;
    run.report.setting("message bytes", args.bytes);
    run.report.setting("senders", args.senders);
    let topology = Topology::FanIn {
        senders: args.senders,
    };
    let reader = args.senders..args.senders + 1;
    let clients = run.clients(topology.users())?;
    let mut traffic = Traffic::new(clients, topology, args.bytes);
    traffic.log_in(topology.senders())?;
    let (window, total) = (args.in_flight, args.messages);
    for _ in 0..args.common.repeat.rounds {
        store(&mut run, &mut traffic, "filled while away", window, total)?;
        drain(
            &mut run,
            &mut traffic,
            "drained by one reader",
            reader.clone(),
        )?;
        // Half of it is there when the reader comes; the other half comes meanwhile.
        store(&mut run, &mut traffic, "filled again", window, total / 2)?;
        both_at_once(&mut run, &mut traffic, args, total - total / 2)?;
        traffic.log_out(reader.clone())?;
    }
    run.settle(&traffic);
    run.finish()
}

/// The reader drains while everybody goes on writing.
fn both_at_once(
    run: &mut Run<'_>,
    traffic: &mut Traffic,
    args: &HotArgs,
    total: u64,
) -> Result<(), BenchError> {
    const CASE: &str = "drained and filled at once";
    run.progress.phase(CASE, Some(args.messages));
    traffic.begin();
    let meter = Meter::begin(run.target.pid)?;
    traffic.start_total(Pace::Unanswered(args.in_flight), total);
    traffic.log_in(args.senders..args.senders + 1)?;
    let progress = &run.progress;
    traffic.run_until(|traffic| {
        let left = traffic.streams().in_flight();
        progress.at(args.messages.saturating_sub(left));
        // The reader may have all that was sent before the senders are done.
        traffic.is_all_made() && left == 0
    })?;
    traffic.end();
    let cost = meter.end()?;
    let tally = traffic.take();
    let resident_mib = run.resident_mib();
    let case = run.report.case(CASE);
    case.figure(
        "delivered",
        "msg/s",
        tally.delivered as f64 / cost.elapsed.as_secs_f64(),
    );
    latency_figures(case, &tally.latency_ns);
    case.figure(
        "server, CPU",
        "us/msg",
        cost.server_us_each(tally.delivered),
    )
    .figure("server, resident", "MiB", resident_mib);
    run.record_series(CASE, &tally);
    Ok(())
}
