//! `iris-bench load`: drives a server that runs already.

use std::net::SocketAddr;

use clap::Args;

use super::Timing;
use super::drive::{Measured, Shape, drive};
use crate::BenchError;

/// Flags of `load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The server's classic port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8085")]
    connect: SocketAddr,
    /// Connections, logged in as users u0, u1, and so on.
    #[arg(long, value_name = "N", default_value = "200", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    connections: u32,
    /// Messages that each connection keeps in flight.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight: u32,
    /// Count the CPU of this process, the server's.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    #[command(flatten)]
    timing: Timing,
}

pub(super) fn run(args: &LoadArgs) -> Result<(), BenchError> {
    args.timing.pin();
    let shape = Shape::random(args.connections, args.in_flight);
    let measured = drive(args.connect, args.server_pid, shape, &args.timing)?;
    println!("{}", Measured::heading());
    println!("{}", measured.line(&shape.name()));
    let tally = &measured.tally;
    let disorder = tally
        .reordered
        .map_or("not tracked".to_owned(), |n| n.to_string());
    println!(
        "delivered {}, not delivered at the end {}, out of order {disorder}, strays {}, \
         connections ended {}",
        tally.delivered, measured.lost, tally.strays, tally.ended
    );
    measured.verdict()
}
