//! Which cpus threads run on: the generator's, and those of the servers it starts.
//!
//! Invariant: a server may use every cpu that this process was given, whatever the generator was
//! pinned to since.

use std::sync::OnceLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cpus of this process before anything was pinned.
fn given() -> Option<&'static CpuSet> {
    static GIVEN: OnceLock<Option<CpuSet>> = OnceLock::new();
    GIVEN.get_or_init(|| sched_getaffinity(None).ok()).as_ref()
}

/// Pins this thread to `cpu`, or to the last of those it was given.
pub(crate) fn pin(cpu: Option<usize>) {
    let given = given();
    let last = || {
        let given = given?;
        (0..CpuSet::MAX_CPU).rev().find(|cpu| given.is_set(*cpu))
    };
    if let Some(id) = cpu.or_else(last) {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
}

/// Runs `start` on `cpu`, or on all cpus, whose choice a child inherits, and comes back.
pub(super) fn on_cpu<T>(cpu: Option<usize>, start: impl FnOnce() -> T) -> T {
    let given = given();
    let before = sched_getaffinity(None);
    match (cpu, given) {
        (Some(id), _) => {
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        (None, Some(given)) => {
            let _ = sched_setaffinity(None, given);
        }
        (None, None) => {}
    }
    let started = start();
    if let Ok(before) = before {
        let _ = sched_setaffinity(None, &before);
    }
    started
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_of_a_pinned_thread_has_all_cpus_again() {
        let before = sched_getaffinity(None).expect("ours");
        pin(None);
        let pinned = sched_getaffinity(None).expect("ours");
        assert_eq!(pinned.count(), 1);
        let child = on_cpu(None, || sched_getaffinity(None)).expect("ours");
        assert_eq!(child, before);
        assert_eq!(sched_getaffinity(None).expect("ours"), pinned);
    }
}
