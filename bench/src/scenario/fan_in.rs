//! `iris-bench fan-in`: many write to one who reads, at a rate, or as fast as they get through.

use clap::Args;

use super::steady::LoadArgs;
use crate::BenchError;
use crate::engine::Topology;

/// Flags of `fan-in`.
#[derive(Debug, Args)]
pub struct FanInArgs {
    /// Senders.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    senders: u32,
    #[command(flatten)]
    load: LoadArgs,
}

pub(super) fn run(args: &FanInArgs) -> Result<(), BenchError> {
    let topology = Topology::FanIn {
        senders: args.senders,
    };
    let who = format!("{} to 1", args.senders);
    args.load.run("fan-in", topology, &who)
}
