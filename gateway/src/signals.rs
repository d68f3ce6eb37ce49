//! Shutdown: asked for by a signal or by code, noticed by whoever drains.
//!
//! Signals arrive on a thread of their own. The first SIGTERM or SIGINT asks for a drain; the second
//! ends the process at once with 128 + its number (143 or 130), without waiting for anything: what
//! was acknowledged is on disk by then, whatever else was under way. SIGHUP is logged and otherwise
//! ignored: the configuration is read at start only, so a change needs a restart.
//!
//! Invariant: a request is never lost, also when it comes before anyone listens.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

type Waker = Box<dyn Fn() + Send>;

/// A request to shut down, shared by all who make it or follow it.
#[derive(Clone, Default)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    requested: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
    condition: Condvar,
}

impl Shutdown {
    /// One that nobody has asked for.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Asks for a shutdown. Only the first time counts.
    pub fn request(&self) {
        // Under the lock, so that a waker is either in the list taken here or sees the request.
        let wakers = {
            let mut wakers = self
                .shared
                .wakers
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.shared.requested.store(true, Ordering::Release);
            self.shared.condition.notify_all();
            std::mem::take(&mut *wakers)
        };
        for waker in wakers {
            waker();
        }
    }

    /// Whether a shutdown was asked for.
    #[inline]
    pub fn is_requested(&self) -> bool {
        self.shared.requested.load(Ordering::Acquire)
    }

    /// Runs `waker` once, on the thread that makes the request, or here and now if it was made
    /// already. It must not block.
    pub fn on_request(&self, waker: impl Fn() + Send + 'static) {
        let mut wakers = self
            .shared
            .wakers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.is_requested() {
            drop(wakers);
            waker();
        } else {
            wakers.push(Box::new(waker));
        }
    }

    /// Waits for the request.
    pub fn wait(&self) {
        let wakers = self
            .shared
            .wakers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        drop(
            self.shared
                .condition
                .wait_while(wakers, |_| !self.is_requested()),
        );
    }

    /// Waits for the request, at most this long; says whether it was made.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let wakers = self
            .shared
            .wakers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        drop(
            self.shared
                .condition
                .wait_timeout_while(wakers, timeout, |_| !self.is_requested()),
        );
        self.is_requested()
    }
}

/// Starts the thread that turns signals into a [`Shutdown`].
///
/// # Errors
/// The signal handlers could not be installed or the thread not started.
pub fn listen(shutdown: Shutdown) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::Builder::new().name("iris-signals".to_owned()).spawn(move || {
        let mut stop_signals = 0u32;
        for signal in signals.forever() {
            if signal == SIGHUP {
                tracing::warn!("SIGHUP is ignored: the configuration is read at start; restart to change it");
                continue;
            }
            stop_signals += 1;
            if stop_signals > 1 {
                signal_hook::low_level::exit(128 + signal);
            }
            let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
            tracing::info!("{name}: draining; a second signal ends at once");
            shutdown.request();
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    fn counting(count: &Arc<AtomicU32>) -> impl Fn() + Send + 'static {
        let count = Arc::clone(count);
        move || {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn wakers_run_once_whether_early_or_late() {
        let shutdown = Shutdown::new();
        let count = Arc::new(AtomicU32::new(0));
        shutdown.on_request(counting(&count));
        assert!(!shutdown.is_requested() && !shutdown.wait_timeout(Duration::from_millis(1)));
        shutdown.clone().request();
        shutdown.request();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        shutdown.on_request(counting(&count));
        assert_eq!(count.load(Ordering::SeqCst), 2, "a late waker runs at once");
        assert!(shutdown.is_requested() && shutdown.wait_timeout(Duration::ZERO));
    }

    #[test]
    fn a_waiting_thread_wakes() {
        let shutdown = Shutdown::new();
        let waiter = thread::spawn({
            let shutdown = shutdown.clone();
            move || shutdown.wait()
        });
        shutdown.request();
        waiter.join().expect("no panic");
    }

    #[test]
    fn a_waker_may_look_at_the_shutdown_itself() {
        let shutdown = Shutdown::new();
        let inner = shutdown.clone();
        shutdown.on_request(move || inner.on_request(|| {}));
        shutdown.wait_timeout(Duration::ZERO);
    }
}
