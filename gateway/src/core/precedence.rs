//! How a core comes before all threads that are no cores, and when it does not.
//!
//! A core works for microseconds whenever somebody sends, and the store's threads compute for
//! milliseconds. The scheduler's fairness between them is not what users who are online want: it
//! lets whoever waited have a whole slice although the core has a message to pass on. So a core
//! takes a real-time priority, where it may, and has the cpu as soon as there is work.
//!
//! It keeps it only while it leaves the cpu to all others for a quarter of the time, and for half of it
//! on average. A core that needs more would stop the store and whatever else runs there, and it would
//! work in small pieces: where clients share its cpu, each message that one of them writes interrupts
//! that client, and costs a turn and a send of its own. Then it is a thread like others, with short
//! slices, until it needs less. (Beside a flood of messages to users who are away a core needs two
//! fifths of its cpu.)
//!
//! Owner: the core's thread. Invariant: that thread shares its cpu with no other core.

use std::time::{Duration, Instant};

use iris_ring::Scheduling;
use rustix::time::{ClockId, clock_gettime};

/// How often the share is looked at. So long, and no longer, a core that becomes busy has all of
/// its cpu.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A core that left less than this of its time to others, in percent, goes without the priority.
const LEFT_PERCENT_MIN: u64 = 25;
/// And so does one that used more than this of its cpu, on average.
const USED_PERCENT_MAX: u64 = 50;
/// One that used no more than this has it again.
const USED_AGAIN_PERCENT_MAX: u64 = 42;
/// What a look changes of the average: an eighth. So it is that of the last tenth of a second.
const LOOKS_OF_AVERAGE: u64 = 8;

/// The standing of the calling thread.
#[derive(Debug)]
pub(super) struct Precedence {
    scheduling: Scheduling,
    realtime: bool,
    window: Window,
    /// Thousandths of its cpu that it used, on average.
    used: u64,
}

impl Precedence {
    /// Takes short slices, and a real-time priority if it is `wanted`. `None` if nothing is to be
    /// managed: it is not wanted or not allowed, or somebody gave the thread a policy of its own.
    pub(super) fn begin(core: usize, wanted: bool) -> Option<Self> {
        let scheduling = match Scheduling::of_this_thread() {
            Ok(scheduling) => scheduling?,
            Err(error) => {
                tracing::debug!(core, %error, "the core keeps the scheduling it was given");
                return None;
            }
        };
        if let Err(error) = scheduling.take_short_slices() {
            tracing::debug!(core, %error, "the core keeps the scheduler's own slices");
        }
        if !wanted {
            return None;
        }
        if let Err(error) = scheduling.take_realtime() {
            tracing::info!(core, %error,
                "no real-time priority for the core: where cpus are short, users who are online wait \
                 longer (LimitRTPRIO=1 in a systemd unit grants it, `realtime = \"off\"` does without)");
            return None;
        }
        Some(Self {
            scheduling,
            realtime: true,
            window: Window::begin(),
            used: 0,
        })
    }

    /// To be called every turn: takes the priority, or gives it up. Says whether it did.
    pub(super) fn look(&mut self) -> bool {
        let time = self.window.began.elapsed();
        if time < LOOK_EVERY {
            return false;
        }
        let window = std::mem::replace(&mut self.window, Window::begin());
        let left = percent(window.slept, time);
        let used = percent(self.window.cpu.saturating_sub(window.cpu), time);
        self.used = (self.used * (LOOKS_OF_AVERAGE - 1) + used * 10) / LOOKS_OF_AVERAGE;
        let realtime = is_due(self.realtime, left, self.used / 10);
        if realtime == self.realtime {
            return false;
        }
        let done = if realtime {
            self.scheduling.take_realtime()
        } else {
            self.scheduling.take_short_slices()
        };
        // What is refused stays as it is, and is tried again.
        match done {
            Ok(()) => self.realtime = realtime,
            Err(error) => tracing::debug!(%error, realtime, "the priority stays as it is"),
        }
        self.realtime == realtime
    }

    /// The thread has slept for so long.
    pub(super) fn slept(&mut self, time: Duration) {
        self.window.slept += time;
    }

    /// Whether it has the priority now.
    pub(super) fn is_realtime(&self) -> bool {
        self.realtime
    }
}

/// Whether a core should have the priority that has left so much of its time, in percent, to others by
/// sleeping, and uses so much of its cpu.
///
/// With the priority nobody interrupts it, so what it did not sleep is what it kept from others, the
/// kernel's interrupts in its name among it, which not every kernel counts as its cpu. Without, it
/// is also awake while others have the cpu, so the average of what it uses decides. That it needs in
/// any case: some of what a core does for its sockets it does on its way to sleep.
fn is_due(has_it: bool, left: u64, used: u64) -> bool {
    let used_max = if has_it {
        USED_PERCENT_MAX
    } else {
        USED_AGAIN_PERCENT_MAX
    };
    left >= LEFT_PERCENT_MIN && used <= used_max
}

/// A stretch of time and what became of it.
#[derive(Debug)]
struct Window {
    began: Instant,
    slept: Duration,
    /// What the thread had used of its cpu, ever, when it began.
    cpu: Duration,
}

impl Window {
    fn begin() -> Self {
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        Self {
            began: Instant::now(),
            slept: Duration::ZERO,
            cpu: Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32),
        }
    }
}

fn percent(of: Duration, time: Duration) -> u64 {
    (100 * of.as_micros() / time.as_micros().max(1)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_gives_way_above_a_half_and_until_it_needs_less() {
        let mut has_it = true;
        let mut after = |left, used| {
            has_it = is_due(has_it, left, used);
            has_it
        };
        assert!(after(25, 50));
        assert!(!after(24, 40), "the rest went to interrupts in its name");
        assert!(!after(60, 43), "it would be above again soon");
        assert!(!after(0, 40), "others had the cpu that it wanted");
        assert!(after(60, 42));
        assert!(!after(65, 51), "it worked on its way to sleep");
    }

    #[test]
    fn a_thread_that_never_sleeps_gives_the_priority_up() {
        let Some(mut precedence) = Precedence::begin(0, true) else {
            println!("no real-time priority is allowed here");
            return;
        };
        assert!(precedence.is_realtime());
        let began = Instant::now();
        let is_soon = || began.elapsed() < Duration::from_secs(10);
        while precedence.is_realtime() && is_soon() {
            let changed = precedence.look();
            assert_eq!(changed, !precedence.is_realtime());
        }
        assert!(!precedence.is_realtime());
        while !precedence.is_realtime() && is_soon() {
            let asleep = Instant::now();
            std::thread::sleep(LOOK_EVERY);
            precedence.slept(asleep.elapsed());
            precedence.look();
        }
        assert!(precedence.is_realtime());
    }
}
