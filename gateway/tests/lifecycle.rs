//! The life of the real process: ready, probed, told to stop, gone; and what it tells systemd, logs
//! and probes meanwhile.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running gateway; killed when it is dropped.
struct Gateway {
    child: Child,
    stderr: Receiver<String>,
    seen: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Gateway {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Gateway {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_iris"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("IRIS_")) {
            command.env_remove(name);
        }
        let mut child = command
            .args(["serve", "--cores", "1", "--max-connections", "64"])
            .args([
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--data",
            ])
            .arg(folder.path().join("data"))
            .args(arguments)
            .env_remove("NOTIFY_SOCKET")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("iris starts");
        let (sender, stderr) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Gateway {
            child,
            stderr,
            seen: Vec::new(),
            _folder: folder,
        }
    }

    /// Waits for a log line that holds `part`.
    fn logged(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self
                .stderr
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(_) => panic!("no line with {part:?} in {:#?}", self.seen),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a pid")).expect("not 0");
        kill_process(pid, signal).expect("the process is there");
    }

    fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end: {:#?}",
                self.seen
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status code and body of a GET.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: iris\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status");
    (
        status,
        answer.split_once("\r\n\r\n").expect("a body").1.to_owned(),
    )
}

#[test]
fn it_says_what_to_do_next_answers_probes_and_drains() {
    let mut gateway = Gateway::start(&[], &[]);
    let admin = gateway.logged("administration on");
    let admin = admin
        .split("http://")
        .nth(1)
        .and_then(|rest| rest.split(": ").next())
        .expect("an address");
    let next = gateway.logged("next, in a second terminal: iris chat alice --server 127.0.0.1:");
    assert!(
        !next.contains('\u{1b}'),
        "colour although stderr is no terminal"
    );
    assert_eq!(get(admin, "/healthz"), (200, "alive\n".to_owned()));
    assert_eq!(get(admin, "/readyz"), (200, "ready\n".to_owned()));
    let (status, metrics) = get(admin, "/metrics");
    assert_eq!(status, 200);
    assert!(
        metrics.contains("\niris_ready 1\n") && metrics.contains("\niris_connections{core=\"0\"} ")
    );
    assert_eq!(get(admin, "/secret").0, 404);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0), "{:#?}", gateway.seen);
}

#[test]
fn sighup_does_not_end_it_and_sigint_drains_it() {
    let mut gateway = Gateway::start(&[], &[]);
    gateway.logged("next, in a second terminal");
    gateway.signal(Signal::HUP);
    gateway.logged("SIGHUP is ignored");
    gateway.signal(Signal::INT);
    gateway.logged("SIGINT: draining");
    assert_eq!(gateway.ended().code(), Some(0), "{:#?}", gateway.seen);
}

/// Plays systemd: a socket that is told of the gateway's state.
struct Systemd {
    socket: UnixDatagram,
    path: String,
    _folder: tempfile::TempDir,
}

impl Systemd {
    fn new() -> Systemd {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        let path = path.into_os_string().into_string().expect("UTF-8");
        Systemd {
            socket,
            path,
            _folder: folder,
        }
    }

    fn start(&self, arguments: &[&str]) -> Gateway {
        Gateway::start(arguments, &[("NOTIFY_SOCKET", &self.path)])
    }

    /// Waits until it is told `part`, and returns the whole message.
    fn told(&self, part: &str) -> String {
        loop {
            let mut message = [0; 1024];
            let len = self
                .socket
                .recv(&mut message)
                .unwrap_or_else(|error| panic!("{part}: {error}"));
            let message = String::from_utf8_lossy(&message[..len]).into_owned();
            if message.lines().any(|line| line == part) {
                return message;
            }
        }
    }
}

#[test]
fn systemd_is_told() {
    let systemd = Systemd::new();
    let mut gateway = systemd.start(&[]);
    let message = systemd.told("READY=1");
    assert!(
        message.contains("STATUS=serving on 127.0.0.1:"),
        "{message}"
    );
    gateway.signal(Signal::TERM);
    systemd.told("STOPPING=1");
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn json_logs_are_one_object_a_line() {
    let mut gateway = Gateway::start(&["--log", "json"], &[]);
    gateway.logged("next, in a second terminal");
    for line in &gateway.seen {
        assert!(
            line.starts_with("{\"timestamp\":\"") && line.ends_with('}'),
            "{line}"
        );
    }
}

#[test]
fn the_level_decides_what_is_logged() {
    let systemd = Systemd::new();
    let mut gateway = systemd.start(&["--log-level", "error"]);
    systemd.told("READY=1");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
    let lines: Vec<String> = gateway.stderr.iter().collect();
    assert_eq!(lines, [""; 0]);
}
