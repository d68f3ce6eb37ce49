//! `iris-bench load`: drives a server that runs already.

use std::net::SocketAddr;

use clap::Args;

use super::Timing;
use super::drive::{Measured, Shape, drive};
use crate::BenchError;
use crate::dialect::Protocol;

/// Flags of `load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The server.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8085")]
    connect: SocketAddr,
    /// The protocol that is spoken to it.
    #[arg(long, value_enum, default_value = "classic")]
    protocol: Protocol,
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
    let measured = drive(
        args.connect,
        args.protocol,
        args.server_pid,
        shape,
        &args.timing,
    )?;
    println!("{}", Measured::heading());
    println!("{}", measured.line(&shape.name()));
    let faults = &measured.faults;
    println!(
        "delivered {}, lost {}, out of order {}, repeated {}, strays {}, connections ended {}",
        measured.tally.delivered,
        faults.lost,
        faults.reordered,
        faults.repeated,
        faults.strays,
        faults.ended
    );
    measured.verdict()
}
