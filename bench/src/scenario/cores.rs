//! `iris-bench cores`: the same load on gateways of one, two and four cores, all of them on one
//! cpu: what a message costs more when it has to cross from core to core.
//!
//! Twice: at a rate, which is the same load for all; and as fast as messages get through, where what
//! crosses is longer on its way, so that fewer of those in flight come together and share a send.

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
    /// Messages a second that are due, of all senders together, in the open loop.
    #[arg(long, value_name = "N", default_value = "400000", value_parser = super::rate)]
    rate: f64,
    /// Messages that each sender keeps in flight, in the closed loop.
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
        let clients = run.open_clients(topology.users())?;
        let mut traffic = Traffic::new(clients, topology, args.bytes);
        for pace in args.paces() {
            run.rounds(&case(count, pace), &mut traffic, pace, &args.timing)?;
        }
        run.settle(&traffic);
    }
    let Some(mut run) = run else { return Ok(()) };
    for pace in args.paces() {
        compare(&mut run, &args.counts, pace);
    }
    run.finish()
}

impl CoresArgs {
    fn paces(&self) -> [Pace; 2] {
        [Pace::Rate(self.rate), Pace::Window(self.in_flight)]
    }
}

fn case(count: u32, pace: Pace) -> String {
    format!("{count} on one cpu, {}", load(pace))
}

fn load(pace: Pace) -> String {
    match pace {
        Pace::Rate(rate) => format!("{rate}/s"),
        Pace::Window(window)
        | Pace::Unanswered(window)
        | Pace::Reply(window)
        | Pace::Eager(window)
        | Pace::Bursts(window) => format!("{window} in flight"),
    }
}

/// What a message costs, over what it costs with the first count.
fn compare(run: &mut Run<'_>, counts: &[u32], pace: Pace) {
    let cost = |count: u32| run.report.median_of(&case(count, pace), "server, CPU");
    let Some((&first, others)) = counts.split_first() else {
        return;
    };
    let ratios: Vec<_> = others
        .iter()
        .filter_map(|&count| Some((count, cost(count)? / cost(first)?)))
        .collect();
    for (count, ratio) in ratios {
        let case = format!("{count} over {first}, {}", load(pace));
        let case = run.report.case(&case);
        case.figure("server, CPU", "ratio of medians", ratio);
    }
}
