//! What a running gateway shows of itself to other threads: copies of the cores' counts, the phase
//! it is in, and what it is in trouble with.
//!
//! Shared by the cores (writers, about once a second), the admin threads and the main thread
//! (readers). A core never waits here: where a reader holds the lock it skips its copy and tries
//! again at its next one. No lock is held while anything is written to a socket.

use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{CoreMetrics, Page};

/// Where a gateway is in its life; it only moves forward.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Opening the store, setting up the cores.
    Starting,
    /// Taking connections.
    Serving {
        /// The addresses that are listened on, with their real ports.
        listen: Vec<SocketAddr>,
    },
    /// Shutting down: no new connections, finishing what was begun.
    Draining,
    /// The end.
    Stopped,
}

/// Something that adds its own families to the metrics page.
type Source = Box<dyn Fn(&mut Page) + Send + Sync>;

/// Says what a part is in trouble with, if it is.
type Check = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// What a running gateway shows of itself.
pub struct Published {
    started: Instant,
    cores: Vec<Mutex<CoreMetrics>>,
    phase: Mutex<Phase>,
    phase_changed: Condvar,
    checks: Mutex<Vec<(&'static str, Check)>>,
    sources: Mutex<Vec<Source>>,
}

impl Published {
    /// For a gateway of this many cores.
    pub fn new(cores: usize) -> Published {
        Published {
            started: Instant::now(),
            cores: (0..cores)
                .map(|_| Mutex::new(CoreMetrics::default()))
                .collect(),
            phase: Mutex::new(Phase::Starting),
            phase_changed: Condvar::new(),
            checks: Mutex::new(Vec::new()),
            sources: Mutex::new(Vec::new()),
        }
    }

    /// Copies a core's counts out. Never waits; a copy that finds a reader is skipped.
    pub fn publish(&self, core: usize, metrics: &CoreMetrics) {
        if let Some(Ok(mut slot)) = self.cores.get(core).map(Mutex::try_lock) {
            slot.clone_from(metrics);
        }
    }

    /// The last copy of every core's counts.
    pub fn cores(&self) -> Vec<CoreMetrics> {
        self.cores.iter().map(|core| held(core).clone()).collect()
    }

    /// Moves on to a later phase; an earlier one is ignored, so that a core that comes up late
    /// does not undo a shutdown.
    pub fn set_phase(&self, phase: Phase) {
        let mut current = held(&self.phase);
        if phase > *current {
            *current = phase;
            self.phase_changed.notify_all();
        }
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        held(&self.phase).clone()
    }

