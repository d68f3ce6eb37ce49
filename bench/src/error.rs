//! What can keep a scenario from running, or its figures from being worth anything.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;

use iris_ring::RingError;

use crate::dialect::Protocol;

/// Why `iris-bench` failed, in words for whoever runs it.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The clients' or the yardstick's ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Anything else of the system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A client could not connect.
    #[error("client {client} cannot connect to {server}: {source}")]
    Connect {
        /// Which client, from 0.
        client: u32,
        /// The server.
        server: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server closed connections at login.
    #[error("the server closed connections that wanted to log in {0}")]
    TurnedAway(Box<str>),
    /// Time ran out.
    #[error("no answer in time: {0}")]
    Unanswered(&'static str),
    /// A program could not be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A server ended, or cannot be connected to.
    #[error("the server does not serve ({}); its last words:\n{words}", describe(*.status))]
    NotServing {
        /// How it ended, if it did.
        status: Option<ExitStatus>,
        /// The end of its output.
        words: String,
    },
    /// There is no gateway to start.
    #[error("there is no gateway at {}: build it (cargo build --release), or name it with --gateway", .0.display())]
    NoGateway(PathBuf),
    /// The scenario starts its gateways itself.
    #[error("{0} starts gateways of its own, so it cannot --connect to another")]
    NotOurs(&'static str),
    /// No server command.
    #[error("the command of the server is empty")]
    NoCommand,
    /// A file of the report.
    #[error("cannot write {}: {source}", .path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The protocol lacks what the scenario is about.
    #[error("{scenario} needs a protocol that {need}; {protocol} does not")]
    Protocol {
        /// The scenario.
        scenario: &'static str,
        /// What it needs.
        need: &'static str,
        /// What was asked for.
        protocol: Protocol,
    },
    /// Somebody would have to reply who writes to nobody.
    #[error("in {0} not all users write, so --shape reply is not for it")]
    Shape(&'static str),
    /// SIGINT or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    /// The figures are in, but messages went wrong.
    #[error("messages went wrong: {0}")]
    Wrong(String),
}

fn describe(status: Option<ExitStatus>) -> String {
    match status {
        Some(status) => status.to_string(),
        None => "it runs, but takes no connections".to_owned(),
    }
}
