//! How a client's socket begins.
//!
//! Owner: the engine's thread.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

/// A socket that has begun to connect, from `source` if that is given. It blocks from then on: the
/// ring waits for what a socket that does not block would answer at once.
pub(super) fn begin(server: SocketAddr, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    socket.set_nonblocking(true)?;
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
            return Err(error);
        }
        _ => {}
    }
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}
