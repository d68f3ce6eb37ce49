//! `iris-bench cost`: what a message costs a server that is started for it.

use std::net::SocketAddr;

use clap::Args;

use super::drive::{Load, Measured, drive, verdict};
use super::flags::{Repeat, Timing};
use crate::BenchError;
use crate::dialect::Protocol;
use crate::measure::{Machine, Server, free_address, pin};

/// Flags of `cost`.
#[derive(Debug, Args)]
pub struct CostArgs {
    /// The cpu that the server is started on.
    #[arg(long, value_name = "CPU", default_value = "0")]
    server_cpu: usize,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    repeat: Repeat,
    /// The server and its flags, behind `--`. `{address}` stands for the address it is to listen
    /// on, `{port}` for the port alone, `{data}` for a folder of its own.
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) fn run(args: &CostArgs) -> Result<(), BenchError> {
    pin(args.repeat.load_cpu);
    println!("{}\n{}", Machine::here(), Measured::heading());
    let mut wrongs = Vec::new();
    for load in Load::standard() {
        for _ in 0..args.repeat.rounds {
            let (cpu, protocol) = (args.server_cpu, Protocol::Classic);
            let measured = measure(&args.command, cpu, protocol, &load, &args.timing)?;
            measured.print(&load.name(), &mut wrongs);
        }
    }
    verdict(&wrongs)
}

/// Starts the server afresh, drives it once, and ends it.
pub(super) fn measure(
    command: &[String],
    cpu: usize,
    protocol: Protocol,
    load: &Load,
    timing: &Timing,
) -> Result<Measured, BenchError> {
    let address = free_address()?;
    let data = tempfile::tempdir()?;
    let command = substitute(command, address, &data.path().to_string_lossy());
    let server = Server::start(&command, Some(cpu), address)?;
    drive(address, protocol, Some(server.pid()), load, timing)
}

fn substitute(command: &[String], address: SocketAddr, data: &str) -> Vec<String> {
    let port = address.port().to_string();
    let filled = command.iter().map(|argument| {
        argument
            .replace("{address}", &address.to_string())
            .replace("{port}", &port)
            .replace("{data}", data)
    });
    filled.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_command_are_filled() {
        let command = ["x", "--listen={address}", "{port}", "{data}/in"].map(str::to_owned);
        let address = SocketAddr::from(([127, 0, 0, 1], 99));
        let filled = substitute(&command, address, "/t");
        assert_eq!(filled, ["x", "--listen=127.0.0.1:99", "99", "/t/in"]);
    }
}
