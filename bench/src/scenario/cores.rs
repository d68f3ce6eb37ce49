//! `iris-bench cores`: the same load on gateways of one, two and four cores, all of them on one
//! cpu: what a message costs more when it has to cross from core to core.

use clap::Args;

use super::flags::{Common, Timing};
use super::run::Run;
use crate::BenchError;
use crate::engine::{Pace, Topology, Traffic};

/// Flags of `cores`.
#[derive(Debug, Args)]
pub struct CoresArgs {
    /// How many cores the gateways have, one after another.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,2,4", value_parser = clap::value_parser!(u32).range(1..=64))]
    counts: Vec<u32>,
    /// The cpu that all cores of a gateway share.
    #[arg(long, value_name = "CPU", default_value = "0")]
    cpu: usize,
    /// Connections, each a user of its own.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(2..=100_000))]
    connections: u32,
    /// Messages that each sender keeps in flight.
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight: u32,
    /// Bytes of each message.
    #[arg(long, value_name = "N", default_value = "64", value_parser = super::message_bytes)]
    bytes: u32,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &CoresArgs) -> Result<(), BenchError> {
    let target = &args.common.target;
    target.must_be_ours("cores")?;
    let topology = Topology::Mesh {
        users: args.connections,
    };
    let mut run: Option<Run<'_>> = None;
    for &count in &args.counts {
        let gateway = target.start(&count.to_string(), Some(args.cpu))?;
        let run = match &mut run {
            Some(run) => {
                run.go_on_with(gateway)?;
                run
            }
            None => {
                let begun = Run::begin_with("cores", &args.common, gateway)?;
                run.insert(begun)
            }
        };
        let case = format!("{count} on one cpu");
        let clients = run.open_clients(topology.users())?;
        let mut traffic = Traffic::new(clients, topology, args.bytes);
        run.rounds(
            &case,
            &mut traffic,
            Pace::Window(args.in_flight),
            &args.timing,
        )?;
        run.settle(&traffic);
    }
    let Some(mut run) = run else { return Ok(()) };
    compare(&mut run, &args.counts);
    run.finish()
}

/// What a message costs, over what it costs with the first count.
fn compare(run: &mut Run<'_>, counts: &[u32]) {
    let cost = |count: u32| {
        let case = format!("{count} on one cpu");
        run.report.median_of(&case, "server, CPU")
    };
    let Some((&first, others)) = counts.split_first() else {
        return;
    };
    let ratios: Vec<_> = others
        .iter()
        .filter_map(|&count| Some((count, cost(count)? / cost(first)?)))
        .collect();
    for (count, ratio) in ratios {
        run.report.case(&format!("{count} over {first}")).figure(
            "server, CPU",
            "ratio of medians",
            ratio,
        );
    }
}
