//! `iris-bench limit`: serves as the yardstick until it is ended.

use std::net::{SocketAddr, TcpListener};

use clap::Args;
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Socket, Type};

use crate::{BenchError, yardstick};

/// More is of no use to any load here.
const SLOTS_MAX: u64 = 1 << 16;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// Flags of `limit`.
#[derive(Debug, Args)]
pub struct LimitArgs {
    /// Where to listen (port 0: any that is free, and printed). Loopback only: the yardstick has
    /// no limits and no safety.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8085")]
    listen: SocketAddr,
    /// The cpu to run on [default: wherever it was started].
    #[arg(long, value_name = "CPU")]
    cpu: Option<usize>,
}

pub(super) fn run(args: &LimitArgs) -> Result<(), BenchError> {
    if let Some(id) = args.cpu {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    let socket = Socket::new(Domain::for_address(args.listen), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // What is accepted inherits it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&args.listen.into())?;
    socket.listen(BACKLOG)?;
    let slots = getrlimit(Resource::Nofile)
        .current
        .unwrap_or(SLOTS_MAX)
        .min(SLOTS_MAX);
    let listener = TcpListener::from(socket);
    println!("listening on {}", listener.local_addr()?);
    yardstick::run(&listener, slots as u32)
}
