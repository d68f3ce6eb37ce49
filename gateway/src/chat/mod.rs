//! `iris chat`: a small terminal client of the framed protocol.
//!
//! One thread owns the session and the socket's writing side and works on events; one thread reads
//! lines, one reads the socket. Blocking sockets and threads: this is one user at a keyboard.
//!
//! Invariants: a delivery is acknowledged after it was printed, never before; a send keeps its
//! sequence number until it is answered, over any number of reconnects, so that the gateway and the
//! reader can tell a repeat.

mod client;
mod clock;
mod line;
mod link;
mod session;
mod terminal;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use iris_protocol::Name;

use crate::cli::Failure;

/// Where `iris` listens when nothing is configured.
const DEFAULT_SERVER: &str = "127.0.0.1:8085";

pub(crate) const AFTER_HELP: &str = "\
Lines:
  @bob hello      send `hello` to bob; the answer says whether bob has it (delivered), finds it at
                  the next login (stored), or why not (refused)
  /who bob        is bob online, or when was bob last seen
  /follow bob     tell me when bob comes and goes; /unfollow bob ends it
  /help, /quit

Without a terminal it reads lines from stdin and prints to stdout. At the end of the input it waits
until every send is answered and the inbox is read, then logs out.

Exit codes:
  0    logged out, every send answered
  1    cannot connect, not let in, replaced by another login, or sends without an answer
  2    wrong command line
";

/// What the command line says.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// User to log in as: 1 to 255 bytes without control characters.
    pub name: String,
    /// Address of the gateway: host and port.
    #[arg(long, value_name = "ADDR", env = "IRIS_SERVER", hide_env_values = true, default_value = DEFAULT_SERVER)]
    pub server: String,
    /// Show the bytes of this file at login (line ends at its end do not count).
    #[arg(long, value_name = "FILE")]
    pub credential_file: Option<PathBuf>,
}

/// Whether a client finds this address without being told.
pub(crate) fn is_default_server(address: &SocketAddr) -> bool {
    *address == SocketAddr::from((Ipv4Addr::LOCALHOST, 8085))
}

/// Chats until the user leaves or nothing more can be done.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    Name::parse(options.name.as_bytes()).map_err(|error| {
        Failure::Usage(format!(
            "{:?} cannot be a user's name: {error}",
            options.name
        ))
    })?;
    let credential = match &options.credential_file {
        None => Vec::new(),
        Some(file) => credential(file)?,
    };
    client::run(
        session::Session::new(options.name, credential),
        options.server,
    )
}

fn credential(file: &std::path::Path) -> Result<Vec<u8>, Failure> {
    let problem =
        |text: String| Failure::Usage(format!("--credential-file {}: {text}", file.display()));
    let bytes = std::fs::read(file).map_err(|error| problem(error.to_string()))?;
    let credential = bytes.trim_ascii_end();
    if credential.len() > iris_protocol::framed::CREDENTIAL_LEN_MAX {
        return Err(problem(format!(
            "{} bytes are more than a login can carry",
            credential.len()
        )));
    }
    Ok(credential.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_default() {
        assert!(is_default_server(
            &DEFAULT_SERVER.parse().expect("an address")
        ));
        let listen = crate::config::Config::embedded(1).listen;
        assert!(is_default_server(&listen[0]));
    }
}
