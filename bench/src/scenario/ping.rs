//! `iris-bench ping`: one pair in lock step; each message is sent when the one before has come.

use clap::Args;

use super::flags::{Common, Timing};
use super::run::Run;
use crate::BenchError;
use crate::engine::{Pace, Topology, Traffic};

/// Flags of `ping`.
#[derive(Debug, Args)]
pub struct PingArgs {
    /// Bytes of each message.
    #[arg(long, value_name = "N", default_value = "64", value_parser = super::message_bytes)]
    bytes: u32,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &PingArgs) -> Result<(), BenchError> {
    let mut run = Run::begin("ping", &args.common)?;
    run.report.setting("message bytes", args.bytes);
    let clients = run.open_clients(Topology::Pair.users())?;
    let mut traffic = Traffic::new(clients, Topology::Pair, args.bytes);
    run.rounds(
        "one pair in lock step",
        &mut traffic,
        Pace::Window(1),
        &args.timing,
    )?;
    run.settle(&traffic);
    run.finish()
}
