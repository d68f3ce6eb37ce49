//! Asked to stop in the middle of a run, it leaves no server and no folder behind.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const BENCH: &str = env!("CARGO_BIN_EXE_iris-bench");
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn an_interrupted_run_ends_its_server_and_removes_its_folders() {
    let folder = tempfile::tempdir().expect("a folder");
    let pid_file = folder.path().join("pid");
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary).expect("a folder");
    // The server writes down its pid, so that we can ask after it.
    let server = format!(
        "echo $$ > {}; exec {BENCH} limit --listen {{address}}",
        pid_file.display()
    );
    let mut bench = Command::new(BENCH)
        .args(["cost", "--duration", "600", "--", "sh", "-c", &server])
        .env("TMPDIR", &temporary)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program");

    let deadline = Instant::now() + PATIENCE;
    let server = loop {
        let text = fs::read_to_string(&pid_file).unwrap_or_default();
        if let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) {
            break pid;
        }
        assert!(Instant::now() < deadline, "no server");
        thread::sleep(Duration::from_millis(10));
    };
    // Into the run itself.
    thread::sleep(Duration::from_millis(500));
    test_kill_process(server).expect("a server that runs");
    assert!(
        fs::read_dir(&temporary).expect("ours").next().is_some(),
        "its folders"
    );

    let pid = i32::try_from(bench.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a pid");
    kill_process(pid, Signal::INT).expect("a run that goes on");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = bench.try_wait().expect("our child") {
            break status;
        }
        if Instant::now() > deadline {
            bench.kill().expect("our child");
            kill_process(server, Signal::TERM).expect("its server");
            panic!("it did not stop");
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(1));
    assert!(
        test_kill_process(server).is_err(),
        "the server was left behind"
    );
    assert!(
        fs::read_dir(&temporary).expect("ours").next().is_none(),
        "folders were left behind"
    );
}
