//! System calls of a server, counted by `perf` where it is installed and allowed.
//!
//! Counting costs the server a little for every call, so it happens in a window of its own, never
//! while anything else is measured.

use std::process::{Child, Command, Stdio};

/// A count under way.
#[derive(Debug)]
pub(crate) struct CallCount {
    perf: Child,
}

impl CallCount {
    /// Counts the system calls of all threads of `pid` for `seconds`. `None` if there is no perf.
    pub(crate) fn begin(pid: u32, seconds: f64) -> Option<Self> {
        let perf = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p"])
            .args([&pid.to_string(), "--", "sleep", &seconds.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Some(Self { perf: perf.ok()? })
    }

    /// Whether it has ended.
    pub(crate) fn is_done(&mut self) -> bool {
        !matches!(self.perf.try_wait(), Ok(None))
    }

    /// The count; `None` if perf was not allowed to.
    pub(crate) fn finish(self) -> Option<u64> {
        let output = self.perf.wait_with_output().ok()?;
        parse(&String::from_utf8_lossy(&output.stderr))
    }
}

/// The first field of the event's line, see perf-stat(1) on `-x`.
fn parse(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.contains("raw_syscalls:sys_enter"))?;
    line.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_and_a_refusal_is_none() {
        let counted = "1234,,raw_syscalls:sys_enter,500,100.00,,\n";
        assert_eq!(parse(counted), Some(1234));
        let refused = "<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n";
        assert_eq!(parse(refused), None);
        assert_eq!(parse("Error:\nNo permission\n"), None);
    }
}
