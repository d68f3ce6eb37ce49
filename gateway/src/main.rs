//! The program `iris`. Everything it does is in the library, where tests can reach it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    iris_gateway::cli::run()
}
