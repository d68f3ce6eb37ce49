//! The executor of a core: the only file that knows glommio, so that another
//! could take its place.
//!
//! Owner: the core's thread, pinned to its cpu. The core's loop is the executor's
//! one task.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::Shared;
use super::driver::{Core, CoreOptions};

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
            if options.has_own_cpu
                && let Err(error) = iris_ring::ask_for_short_slices()
            {
                tracing::debug!(core = index, %error, "the core keeps the scheduler's own slices");
            }
            let core = Core::new(options).map_err(|error| error.to_string());
            match core {
                Ok(core) => {
                    let _ = ready.send((index, Ok(())));
                    run(core).await
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
async fn run(mut core: Core) -> io::Result<()> {
    loop {
        let busy = core.turn()?;
        if core.drained() {
            return Ok(());
        }
        if !busy {
            core.sleep()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_ends_in_any_way_is_waited_for_no_longer() {
        let shared = Arc::new(Shared::new(2, 1).expect("eventfds"));
        shared.core_is_drained(0);
        drop(EndOfCore(Arc::clone(&shared), 0));
        assert!(shared.is_draining(), "the others go on alone");
        assert!(!shared.all_drained(), "one core counts once");
        drop(EndOfCore(Arc::clone(&shared), 1));
        assert!(shared.all_drained());
    }
}
