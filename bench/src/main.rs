//! The program `iris-bench`. Everything it does is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use iris_bench::Scenario;

/// Drives an Iris gateway and reports HDR latency percentiles and CPU per message.
#[derive(Debug, Parser)]
#[command(name = "iris-bench", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
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
