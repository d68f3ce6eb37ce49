//! Memory of a server over time, sampled beside the load.
//!
//! Owner: a thread of its own, which ends when this is dropped. It reads two small files a few
//! times a second: more would show in the latencies it stands beside.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::memory::{kernel_bytes, resident_bytes};
use crate::engine::clock;

/// Between two samples.
const PERIOD: Duration = Duration::from_millis(250);

/// One look at a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// When, in ns of the engine's clock.
    pub(crate) at_ns: u64,
    /// Its resident memory.
    pub(crate) resident_bytes: u64,
    /// The kernel's, of the whole machine.
    pub(crate) kernel_bytes: u64,
}

/// Samples until it is finished.
#[derive(Debug)]
pub(crate) struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Sampler {
    /// Begins to sample process `pid`.
    pub(crate) fn begin(pid: u32) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || sample(pid, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Ends, and answers what it saw.
    pub(crate) fn finish(self) -> Vec<Sample> {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

fn sample(pid: u32, stopped: &Receiver<()>) -> Vec<Sample> {
    let mut samples = Vec::new();
    loop {
        // A server that has ended has no more of it.
        if let (Ok(resident_bytes), Ok(kernel_bytes)) = (resident_bytes(pid), kernel_bytes()) {
            samples.push(Sample {
                at_ns: clock::now_ns(),
                resident_bytes,
                kernel_bytes,
            });
        }
        if stopped.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
            return samples;
        }
    }
}
