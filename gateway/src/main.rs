//! The program `iris`. Everything it does is in the library, where tests can reach it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// A record is made by a core and let go of by the store. The C library's allocator has both
/// of them wait for one lock then, and each other's clean-up.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    iris_gateway::cli::run()
}
