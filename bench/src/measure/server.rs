//! A server under measurement: a child process of ours, on a cpu of its own.
//!
//! Owner: the scenario. Invariant: the child is ended and reaped when this is dropped, by its own
//! pid; its words go to a file, and are shown only if it fails to serve.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::cpus::on_cpu;
use crate::{BenchError, interrupt};

/// How long a server may take until it can be connected to.
const START_MAX: Duration = Duration::from_secs(20);
/// How long it may take to end after it was asked to.
const STOP_MAX: Duration = Duration::from_secs(15);
/// Where servers of ours listen: above what services take, below the kernel's own choices.
const PORTS: Range<u16> = 10_000..32_000;
/// The file that its words go to.
const WORDS: &str = "output";
/// Lines of its words that are shown if it fails.
const WORDS_MAX: usize = 20;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    // Its words; goes away with it.
    folder: TempDir,
}

impl Server {
    /// Starts `command` on `cpu` and waits until `address` takes connections.
    pub(crate) fn start(
        command: &[String],
        cpu: Option<usize>,
        address: SocketAddr,
    ) -> Result<Self, BenchError> {
        let folder = tempfile::tempdir()?;
        let words = folder.path().join(WORDS);
        let (program, arguments) = command.split_first().ok_or(BenchError::NoCommand)?;
        let mut child = Command::new(program);
        child
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(&words)?)
            .stderr(File::options().append(true).open(&words)?);
        let child = on_cpu(cpu, move || child.spawn());
        let child = child.map_err(|source| BenchError::Spawn {
            program: program.clone(),
            source,
        })?;
        let mut server = Self { child, folder };
        server.await_listener(address, &words)?;
        Ok(server)
    }

    /// Waits until the gateway whose administration port is `admin` says that it is ready. It may
    /// take connections a moment before all its cores do.
    pub(crate) fn await_ready(&mut self, admin: SocketAddr) -> Result<(), BenchError> {
        let deadline = Instant::now() + START_MAX;
        while !is_ready(admin) {
            interrupt::check()?;
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(BenchError::NotServing {
                    status: ended,
                    words: last_lines(&self.folder.path().join(WORDS)),
                });
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn await_listener(&mut self, address: SocketAddr, words: &Path) -> Result<(), BenchError> {
        let deadline = Instant::now() + START_MAX;
        loop {
            interrupt::check()?;
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(BenchError::NotServing {
                    status: ended,
                    words: last_lines(words),
                });
            }
            // An address that is in use by another would answer in the child's place, so the
            // child is looked at once more after the connection.
            if TcpStream::connect(address).is_ok() && self.child.try_wait()?.is_none() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) -> std::io::Result<ExitStatus> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let (None, Some(pid)) = (self.child.try_wait()?, pid) {
            // Not reaped yet, so the pid is still the child's.
            kill_process(pid, Signal::TERM)?;
        }
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("iris-bench: the server could not be ended: {error}");
        }
    }
}

/// Whether `GET /readyz` is answered with 200.
fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect(admin)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        socket.take(1024).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().unwrap_or_default();
    answer.split_ascii_whitespace().nth(1) == Some("200")
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(WORDS_MAX)..].join("\n")
}

/// A port of loopback where nobody listens, never the same twice in a process. It lies below the
/// ports that the kernel gives to outgoing connections, so that none of these takes it before
/// the server does. Nothing listens at it meanwhile: a process being started would inherit the
/// listener for a moment, and a client could reach it there.
pub(crate) fn free_address() -> std::io::Result<SocketAddr> {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        let random = RandomState::new().hash_one(std::process::id());
        AtomicU16::new(random as u16)
    });
    let span = PORTS.end - PORTS.start;
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrInUse);
    for _ in 0..span {
        let port = PORTS.start + next.fetch_add(1, Ordering::Relaxed) % span;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // A server that asks for the same may bind while this one is being closed.
        socket.set_reuse_address(true)?;
        match socket.bind(&address.into()) {
            Ok(()) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_command_that_ends_at_once_is_reported_with_its_words() {
        let command = ["sh", "-c", "echo no port >&2; exit 3"].map(str::to_owned);
        let address = free_address().expect("a free port");
        let error = Server::start(&command, None, address).expect_err("it ended");
        let text = error.to_string();
        assert!(text.contains("no port") && text.contains('3'), "{text}");
    }

    #[test]
    fn a_server_is_gone_when_dropped() {
        let address = free_address().expect("a free port");
        // Ours: it answers whether or not the child does.
        let _listener = TcpListener::bind(address).expect("still free");
        let command = ["sleep", "60"].map(str::to_owned);
        let server = Server::start(&command, None, address).expect("a running child");
        let proc = format!("/proc/{}", server.pid());
        assert!(Path::new(&proc).exists());
        drop(server);
        assert!(!Path::new(&proc).exists());
    }
}
