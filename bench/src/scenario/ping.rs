//! `iris-bench ping`: one pair in lock step; each message is sent when the one before was
//! delivered.

use std::net::SocketAddr;

use clap::Args;

use super::Timing;
use super::drive::{Shape, drive};
use crate::BenchError;
use crate::engine::{MESSAGE_BYTES, Pattern};

/// Flags of `ping`.
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// The server's classic port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8085")]
    connect: SocketAddr,
    #[command(flatten)]
    timing: Timing,
}

pub(super) fn run(args: &PingArgs) -> Result<(), BenchError> {
    args.timing.pin();
    let shape = Shape {
        connections: 2,
        in_flight: 1,
        pattern: Pattern::Pair,
    };
    let measured = drive(args.connect, None, shape, &args.timing)?;
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
