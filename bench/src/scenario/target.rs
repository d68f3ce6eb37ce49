//! The server that a scenario drives: a gateway of its own, or one that runs already.
//!
//! Owner: the scenario. Invariant: a server that was started here is ended, and its folder removed,
//! when this is dropped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread::{self, JoinHandle};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
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
    /// What was started for the run.
    started: Option<Started>,
}

/// A gateway of ours, and how it is started again.
#[derive(Debug)]
struct Started {
    // In this order: the server ends before its folder goes.
    server: Option<Server>,
    _data: TempDir,
    recipe: Recipe,
}

/// How a gateway is started.
#[derive(Debug, Clone)]
struct Recipe {
    command: Vec<String>,
    cpu: Option<usize>,
    address: SocketAddr,
    admin: SocketAddr,
}

/// How a gateway is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// SIGKILL.
    Killed,
    /// SIGTERM: it says goodbye to its clients.
    Drained,
}

/// A gateway that is being ended and started again, with the same folder, at the same address.
#[derive(Debug)]
pub(crate) struct Restart {
    thread: JoinHandle<Result<Server, BenchError>>,
}

impl Restart {
    /// Whether it is ready, or failed.
    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
}

impl Recipe {
    /// A gateway that is ready.
    fn start(&self) -> Result<Server, BenchError> {
        let mut server = Server::start(&self.command, self.cpu, self.address)?;
        server.await_ready(self.admin)?;
        Ok(server)
    }
}

impl Target {
    /// Begins to end the gateway and to start it again, on a thread of its own, since those who are
    /// connected have to see to their side meanwhile. `None` if it was not started here.
    ///
    /// # Errors
    /// No thread could be started.
    pub(crate) fn restart(&mut self, ending: Ending) -> Result<Option<Restart>, BenchError> {
        let Some(started) = &mut self.started else {
            return Ok(None);
        };
        let Some(server) = started.server.take() else {
            return Ok(None);
        };
        let recipe = started.recipe.clone();
        let again = move || {
            if ending == Ending::Killed {
                kill(&server)?;
            }
            drop(server);
            recipe.start()
        };
        let thread = thread::Builder::new()
            .name("restart".to_owned())
            .spawn(again)?;
        Ok(Some(Restart { thread }))
    }

    /// Takes the gateway that was started again.
    ///
    /// # Errors
    /// It does not serve.
    pub(crate) fn restarted(&mut self, restart: Restart) -> Result<(), BenchError> {
        let server = restart.thread.join();
        let server = server.map_err(|_| std::io::Error::other("starting the gateway again"))??;
        self.pid = Some(server.pid());
        if let Some(started) = &mut self.started {
            started.server = Some(server);
        }
        Ok(())
    }

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
                started: None,
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
        let recipe = Recipe {
            command: command.map(str::to_owned).into(),
            cpu,
            address,
            admin,
        };
        let server = recipe.start()?;
        Ok(Target {
            address,
            pid: Some(server.pid()),
            description: format!("{version}, {}", recipe.command[1..].join(" ")),
            started: Some(Started {
                server: Some(server),
                _data: data,
                recipe,
            }),
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

/// Sends SIGKILL. The server is not reaped before it is dropped, so the pid is still its own.
fn kill(server: &Server) -> Result<(), BenchError> {
    let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        kill_process(pid, Signal::KILL).map_err(std::io::Error::from)?;
    }
    Ok(())
}

/// What the program calls itself.
fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| program.to_owned())
}
