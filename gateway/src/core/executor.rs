//! The executor of a core: the only file that knows glommio, so that another
//! could take its place.
//!
//! Owner: the core's thread, pinned to its cpu. The core's loop is one task; the
//! executor is asked to sleep when the loop has nothing to do, and looked after
//! whenever it wants the thread for itself.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_lite::future;
use glommio::timer::sleep;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use iris_ring::Bell;

use super::Shared;
use super::driver::{Core, CoreOptions};

/// How long a core waits inside its ring before it parks the executor, which
/// costs tens of microseconds: long enough that traffic of a thousand messages a
/// second never parks, short enough that an idle core is idle.
const WAIT_IN_RING: Duration = Duration::from_micros(500);
/// How often the executor may take the thread from a busy core's loop.
const PREEMPT_EVERY: Duration = Duration::from_millis(10);

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
        .preempt_timer(PREEMPT_EVERY)
        .spawn(move || async move {
            let index = options.index;
            let _guard = EndOfCore(Arc::clone(&options.shared), index);
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

/// What the bell's task tells the loop.
///
/// The wait for the bell goes on through all sleeps, because one that is given up
/// could still take a ring that nobody would hear; and it is polled by a task of
/// its own, only when it is over, because glommio keeps a waker for every poll of
/// a pending read, and a task that owns 32,767 of them panics.
#[derive(Default)]
struct Rung {
    rang: Cell<bool>,
    waiter: Cell<Option<Waker>>,
}

impl Rung {
    /// Passes every ring of the bell on.
    async fn listen(self: Rc<Self>, bell: Bell) {
        loop {
            if let Err(error) = bell.wait().await {
                tracing::error!(%error, "a core cannot be roused any more, it wakes by its timers");
                return;
            }
            self.rang.set(true);
            if let Some(waiter) = self.waiter.take() {
                waiter.wake();
            }
        }
    }

    /// Waits until the bell has rung since the last time.
    async fn wait(&self) {
        future::poll_fn(|context| {
            if self.rang.replace(false) {
                return Poll::Ready(());
            }
            self.waiter.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

async fn run(mut core: Core) -> io::Result<()> {
    let rung = Rc::new(Rung::default());
    let bell = Bell::new(core.notify_fd()?);
    // Ends with this function: a task that is dropped is cancelled.
    let _listener = glommio::spawn_local(Rc::clone(&rung).listen(bell));
    loop {
        let busy = core.turn()?;
        if core.drained() {
            return Ok(());
        }
        if busy {
            glommio::yield_if_needed().await;
            continue;
        }
        if core.has_one_ring() {
            core.wait_in_ring(WAIT_IN_RING.min(core.sleep_max()))?;
            if core.turn()? {
                continue;
            }
        }
        if core.doze()? {
            future::or(rung.wait(), async {
                sleep(core.sleep_max()).await;
            })
            .await;
            core.rise();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn a_core_may_sleep_and_wake_by_its_timers_for_ever() {
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(0)
            .make()
            .expect("an executor");
        executor.run(async {
            let bell = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
            let ringer = bell.try_clone().expect("another descriptor");
            let rung = Rc::new(Rung::default());
            let _listener = glommio::spawn_local(Rc::clone(&rung).listen(Bell::new(bell)));
            // More than a task of glommio may own wakers.
            for _ in 0..40_000 {
                future::or(rung.wait(), glommio::executor().yield_now()).await;
            }
            rustix::io::write(&ringer, &1u64.to_ne_bytes()).expect("a ring");
            rung.wait().await;
        });
    }

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
