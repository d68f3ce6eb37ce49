//! Which cpus the threads run on that are no cores: the store's above all.
//!
//! Owner: the main thread. Threads inherit the cpus of the one that starts them, and a core is
//! pinned to its own, so it is enough that the main thread leaves the cores' cpus before it
//! opens the store.

use rustix::thread::{CpuSet, sched_setaffinity};

/// The calling thread, and those it starts from now on, run on the `cpus` that no core is pinned
/// to. If there are none they share all of them, and stand back by their priority.
pub fn leave_cpus_of_cores(cpus: &[usize], cores: &[usize]) {
    let mut free = CpuSet::new();
    cpus.iter()
        .filter(|cpu| !cores.contains(cpu) && **cpu < CpuSet::MAX_CPU)
        .for_each(|cpu| free.set(*cpu));
    if free.count() == 0 {
        return;
    }
    if let Err(error) = sched_setaffinity(None, &free) {
        tracing::debug!(%error, "the store's threads run on the cores' cpus, too");
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::sched_getaffinity;

    use super::*;

    fn own() -> Vec<usize> {
        let set = sched_getaffinity(None).expect("a set");
        (0..CpuSet::MAX_CPU)
            .filter(|cpu| set.is_set(*cpu))
            .collect()
    }

    #[test]
    fn threads_take_the_cpus_that_are_left_and_all_if_none_is() {
        let ended = std::thread::spawn(|| {
            let cpus = own();
            leave_cpus_of_cores(&cpus, &cpus);
            assert_eq!(own(), cpus);
            leave_cpus_of_cores(&cpus, &cpus[..1]);
            let left = if cpus.len() > 1 { &cpus[1..] } else { &cpus };
            assert_eq!(own(), left);
            assert_eq!(std::thread::spawn(own).join().expect("no panic"), left);
        });
        ended.join().expect("no panic");
    }
}
