//! The clock of a core: what time it is, what is due, how long it may sleep.
//!
//! Owner: the core's thread. Invariant: no time-out is acted upon before all was read that had arrived when it came
//! due, as far as that has an end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::driver::{Core, PUBLISH_EVERY};
use crate::shard::Now;

/// Longest sleep of a core.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How soon a core that would sleep looks again at a full lane: whoever empties it
/// does not rouse this one, whose connections may all wait for room there.
const LANE_AGAIN: Duration = Duration::from_millis(1);
/// How soon it looks again for memory that other cores let go of.
const INPUT_AGAIN: Duration = Duration::from_millis(10);
/// A turn that comes so long after a time-out was due is late. A busy core's turns take a millisecond.
const LATE_MS: u64 = 250;
/// How long a late core reads before it acts on time-outs whatever is left: what arrives goes on
/// arriving, and silence has to end some time.
const CATCH_UP_MS: u64 = 5_000;

impl Core {
    /// Reads the clocks, for what follows.
    pub(super) fn set_clock(&mut self) {
        self.now_ms = self.started.elapsed().as_millis() as u64;
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.shard.set_now(Now {
            core_ms: self.now_ms,
            unix_ms: unix.as_millis() as u64,
        });
    }

    /// A turn that comes much later than it was due (the process was stopped, or its cpu taken) finds
    /// that peers have been silent who were not: what they said waits in the rings.
    /// `due_ms` is when the next time-out is due.
    pub(super) fn note_lateness(&mut self, due_ms: Option<u64>) {
        let is_late = |due_ms| due_ms + LATE_MS <= self.now_ms;
        if self.late_until_ms.is_none() && due_ms.is_some_and(is_late) {
            self.shard.metrics.late_turns += 1;
            self.late_until_ms = Some(self.now_ms + CATCH_UP_MS);
        }
    }

    /// Acts on what is due; after a turn that was late, not before all that had arrived was read.
    /// Says whether there was anything.
    pub(super) fn act_on_timeouts(&mut self, due_ms: Option<u64>) -> bool {
        if let Some(until_ms) = self.late_until_ms {
            if !self.is_all_taken && self.now_ms < until_ms {
                return true;
            }
            self.late_until_ms = None;
        }
        let is_due = due_ms.is_some_and(|due_ms| due_ms <= self.now_ms);
        if is_due {
            self.shard.tick();
        }
        self.end_patience() || is_due
    }

    /// How long it may sleep.
    pub(super) fn sleep_max(&self) -> Duration {
        let tick_ms = self.shard.next_tick_ms().unwrap_or(u64::MAX);
        let patience_ms = [&self.lingering, &self.overdue]
            .into_iter()
            .filter_map(|waiting| waiting.next_due_ms())
            .min()
            .unwrap_or(u64::MAX);
        let sweep_ms = if self.shard.connections_len() > 0 {
            self.sweep.due_ms()
        } else {
            u64::MAX
        };
        let accept_ms = self.accepting.again_ms().unwrap_or(u64::MAX);
        let until_ms = tick_ms.min(patience_ms).min(sweep_ms).min(accept_ms);
        let idle_max = if self.shard.has_batches() || self.shard.is_telling() {
            LANE_AGAIN
        } else if self.shard.waits_for_input() {
            INPUT_AGAIN
        } else if self.unpublished {
            PUBLISH_EVERY
        } else {
            SLEEP_MAX
        };
        Duration::from_millis(until_ms.saturating_sub(self.now_ms).max(1)).min(idle_max)
    }
}
