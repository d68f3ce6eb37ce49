//! The life of the real process: ready, probed, told to stop, gone; and what it tells systemd, logs
//! and probes meanwhile.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use iris_protocol::Outcome;
use rustix::process::Signal;

use crate::support::{Framed, Gateway, PATIENCE, get};

#[test]
fn it_says_what_to_do_next_answers_probes_and_drains() {
    let mut gateway = Gateway::start_small(&[], &[]);
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
    assert_eq!(gateway.ended().code(), Some(0), "{:#?}", gateway.seen());
}

#[test]
fn sighup_does_not_end_it_and_sigint_drains_it() {
    let mut gateway = Gateway::start_small(&[], &[]);
    gateway.logged("next, in a second terminal");
    gateway.signal(Signal::HUP);
    gateway.logged("SIGHUP is ignored");
    gateway.signal(Signal::INT);
    gateway.logged("SIGINT: draining");
    assert_eq!(gateway.ended().code(), Some(0), "{:#?}", gateway.seen());
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
        Gateway::start_small(arguments, &[("NOTIFY_SOCKET", &self.path)])
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
fn a_log_that_nobody_reads_ends_nothing() {
    let mut gateway = Gateway::serving(&[]);
    gateway.log_is_closed();
    for _ in 0..4 {
        gateway.signal(Signal::HUP);
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut client = Framed::login(gateway.address(), "ann");
    assert_eq!(client.sends("bob", b"hello"), Outcome::Stored);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
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
    let mut gateway = Gateway::start_small(&["--log", "json"], &[]);
    gateway.logged("next, in a second terminal");
    for line in gateway.seen() {
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
    assert_eq!(gateway.seen(), [""; 0]);
    assert_eq!(gateway.rest_of_log(), [""; 0]);
}
