//! `iris chat` as a process: what is typed and what it prints.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use super::{PATIENCE, iris};

/// A running `iris chat`; killed when it is dropped.
pub struct Chat {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
}

impl Chat {
    /// Starts one as this user.
    pub fn start(user: &str, server: SocketAddr) -> Chat {
        let mut child = iris()
            .args(["chat", user, "--server", &server.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("iris starts");
        let (sender, stdout) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Chat {
            stdin: child.stdin.take(),
            child,
            stdout,
        }
    }

    /// Types a line.
    pub fn types(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().expect("open"), "{line}").expect("it reads");
    }

    /// The next line it prints.
    pub fn prints(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).expect("a line")
    }

    /// Ends its input.
    pub fn input_ends(&mut self) {
        self.stdin = None;
    }

    /// Exit code and the last line on stderr.
    pub fn ended(&mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut stderr = String::new();
        self.child
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut stderr)
            .expect("text");
        (
            status.code(),
            stderr.lines().last().unwrap_or_default().to_owned(),
        )
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
