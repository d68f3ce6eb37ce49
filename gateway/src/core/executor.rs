//! The executor of a core: the only file that knows glommio, so that another
//! could take its place.
//!
//! Owner: the core's thread, pinned to its cpu. The core's loop is the executor's
//! one task.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::Shared;
use super::driver::{Core, CoreOptions};
use super::precedence::{self, Precedence};

/// A core's thread.
pub struct CoreHandle(ExecutorJoinHandle<io::Result<()>>);

impl CoreHandle {
    /// Waits for the core to end.
    ///
    /// # Errors
    /// Why it ended, if not by a drain: its ring failed, or it panicked.
    pub fn join(self) -> io::Result<()> {
        self.0
            .join()
            .map_err(|error| io::Error::other(error.to_string()))
            .and_then(|ended| ended)
    }
}

/// Starts a core on a thread of its own, pinned to `cpu`; `ready` is told how the
/// start went.
///
/// # Errors
/// If the executor cannot be made.
pub fn start(
    cpu: usize,
    options: CoreOptions,
    ready: Sender<(usize, Result<(), String>)>,
) -> io::Result<CoreHandle> {
    let name = format!("iris-core-{}", options.index);
    LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .name(&name)
        // Files go through the store's threads: no memory for direct I/O is pinned.
        .io_memory(0)
        .spawn(move || async move {
            let index = options.index;
            let _guard = EndOfCore(Arc::clone(&options.shared), index);
            let (has_own_cpu, realtime) = (options.has_own_cpu, options.realtime);
            let core = Core::new(options).map_err(|error| error.to_string());
            match core {
                Ok(core) => {
                    // Cores that share a cpu do better with long turns, and with none before the other.
                    let precedence = if has_own_cpu {
                        Precedence::begin(index, realtime)
                    } else {
                        None
                    };
                    let _ = ready.send((index, Ok(())));
                    run(core, precedence).await
                }
                Err(error) => {
                    let _ = ready.send((index, Err(error.clone())));
                    Err(io::Error::other(error))
                }
            }
        })
        .map(CoreHandle)
        .map_err(|error| io::Error::other(error.to_string()))
}

/// However a core ends, be it that it never began, the others are told: they drain
/// rather than wait for it.
struct EndOfCore(Arc<Shared>, usize);

impl Drop for EndOfCore {
    fn drop(&mut self) {
        self.0.drain();
        self.0.core_is_drained(self.1);
    }
}

/// The loop of a core. It sleeps in its own ring, which every wake-up reaches, and
/// never in the executor: parked there under load, a core was seen to sleep on
/// with its lanes full and its timers due.
async fn run(mut core: Core, mut precedence: Option<Precedence>) -> io::Result<()> {
    core.tell_realtime(precedence.is_some());
    loop {
        let busy = core.turn()?;
        if let Some(precedence) = &mut precedence
            && precedence.look()
        {
            core.tell_realtime(precedence.is_realtime());
        }
        if core.drained() {
            return Ok(());
        }
        if busy {
            continue;
        }
        match &mut precedence {
            None => core.sleep(Duration::MAX)?,
            Some(precedence) => {
                // Without the priority it looks again soon: with less to do it is to have it.
                let at_most = if precedence.is_realtime() {
                    Duration::MAX
                } else {
                    precedence::LOOK_EVERY
                };
                let asleep = Instant::now();
                core.sleep(at_most)?;
                precedence.slept(asleep.elapsed());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_ends_in_any_way_is_waited_for_no_longer() {
        let none = crate::core::AddressLimits::NONE;
        let shared = Arc::new(Shared::new(2, 1, none, 1 << 30, 1 << 30).expect("eventfds"));
        shared.core_is_drained(0);
        drop(EndOfCore(Arc::clone(&shared), 0));
        assert!(shared.is_draining(), "the others go on alone");
        assert!(!shared.all_drained(), "one core counts once");
        drop(EndOfCore(Arc::clone(&shared), 1));
        assert!(shared.all_drained());
    }
}
