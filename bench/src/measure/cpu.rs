//! CPU that a process has used, user and system, all threads.
//!
//! Two sources: `/proc/PID/stat` counts the threads that have ended as well, in ticks of 10 ms;
//! `/proc/PID/task/*/schedstat` counts those that live, in nanoseconds. The second is what is
//! printed; the first is what is left where the kernel keeps no schedstat.

use std::fs;
use std::io;
use std::time::Duration;

/// CPU time of a process up to a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuTime(pub(crate) Duration);

impl CpuTime {
    /// Reads that of process `pid`.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        match schedstat(pid)? {
            Some(time) => Ok(Self(time)),
            None => stat(pid).map(Self),
        }
    }

    /// What was used since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Sum over the live threads; `None` if the kernel does not keep it.
fn schedstat(pid: u32) -> io::Result<Option<Duration>> {
    let mut ns = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while we look.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let first = text.split_ascii_whitespace().next();
        ns += first.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok((ns > 0).then(|| Duration::from_nanos(ns)))
}

/// `utime` and `stime`: fields 14 and 15 of proc_pid_stat(5).
fn stat(pid: u32) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text, rustix::param::clock_ticks_per_second())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/PID/stat"))
}

fn parse_stat(text: &str, ticks_per_second: u64) -> Option<Duration> {
    // The name, in parentheses, may hold blanks and parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs(user + system) / u32::try_from(ticks_per_second).ok()?)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn stat_is_read_behind_a_name_with_parentheses() {
        let text = "7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(parse_stat(text, 100), Some(Duration::from_secs(2)));
        assert_eq!(parse_stat("7 (a) S 1 2", 100), None);
    }

    #[test]
    fn burning_cpu_shows_in_both_sources() {
        let pid = std::process::id();
        let (before, ticks) = (CpuTime::of(pid).expect("ours"), stat(pid).expect("ours"));
        let began = Instant::now();
        while CpuTime::of(pid).expect("ours").since(before) < Duration::from_millis(60) {
            assert!(began.elapsed() < Duration::from_secs(10), "no CPU counted");
        }
        let ticked = stat(pid).expect("ours") - ticks;
        assert!(ticked >= Duration::from_millis(30), "{ticked:?}");
    }
}
