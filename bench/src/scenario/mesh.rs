//! `iris-bench mesh`: everybody writes to random others.
//!
//! Open loop by default, for latency: messages are due at an even rate, whatever the server does.
//! With `--in-flight` a closed loop, for throughput.

use clap::Args;

use super::steady::LoadArgs;
use crate::BenchError;
use crate::engine::Topology;

/// Flags of `mesh`.
#[derive(Debug, Args)]
pub struct MeshArgs {
    /// Connections, each a user of its own.
    #[arg(long, value_name = "N", default_value = "200", value_parser = clap::value_parser!(u32).range(2..=2_000_000))]
    connections: u32,
    #[command(flatten)]
    load: LoadArgs,
}

pub(super) fn run(args: &MeshArgs) -> Result<(), BenchError> {
    let topology = Topology::Mesh {
        users: args.connections,
    };
    let who = format!("{} users", args.connections);
    args.load.run("mesh", topology, &who)
}
