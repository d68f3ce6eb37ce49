//! `iris-bench offline`: messages are stored for users who are away, who then come and drain them.

use clap::Args;

use super::flags::Common;
use super::inbox::{drain, store};
use super::run::Run;
use crate::BenchError;
use crate::engine::{Topology, Traffic};

/// Flags of `offline`.
#[derive(Debug, Args)]
pub struct OfflineArgs {
    /// Senders.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    senders: u32,
    /// Users who are away, for each sender.
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    readers_each: u32,
    /// Messages, all together, in each round.
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    messages: u64,
    /// Messages of each sender that are unanswered at a time.
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    in_flight: u32,
    /// Bytes of each message.
    #[arg(long, value_name = "N", default_value = "100", value_parser = super::message_bytes)]
    bytes: u32,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &OfflineArgs) -> Result<(), BenchError> {
    let mut run = Run::begin("offline", &args.common)?;
    run.needs_inbox("offline")?;
    run.report.setting("message bytes", args.bytes);
    let topology = Topology::FanOut {
        senders: args.senders,
        readers_each: args.readers_each,
    };
    run.report
        .setting("users away", topology.users() - args.senders);
    let readers = args.senders..topology.users();
    let clients = run.clients(topology.users())?;
    let mut traffic = Traffic::new(clients, topology, args.bytes);
    traffic.log_in(topology.senders())?;
    for _ in 0..args.common.repeat.rounds {
        let (window, total) = (args.in_flight, args.messages);
        store(&mut run, &mut traffic, "stored while away", window, total)?;
        drain(&mut run, &mut traffic, "drained", readers.clone())?;
    }
    run.settle(&traffic);
    run.finish()
}
