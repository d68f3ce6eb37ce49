//! The server that a scenario drives: a gateway of its own, or one that runs already.
//!
//! Owner: the scenario. Invariant: a server that was started here is ended, and its folder removed,
//! when this is dropped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use tempfile::TempDir;

use crate::BenchError;
use crate::measure::{Server, free_address, written_bytes};

/// Which server is driven.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct TargetArgs {
    /// Drive this server instead of starting a gateway.
    #[arg(long, value_name = "ADDRESS")]
    connect: Option<SocketAddr>,
    /// The process whose CPU and memory are counted, with --connect.
    #[arg(long, value_name = "PID", requires = "connect")]
    server_pid: Option<u32>,
    /// The gateway's program [default: the `iris` beside this program].
    #[arg(long, value_name = "PATH", conflicts_with = "connect")]
    gateway: Option<PathBuf>,
    /// The cpus the gateway has a core on, as a list.
    #[arg(
        long,
        value_name = "LIST",
        default_value = "0",
        conflicts_with = "connect"
    )]
    server_cpus: String,
    /// Where the gateway's data folder is made [default: the folder for temporary files].
    #[arg(long, value_name = "FOLDER", conflicts_with = "connect")]
    data: Option<PathBuf>,
}

/// A server that takes connections.
#[derive(Debug)]
pub(crate) struct Target {
    /// Where.
    pub(crate) address: SocketAddr,
    /// Its process, if it is known.
    pub(crate) pid: Option<u32>,
    /// What it is, for people.
    pub(crate) description: String,
    // In this order: the server ends before its folder goes.
    _server: Option<Server>,
    _data: Option<TempDir>,
}

impl Target {
    /// Bytes that the server has had the disk write; `None` where the kernel does not tell.
    pub(crate) fn written_bytes(&self) -> Option<u64> {
        written_bytes(self.pid?).ok()
    }
}

impl TargetArgs {
    /// The server that was asked for, ready to be connected to.
    ///
    /// # Errors
    /// The gateway cannot be found or does not serve.
    pub(crate) fn ready(&self) -> Result<Target, BenchError> {
        match self.connect {
            Some(address) => Ok(Target {
                address,
                pid: self.server_pid,
                description: format!("at {address}"),
                _server: None,
                _data: None,
            }),
            // The comma makes it a list of cpus and not a number of cores.
            None => self.start(&format!("{},", self.server_cpus), None),
        }
    }

    /// Starts a gateway with `cores`, all of it on `cpu` if that is given.
    ///
    /// # Errors
    /// The gateway cannot be found or does not serve.
    pub(crate) fn start(&self, cores: &str, cpu: Option<usize>) -> Result<Target, BenchError> {
        let program = match &self.gateway {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("iris"),
        };
        if !program.is_file() {
            return Err(BenchError::NoGateway(program));
        }
        let data = match &self.data {
            Some(folder) => TempDir::new_in(folder)?,
            None => TempDir::new()?,
        };
        let (address, admin) = (free_address()?, free_address()?);
        let program = program.to_string_lossy().into_owned();
        let version = version(&program);
        let command = [
            &program,
            "serve",
            "--listen",
            &address.to_string(),
            "--data",
            &data.path().to_string_lossy(),
            "--cores",
            cores,
            "--admin",
            &admin.to_string(),
        ];
        let command = command.map(str::to_owned);
        let mut server = Server::start(&command, cpu, address)?;
        server.await_ready(admin)?;
        Ok(Target {
            address,
            pid: Some(server.pid()),
            description: format!("{version}, {}", command[1..].join(" ")),
            _server: Some(server),
            _data: Some(data),
        })
    }

    /// An error if another server is to be driven than a gateway that is started for the run.
    pub(crate) fn must_be_ours(&self, scenario: &'static str) -> Result<(), BenchError> {
        match self.connect {
            Some(_) => Err(BenchError::NotOurs(scenario)),
            None => Ok(()),
        }
    }
}

/// What the program calls itself.
fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| program.to_owned())
}
