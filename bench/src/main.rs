//! `iris-bench`: drives a gateway and says what a message costs.
//!
//! Layers, each knowing only those after it: `scenario` (what is measured, and its printing),
//! `engine` (the clients and the loops that drive them), `measure` (CPU, processes, machine,
//! columns). `yardstick` is a server, the limit the gateway is held against.
//!
//! Owner: one thread. Invariant: it measures and prints; it fails only when messages are lost,
//! astray or out of order, or when something cannot be run at all.

#![forbid(unsafe_code)]

mod engine;
mod error;
mod interrupt;
mod measure;
mod scenario;
mod yardstick;

use std::process::ExitCode;

use clap::Parser;

pub(crate) use error::BenchError;

/// Drives an Iris gateway and reports HDR latency percentiles and CPU per message.
#[derive(Debug, Parser)]
#[command(name = "iris-bench", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    scenario: scenario::Scenario,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.scenario.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iris-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
