//! What a figure was measured on, since a figure without that is none.

use std::fmt;
use std::fs;
use std::process::Command;

use serde::Serialize;

/// The machine, its kernel, and what was built.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    version: &'static str,
    processor: String,
    cpus: usize,
    memory_gib: u64,
    kernel: String,
    commit: String,
}

impl Machine {
    /// Looks at this machine, and at the git work tree of the current folder if it is one.
    pub(crate) fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let cpuinfo = read("/proc/cpuinfo");
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let memory_kib: u64 = memory
            .and_then(|text| text.split_ascii_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            processor: field(&cpuinfo, "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            // Not those of this thread, which may be pinned already.
            cpus: cpuinfo
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            memory_gib: (memory_kib + (1 << 19)) >> 20,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            commit: commit().unwrap_or_else(|| "unknown commit".to_owned()),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            processor,
            cpus,
            memory_gib,
            kernel,
            commit,
        } = self;
        write!(
            f,
            "{processor}, {cpus} cpus, {memory_gib} GiB, Linux {kernel}, iris-bench {version}, git {commit}"
        )
    }
}

/// The commit that is checked out; `-dirty` if files differ from it.
fn commit() -> Option<String> {
    let git = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output()
        .ok()?;
    let text = String::from_utf8(git.stdout).ok()?;
    git.status.success().then(|| text.trim().to_owned())
}
