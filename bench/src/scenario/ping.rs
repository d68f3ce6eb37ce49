//! `iris-bench ping`: one pair in lock step; each message is sent when the one before was
//! delivered.

use std::net::SocketAddr;

use clap::Args;

use super::Timing;
use super::drive::{MESSAGE_BYTES, Shape, drive};
use crate::BenchError;
use crate::dialect::Protocol;
use crate::engine::Topology;

/// Flags of `ping`.
#[derive(Debug, Args)]
pub struct PingArgs {
    /// The server.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8085")]
    connect: SocketAddr,
    /// The protocol that is spoken to it.
    #[arg(long, value_enum, default_value = "classic")]
    protocol: Protocol,
    #[command(flatten)]
    timing: Timing,
}

pub(super) fn run(args: &PingArgs) -> Result<(), BenchError> {
    args.timing.pin();
    let shape = Shape {
        topology: Topology::Pair,
        in_flight: 1,
    };
    let measured = drive(args.connect, args.protocol, None, shape, &args.timing)?;
    println!(
        "{} messages of {MESSAGE_BYTES} bytes, one after another, {:.0}/s; sent to delivered, us:",
        measured.tally.delivered,
        measured.rate()
    );
    for percentile in [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0] {
        println!(
            "{percentile:>8} % {:>12.1}",
            measured.latency_us(percentile)
        );
    }
    measured.verdict()
}