    /// Waits until the phase is no longer `seen`, and returns the new one.
    pub fn next_phase(&self, seen: &Phase) -> Phase {
        let phase = self
            .phase_changed
            .wait_while(held(&self.phase), |phase| phase == seen);
        phase.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a part (such as `store`) that says, whenever it is asked, what it is in trouble with.
    /// A gateway in trouble is not ready, although it goes on with what it can. It is asked on an
    /// admin thread for every probe, and must not wait for a core.
    pub fn add_check(
        &self,
        part: &'static str,
        check: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) {
        held(&self.checks).push((part, Box::new(check)));
    }

    /// Why the gateway should not be sent clients; `Ok` if it should.
    ///
    /// # Errors
    /// The reason.
    pub fn readiness(&self) -> Result<(), String> {
        match self.phase() {
            Phase::Starting => return Err("starting".to_owned()),
            Phase::Draining => return Err("draining".to_owned()),
            Phase::Stopped => return Err("stopped".to_owned()),
            Phase::Serving { .. } => {}
        }
        for (part, check) in held(&self.checks).iter() {
            if let Some(trouble) = check() {
                return Err(format!("{part}: {trouble}"));
            }
        }
        Ok(())
    }

    /// Adds a source of further families, such as the store's. It is called on an admin thread for
    /// every scrape, and must not wait for a core.
    pub fn add_source(&self, source: impl Fn(&mut Page) + Send + Sync + 'static) {
        held(&self.sources).push(Box::new(source));
    }

    /// Drops all sources and checks; none is being asked any more when this returns.
    pub fn forget_sources(&self) {
        held(&self.sources).clear();
        held(&self.checks).clear();
    }

    /// The metrics page.
    pub fn page(&self) -> String {
        let mut page = Page::new();
        page.family(
            "iris_build_info",
            "gauge",
            "Always 1; the label says what runs",
        );
        page.sample(
            "iris_build_info",
            concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""),
            1,
        );
        page.gauge(
            "iris_uptime_seconds",
            "Time since the start",
            self.started.elapsed().as_secs_f64(),
        );
        page.gauge(
            "iris_ready",
            "Whether /readyz says yes",
            u8::from(self.readiness().is_ok()),
        );
        process(&mut page);
        page.cores(&self.cores());
        for source in held(&self.sources).iter() {
            source(&mut page);
        }
        page.into_text()
    }
}

/// What every Prometheus client shows of its process, under the names that dashboards expect.
fn process(page: &mut Page) {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    page.counter(
        "process_cpu_seconds_total",
        "Cpu time of all threads, user and system",
        cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|rest| {
        rest.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    if let Some(kib) = kib {
        page.gauge(
            "process_resident_memory_bytes",
            "Resident memory, without the kernel's share",
            kib * 1024,
        );
    }
}

/// Counts and texts are whole between any two statements, so a thread that died with the lock held
/// left nothing half-done.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn serving() -> Phase {
        Phase::Serving {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8085))],
        }
    }

    #[test]
    fn ready_only_while_serving_without_trouble() {
        let published = Published::new(1);
        assert_eq!(published.readiness(), Err("starting".to_owned()));
        published.set_phase(serving());
        assert_eq!(published.readiness(), Ok(()));
        let full = Arc::new(AtomicBool::new(true));
        published.add_check("disk", || None);
        published.add_check("store", {
            let full = Arc::clone(&full);
            move || {
                full.load(Ordering::Relaxed)
                    .then(|| "the disk is full".to_owned())
            }
        });
        assert_eq!(
            published.readiness(),
            Err("store: the disk is full".to_owned())
        );
        full.store(false, Ordering::Relaxed);
        assert_eq!(published.readiness(), Ok(()));
        full.store(true, Ordering::Relaxed);
        published.forget_sources();
        assert_eq!(published.readiness(), Ok(()));
        published.set_phase(Phase::Draining);
        assert_eq!(published.readiness(), Err("draining".to_owned()));
        published.set_phase(serving());
        assert_eq!(published.phase(), Phase::Draining, "the phase went back");
    }

    #[test]
    fn a_held_lock_does_not_hold_up_the_core() {
        let published = Published::new(2);
        let reader = held(&published.cores[0]);
        published.publish(
            0,
            &CoreMetrics {
                connections: 1,
                ..CoreMetrics::default()
            },
        );
        drop(reader);
        assert_eq!(published.cores()[0].connections, 0, "this copy was skipped");
        published.publish(
            0,
            &CoreMetrics {
                connections: 2,
                ..CoreMetrics::default()
            },
        );
        published.publish(9, &CoreMetrics::default());
        assert_eq!(published.cores()[0].connections, 2);
        assert_eq!(published.cores()[1].connections, 0);
    }

    #[test]
    fn waiters_learn_of_the_next_phase() {
        let published = Arc::new(Published::new(1));
        let waiter = std::thread::spawn({
            let published = Arc::clone(&published);
            move || published.next_phase(&Phase::Starting)
        });
        published.set_phase(serving());
        assert_eq!(waiter.join().expect("no panic"), serving());
    }

    #[test]
    fn sources_add_to_the_page() {
        let published = Published::new(1);
        published.add_source(|page| page.counter("iris_commits_total", "Commits", 7));
        let page = published.page();
        assert!(
            page.contains("\niris_commits_total 7\n")
                && page.contains("\nprocess_cpu_seconds_total ")
        );
    }
}
