//! The program as a command: run to its end, or started the same way each time.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::PATIENCE;

/// The program, without the variables of whoever runs the tests.
pub fn iris() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iris"));
    without_variables(&mut command);
    command
}

/// Runs a program to its end, which must come in time.
pub fn run(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let stdout = read_aside(child.stdout.take().expect("piped"));
    let stderr = read_aside(child.stderr.take().expect("piped"));
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        match child.try_wait().expect("a child") {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            ended => break ended,
        }
    };
    if ended.is_none() {
        // Before anything can fail: it must not stay behind.
        let _ = child.kill();
        let _ = child.wait();
    }
    let stderr = stderr.join().expect("read");
    let text = String::from_utf8_lossy(&stderr);
    Output {
        status: ended.unwrap_or_else(|| panic!("it did not end: {text}")),
        stdout: stdout.join().expect("read"),
        stderr,
    }
}

fn read_aside(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe");
        bytes
    })
}

fn without_variables(command: &mut Command) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("IRIS_")) {
        command.env_remove(name);
    }
    command.env_remove("NOTIFY_SOCKET");
}

/// Hardly any test needs a process for longer.
const LIFETIME: Duration = Duration::from_secs(120);

/// How to start a gateway, the same way each time.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    /// What a shell does before it becomes the gateway.
    before: Option<String>,
    /// The data folder is a tmpfs of this size that only the process sees.
    pub(super) tmpfs: Option<String>,
    /// It is ended when it has run for so long.
    pub(super) lifetime: Duration,
    folder: Arc<tempfile::TempDir>,
}

impl Plan {
    pub(super) fn new(
        arguments: &[&str],
        environment: &[(&str, &str)],
        before: Option<String>,
    ) -> Plan {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let data = folder.path().join("data");
        let data = data.to_str().expect("a path in UTF-8");
        let mut common = vec![
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--data",
            data,
        ];
        // All clients of a test come from one address.
        let of_address = "--address-connections-max=16000000";
        let bounds_addresses = |argument: &&str| argument.starts_with("--address-connections-max");
        if !arguments.iter().any(bounds_addresses) {
            common.push(of_address);
        }
        let owned = |text: &&str| (*text).to_owned();
        Plan {
            arguments: common.iter().chain(arguments).map(owned).collect(),
            environment: environment
                .iter()
                .map(|(name, value)| (owned(name), owned(value)))
                .collect(),
            before,
            tmpfs: None,
            lifetime: LIFETIME,
            folder,
        }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(super) fn command(&self) -> Command {
        let mut command = match (&self.before, &self.tmpfs) {
            (None, None) => Command::new(env!("CARGO_BIN_EXE_iris")),
            (_, Some(size)) => {
                let mut unshare = Command::new("unshare");
                let data = self.data();
                let script = format!(
                    "mount -t tmpfs -o size={size} none {} && exec \"$0\" \"$@\"",
                    data.display()
                );
                unshare.args(["-rm", "sh", "-c", &script, env!("CARGO_BIN_EXE_iris")]);
                unshare
            }
            (Some(before), None) => {
                let mut shell = Command::new("sh");
                let script = format!("{before}; exec \"$0\" \"$@\"");
                shell.args(["-c", &script, env!("CARGO_BIN_EXE_iris")]);
                shell
            }
        };
        without_variables(&mut command);
        command
            .arg("serve")
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}
