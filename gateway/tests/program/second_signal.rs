//! A second signal ends the process at once, although the drain does not end.
//!
//! The process is this test program itself, run again with only the test that plays a gateway whose
//! drain hangs.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use iris_gateway::signals::{self, Shutdown};
use rustix::process::{Pid, Signal, kill_process};

const PLAY: &str = "IRIS_TEST_PLAY_A_DRAIN_THAT_HANGS";

/// Not a test by itself: does nothing unless it is run by the tests below.
#[test]
fn a_drain_that_hangs() {
    if std::env::var_os(PLAY).is_none() {
        return;
    }
    let shutdown = Shutdown::new();
    signals::listen(shutdown.clone()).expect("signals are handled");
    println!("\nready");
    assert!(
        shutdown.wait_timeout(Duration::from_secs(30)),
        "no signal asked for a shutdown"
    );
    println!("\ndraining");
    std::thread::sleep(Duration::from_secs(60));
}

fn play() -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "second_signal::a_drain_that_hangs",
            "--nocapture",
        ])
        .env(PLAY, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    (child, stdout)
}

fn wait_for(stdout: &mut BufReader<ChildStdout>, word: &str) {
    let found = stdout
        .lines()
        .map_while(Result::ok)
        .any(|line| line == word);
    assert!(found, "it ended before it said {word:?}");
}

fn code_after(first: Signal, second: Signal) -> Option<i32> {
    let (mut child, mut stdout) = play();
    let pid = Pid::from_raw(child.id().try_into().expect("a pid")).expect("not 0");
    wait_for(&mut stdout, "ready");
    kill_process(pid, Signal::HUP).expect("it runs");
    kill_process(pid, first).expect("SIGHUP did not end it");
    wait_for(&mut stdout, "draining");
    let begun = Instant::now();
    kill_process(pid, second).expect("it drains");
    let code = child.wait().expect("a child").code();
    assert!(begun.elapsed() < Duration::from_secs(30), "not at once");
    code
}

#[test]
fn a_second_sigterm_ends_with_143() {
    assert_eq!(code_after(Signal::TERM, Signal::TERM), Some(143));
    assert_eq!(code_after(Signal::INT, Signal::TERM), Some(143));
}

#[test]
fn a_second_sigint_ends_with_130() {
    assert_eq!(code_after(Signal::INT, Signal::INT), Some(130));
    assert_eq!(code_after(Signal::TERM, Signal::INT), Some(130));
}
