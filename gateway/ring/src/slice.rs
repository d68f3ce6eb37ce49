//! Short slices of cpu for the thread of a ring.
//!
//! A thread that sleeps in its ring and wakes for every message waits, where all cpus are busy,
//! until the one that runs has had its slice: one to three milliseconds by default. Since Linux
//! 6.12 a thread may ask for a slice of its own, and one with a shorter slice than the running
//! thread's goes first when it wakes. Neither of them gets more cpu than before.

use std::io;

/// The shortest that Linux grants.
const SLICE_NS: u64 = 100_000;

/// Has the calling thread be given the cpu in short slices, and soon after it wakes. A thread
/// that somebody gave a real-time or an idle policy is left as it is; on Linux before 6.12
/// nothing changes.
///
/// # Errors
/// The kernel, or a filter of system calls, refuses it: all works without.
pub fn ask_for_short_slices() -> io::Result<()> {
    let mut attributes = attributes()?;
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.sched_runtime = SLICE_NS;
    // SAFETY: the kernel reads one `sched_attr` of the size that stands in it, which lives until
    // the call returns, and keeps no reference. Thread 0 is the calling one.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// How the calling thread is scheduled.
fn attributes() -> io::Result<libc::sched_attr> {
    const SIZE: u32 = size_of::<libc::sched_attr>() as u32;
    let mut attributes = libc::sched_attr {
        size: SIZE,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes no more than `SIZE` bytes to a `sched_attr` of that size, which
    // lives until the call returns; any bytes are a valid one.
    let done = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
    if done == 0 {
        Ok(attributes)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_all_but_its_slice() {
        let before = attributes().expect("attributes");
        ask_for_short_slices().expect("granted");
        let after = attributes().expect("attributes");
        assert_eq!(after.sched_nice, before.sched_nice);
        assert_eq!(after.sched_policy, before.sched_policy);
        // Kernels that know no slices tell of none.
        assert!([0, SLICE_NS].contains(&after.sched_runtime));
    }
}
