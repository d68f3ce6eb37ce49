//! How the thread of a ring gets its cpu: soon after it wakes.
//!
//! A thread that sleeps in its ring and wakes for every message waits, where all cpus are busy,
//! until the one that runs has had its slice: one to three milliseconds by default. Since Linux
//! 6.12 a thread may ask for a slice of its own, and one with a shorter slice than the running
//! thread's goes first when it wakes, unless it is ahead of its fair share. With a real-time
//! priority it goes first always; fairness is then up to the thread itself.

use std::io;
use std::marker::PhantomData;

use rustix::process::getpriority_process;

/// The shortest that Linux grants.
const SLICE_NS: u64 = 100_000;
/// Above all threads without a real-time priority, and below all others that have one.
const REALTIME_PRIORITY: u32 = 1;

/// What the calling thread may ask of the scheduler, as long as nobody gave the thread a policy
/// that is not the usual one.
#[derive(Debug)]
pub struct Scheduling {
    // It speaks of the thread that made it.
    _not_send: PhantomData<*mut ()>,
}

impl Scheduling {
    /// Of the calling thread. `None`: somebody gave it a real-time or an idle policy, which is to
    /// be left as it is.
    ///
    /// # Errors
    /// A filter of system calls refuses it.
    pub fn of_this_thread() -> io::Result<Option<Self>> {
        let usual = attributes()?.sched_policy == libc::SCHED_OTHER as u32;
        Ok(usual.then_some(Self {
            _not_send: PhantomData,
        }))
    }

    /// The usual policy, in short slices, at the niceness the thread has. It gets no more cpu than
    /// with long ones. On Linux before 6.12 slices stay as they are.
    ///
    /// # Errors
    /// A filter of system calls refuses it.
    pub fn take_short_slices(&self) -> io::Result<()> {
        set(libc::sched_attr {
            sched_policy: libc::SCHED_OTHER as u32,
            // Once set, it is not taken back without a privilege: so it stays.
            sched_flags: attributes()?.sched_flags & RESET_ON_FORK,
            sched_nice: getpriority_process(None)?,
            sched_runtime: SLICE_NS,
            ..nothing()
        })
    }

    /// The lowest real-time priority. Threads that are started meanwhile do not inherit it.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_NICE` and with an `RLIMIT_RTPRIO` of 0.
    pub fn take_realtime(&self) -> io::Result<()> {
        set(libc::sched_attr {
            sched_policy: libc::SCHED_FIFO as u32,
            sched_flags: RESET_ON_FORK,
            sched_priority: REALTIME_PRIORITY,
            ..nothing()
        })
    }
}

const RESET_ON_FORK: u64 = libc::SCHED_FLAG_RESET_ON_FORK as u64;
const SIZE: u32 = size_of::<libc::sched_attr>() as u32;

fn nothing() -> libc::sched_attr {
    libc::sched_attr {
        size: SIZE,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    }
}

fn set(attributes: libc::sched_attr) -> io::Result<()> {
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
    let mut attributes = nothing();
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
        let scheduling = Scheduling::of_this_thread().expect("known").expect("usual");
        scheduling.take_short_slices().expect("granted");
        let after = attributes().expect("attributes");
        assert_eq!(after.sched_nice, before.sched_nice);
        assert_eq!(after.sched_policy, before.sched_policy);
        // Kernels that know no slices tell of none.
        assert!([0, SLICE_NS].contains(&after.sched_runtime));
    }

    #[test]
    fn a_realtime_priority_is_given_back_whole_and_not_inherited() {
        let scheduling = Scheduling::of_this_thread().expect("known").expect("usual");
        scheduling.take_short_slices().expect("granted");
        let before = attributes().expect("attributes");
        match scheduling.take_realtime() {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                println!("no real-time priority is allowed here: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        }
        let realtime = attributes().expect("attributes");
        assert_eq!(realtime.sched_policy, libc::SCHED_FIFO as u32);
        assert_eq!(realtime.sched_priority, REALTIME_PRIORITY);
        let other = Scheduling::of_this_thread().expect("known");
        assert!(other.is_none(), "{other:?}");
        let started = std::thread::spawn(|| attributes().map(|of| of.sched_policy));
        let inherited = started.join().expect("ended").expect("attributes");
        assert_eq!(inherited, libc::SCHED_OTHER as u32);

        scheduling.take_short_slices().expect("granted");
        let after = attributes().expect("attributes");
        assert_eq!(after.sched_policy, before.sched_policy);
        assert_eq!(after.sched_nice, before.sched_nice);
        assert_eq!(after.sched_runtime, before.sched_runtime);
    }
}
