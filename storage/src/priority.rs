//! How the store's threads stand back for the cores: whoever is online must not wait because somebody else's messages
//! are being stored.
//!
//! Used by each thread of the store as it starts, and by whoever opens a database. On Linux a priority is a thread's
//! own. Where the cpus are not all busy it changes nothing; where they are, the store takes what is left, and its
//! queues tell the senders. On two busy cpus the 99th percentile of online messages beside a flood to absent users
//! came down from 8.5 to 4.4 ms with it, and as many messages were stored.

use std::fs;

use rustix::process::{Pid, getpriority_process, setpriority_process};
use tracing::debug;

/// Committers and readers, for each of whose answers somebody waits, and what keeps their syncs short.
const NICE: i32 = 5;
/// Who writes and merges tables, the upkeep and the burial: nobody waits for them until they are
/// far behind, and then the committer does.
const WORKER_NICE: i32 = 15;
/// What fjall calls its workers. It has no way to set them up.
const WORKER_NAME: &str = "fjall:worker";

/// The calling thread stands back.
pub(crate) fn stand_back() {
    set(None, NICE);
}

/// The calling thread stands back as the databases' workers do.
pub(crate) fn stand_far_back() {
    set(None, WORKER_NICE);
}

/// The workers of the databases that are open stand back.
pub(crate) fn workers_stand_back() {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return;
    };
    for thread in threads.filter_map(Result::ok) {
        let name = fs::read_to_string(thread.path().join("comm"));
        let id = thread.file_name().to_str().and_then(|id| id.parse().ok());
        if name.is_ok_and(|name| name.trim_end() == WORKER_NAME) {
            set(id.and_then(Pid::from_raw), WORKER_NICE);
        }
    }
}

fn set(thread: Option<Pid>, nice: i32) {
    // Whoever started the process with less than this wants it so.
    if getpriority_process(thread).is_ok_and(|now| now >= nice) {
        return;
    }
    // Without it all works, only less evenly.
    if let Err(error) = setpriority_process(thread, nice) {
        debug!(%error, nice, "a thread of the store keeps its priority");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::Builder;

    use super::*;

    #[test]
    fn each_thread_has_a_priority_of_its_own() {
        let before = getpriority_process(None).expect("a priority");
        let (told, priorities) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let worker = Builder::new().name(WORKER_NAME.to_string()).spawn({
            let told = told.clone();
            move || {
                told.send(0).expect("heard");
                // Held until it was looked at.
                let _ended = ended.recv();
                told.send(getpriority_process(None).expect("a priority"))
                    .expect("heard");
            }
        });
        assert_eq!(priorities.recv(), Ok(0));
        workers_stand_back();
        drop(end);
        assert_eq!(priorities.recv(), Ok(WORKER_NICE.max(before)));
        worker.expect("started").join().expect("no panic");
        let reader = std::thread::spawn(|| {
            stand_back();
            getpriority_process(None).expect("a priority")
        });
        assert_eq!(reader.join().expect("no panic"), NICE.max(before));
        assert_eq!(getpriority_process(None).expect("a priority"), before);
    }
}
