//! `iris-bench fan-in`: many write to one who reads, at a rate, or as fast as they get through.

use clap::Args;

use super::run::{Common, Run, Timing};
use crate::BenchError;
use crate::engine::{Pace, Topology, Traffic};

/// Flags of `fan-in`.
#[derive(Debug, Args)]
pub struct FanInArgs {
    /// Senders.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    senders: u32,
    /// Messages a second that are due, of all senders together: an open loop.
    #[arg(
        long,
        value_name = "N",
        default_value = "20000",
        value_parser = super::rate,
        conflicts_with = "in_flight"
    )]
    rate: f64,
    /// Messages that each sender keeps in flight: a closed loop.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight: Option<u32>,
    /// Bytes of each message.
    #[arg(long, value_name = "N", default_value = "64", value_parser = super::message_bytes)]
    bytes: u32,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &FanInArgs) -> Result<(), BenchError> {
    let mut run = Run::begin("fan-in", &args.common)?;
    run.report.setting("message bytes", args.bytes);
    let topology = Topology::FanIn {
        senders: args.senders,
    };
    let (pace, case) = match args.in_flight {
        Some(window) => (
            Pace::Window(window),
            format!("closed loop, {} to 1 x {window} in flight", args.senders),
        ),
        None => (
            Pace::Rate(args.rate),
            format!("open loop, {} to 1, {}/s", args.senders, args.rate),
        ),
    };
    let clients = run.open_clients(topology.users())?;
    let mut traffic = Traffic::new(clients, topology, args.bytes);
    run.rounds(&case, &mut traffic, pace, &args.timing)?;
    run.settle(&traffic);
    run.finish()
}
