//! `iris-bench mesh`: everybody writes to random others.
//!
//! Open loop by default, for latency: messages are due at an even rate, whatever the server does.
//! With `--in-flight` a closed loop, for throughput.

use clap::Args;

use super::run::{Common, Run, Timing};
use crate::BenchError;
use crate::engine::{Pace, Topology, Traffic};

/// Flags of `mesh`.
#[derive(Debug, Args)]
pub struct MeshArgs {
    /// Connections, each a user of its own.
    #[arg(long, value_name = "N", default_value = "200", value_parser = clap::value_parser!(u32).range(2..=2_000_000))]
    connections: u32,
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

pub(super) fn run(args: &MeshArgs) -> Result<(), BenchError> {
    let mut run = Run::begin("mesh", &args.common)?;
    run.report.setting("message bytes", args.bytes);
    let topology = Topology::Mesh {
        users: args.connections,
    };
    let (pace, case) = match args.in_flight {
        Some(window) => (
            Pace::Window(window),
            format!(
                "closed loop, {} users x {window} in flight",
                args.connections
            ),
        ),
        None => (
            Pace::Rate(args.rate),
            format!("open loop, {} users, {}/s", args.connections, args.rate),
        ),
    };
    let clients = run.open_clients(topology.users())?;
    let mut traffic = Traffic::new(clients, topology, args.bytes);
    run.rounds(&case, &mut traffic, pace, &args.timing)?;
    run.settle(&traffic);
    run.finish()
}
