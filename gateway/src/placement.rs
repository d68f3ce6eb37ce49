//! Which cpus the threads run on that are no cores: the store's above all.
//!
//! Owner: the main thread. Threads inherit the cpus of the one that starts them, and a core is
//! pinned to its own, so it is enough that all threads there are, main and the allocator's among
//! them, leave the cores' cpus before the store is opened.

use std::fs;

use rustix::thread::{CpuSet, Pid, sched_setaffinity};

/// All threads there are, and those they start from now on, run on the `cpus` that no core is pinned
/// to. If there are none they share all of them, and stand back by their priority.
pub fn leave_cpus_of_cores(cpus: &[usize], cores: &[usize]) {
    let mut free = CpuSet::new();
    cpus.iter()
        .filter(|cpu| !cores.contains(cpu) && **cpu < CpuSet::MAX_CPU)
        .for_each(|cpu| free.set(*cpu));
    if free.count() == 0 {
        return;
    }
    // A thread that is listed may start another before it is moved: the allocator starts its own
    // whenever a new arena is used. So it goes on until none is listed that has not been moved.
    let mut moved = Vec::new();
    loop {
        let listed = moved.len();
        for thread in threads() {
            if moved.contains(&thread) {
                continue;
            }
            moved.push(thread);
            if let Err(error) = sched_setaffinity(Some(thread), &free) {
                tracing::debug!(%error, "a thread runs on the cores' cpus, too");
            }
        }
        if moved.len() == listed {
            return;
        }
    }
}

/// The process's threads.
fn threads() -> Vec<Pid> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    let ids = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
    ids.filter_map(Pid::from_raw).collect()
}
