//! The program under test, and the gateway that it starts.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};
use std::thread;

/// The program.
pub const BENCH: &str = env!("CARGO_BIN_EXE_iris-bench");

/// Runs the program.
pub fn bench(arguments: &[&str]) -> Output {
    Command::new(BENCH)
        .args(arguments)
        .output()
        .expect("the program")
}

/// Runs a scenario against a gateway of its own and expects it to be sound; answers what it
/// printed.
#[allow(dead_code, reason = "not every test file has gateways")]
pub fn sound(arguments: &[&str]) -> String {
    gateway();
    let output = bench(arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = text.lines().next().unwrap_or_default();
    let expected = format!("{}: sound: ", arguments[0]);
    assert!(
        output.status.success() && first.starts_with(&expected),
        "{output:?}"
    );
    text
}

/// The value that stands in the line of a figure, the median if there were several rounds.
#[allow(dead_code, reason = "not every test file reads figures")]
pub fn figure(text: &str, name: &str, unit: &str) -> f64 {
    let begin = format!("  {name} ");
    let line = text.lines().find(|line| line.starts_with(&begin));
    let line = line.unwrap_or_else(|| panic!("no {name:?} in {text}"));
    let rest = line[begin.len()..].trim_start();
    let rest = rest.strip_prefix(unit).unwrap_or_else(|| panic!("{line}"));
    let word = rest.split_ascii_whitespace().next().expect(line);
    word.replace(',', "")
        .parse()
        .unwrap_or_else(|_| panic!("no number in {line:?}"))
}

/// Sees to it that there is a gateway beside the program. `cargo test --workspace` has built it;
/// the tests of this crate alone have not.
pub fn gateway() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let program = Path::new(BENCH).with_file_name("iris");
        if program.is_file() {
            return;
        }
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--locked", "--package", "iris-gateway"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let built = build.status().expect("cargo");
        assert!(built.success() && program.is_file(), "no {program:?}");
    });
}

/// A server that lives as long as the test process: each connection has a thread, which runs
/// `serve_one` with what all of them share. Nothing that is written waits for an acknowledgement.
#[allow(dead_code, reason = "not every test file has a server of its own")]
pub fn serve<S: Default + Send + Sync + 'static>(
    serve_one: impl Fn(TcpStream, &S) + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    let shared = Arc::<S>::default();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            socket.set_nodelay(true).expect("an open socket");
            let (shared, serve_one) = (shared.clone(), serve_one.clone());
            thread::spawn(move || serve_one(socket, &shared));
        }
    });
    address
}
