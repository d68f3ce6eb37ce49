//! What a stretch of time cost: the server's CPU, and the generator's own.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use super::cpu::CpuTime;

/// A generator that uses more of its cpu than this, in percent, may be what is measured.
const BUSY_PERCENT_MAX: f64 = 95.0;

/// Readings at the begin of a stretch.
#[derive(Debug)]
pub(crate) struct Meter {
    pid: Option<u32>,
    began: Instant,
    server: Option<CpuTime>,
    generator: Option<Duration>,
}

/// What the stretch cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// How long it was.
    pub(crate) elapsed: Duration,
    /// CPU of the server, all threads, user and system; `None` without a process to look at.
    pub(crate) server: Option<Duration>,
    /// CPU of this thread.
    pub(crate) generator: Option<Duration>,
}

impl Meter {
    /// Begins.
    pub(crate) fn begin(pid: Option<u32>) -> io::Result<Self> {
        Ok(Self {
            pid,
            server: pid.map(CpuTime::of).transpose()?,
            generator: own_cpu(),
            began: Instant::now(),
        })
    }

    /// Ends.
    pub(crate) fn end(&self) -> io::Result<Cost> {
        let elapsed = self.began.elapsed();
        let server = self.pid.map(CpuTime::of).transpose()?;
        Ok(Cost {
            elapsed,
            server: server
                .zip(self.server)
                .map(|(after, before)| after.since(before)),
            generator: own_cpu()
                .zip(self.generator)
                .map(|(after, before)| after.saturating_sub(before)),
        })
    }
}

impl Cost {
    /// The server's CPU for each of `count` things, in microseconds.
    pub(crate) fn server_us_each(&self, count: u64) -> Option<f64> {
        let us = self.server?.as_secs_f64() * 1e6;
        (count > 0).then(|| us / count as f64)
    }

    /// The generator's CPU for each of `count` things, in microseconds.
    pub(crate) fn generator_us_each(&self, count: u64) -> Option<f64> {
        let us = self.generator?.as_secs_f64() * 1e6;
        (count > 0).then(|| us / count as f64)
    }

    /// How many servers like this one could be driven by one generator: the server's CPU for a
    /// message over the generator's.
    pub(crate) fn headroom(&self) -> Option<f64> {
        let generator = self.generator?.as_secs_f64();
        (generator > 0.0).then_some(self.server?.as_secs_f64() / generator)
    }

    /// The share of one cpu that the server used, in percent.
    pub(crate) fn server_percent(&self) -> Option<f64> {
        Some(percent(self.server?, self.elapsed))
    }

    /// The share of its cpu that the generator used, in percent.
    pub(crate) fn generator_percent(&self) -> Option<f64> {
        Some(percent(self.generator?, self.elapsed))
    }

    /// What to say if the figures may be those of the generator and not of the server.
    pub(crate) fn doubt(&self) -> Option<String> {
        let busy = self.generator_percent().unwrap_or(0.0);
        let server = self.server_percent().unwrap_or(0.0);
        (busy > BUSY_PERCENT_MAX && server < BUSY_PERCENT_MAX).then(|| {
            format!(
                "the load generator used {busy:.0} % of its cpu and the server {server:.0} %: \
                 the generator may be what was measured"
            )
        })
    }
}

fn percent(cpu: Duration, elapsed: Duration) -> f64 {
    100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64().max(1e-9)
}

/// CPU of the calling thread.
fn own_cpu() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let ns = text.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_spins_is_charged_for_it() {
        let meter = Meter::begin(Some(std::process::id())).expect("ours");
        let enough = Duration::from_millis(20);
        let cost = loop {
            let cost = meter.end().expect("ours");
            let server = cost.server.expect("kept");
            if server > enough && cost.generator.expect("kept") > enough {
                break cost;
            }
            // Others may want the cpu at the same time.
            assert!(cost.elapsed < Duration::from_secs(10), "{cost:?}");
        };
        assert!(cost.server_us_each(1000).expect("kept") > 20.0, "{cost:?}");
        assert!(cost.generator_percent().expect("kept") > 0.0, "{cost:?}");
    }
}
