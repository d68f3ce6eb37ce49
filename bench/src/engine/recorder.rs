//! What is recorded while a load runs: latency and throughput, by interval.
//!
//! Owner: the engine's thread. Invariant: a latency is in exactly one interval, that in which the
//! message came, and it counts only if the message was *due* within the time that is measured,
//! however late it came.

use hdrhistogram::Histogram;

/// Length of an interval.
const INTERVAL_NS: u64 = 100_000_000;
/// Latencies are told apart down to this.
const LATENCY_MIN_NS: u64 = 100;
/// Latencies beyond this are counted as this.
const LATENCY_MAX_NS: u64 = 120_000_000_000;

/// An empty histogram of nanoseconds, with three digits.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_MIN_NS, LATENCY_MAX_NS, 3).expect("bounds in order")
}

/// A tenth of a second, or a little more.
#[derive(Debug, Clone)]
pub struct Interval {
    /// Its begin and end, in ns of [`super::clock`].
    pub from_ns: u64,
    /// See `from_ns`.
    pub to_ns: u64,
    /// Messages that came in it.
    pub delivered: u64,
    /// From due to taken from the reader's ring, in ns.
    pub latency_ns: Histogram<u64>,
}

/// What was recorded of one round.
#[derive(Debug, Clone)]
pub struct Tally {
    /// The time that was measured, in ns.
    pub elapsed_ns: u64,
    /// Messages that were due in it.
    pub due: u64,
    /// Messages that came in it.
    pub delivered: u64,
    /// From due to taken from the reader's ring, in ns.
    pub latency_ns: Histogram<u64>,
    /// The same of messages that were written in bursts, which are not among those above.
    pub burst_ns: Histogram<u64>,
    /// From due to the answer to the sender, in ns; empty if the protocol has none.
    pub answer_ns: Histogram<u64>,
    /// How late the generator was: from due to written, in ns.
    pub late_ns: Histogram<u64>,
    /// The same over time.
    pub intervals: Vec<Interval>,
}

/// Records one round.
#[derive(Debug)]
pub struct Recorder {
    from_ns: u64,
    /// `u64::MAX` as long as it is measured.
    to_ns: u64,
    tally: Tally,
    current: Interval,
    /// Not in the histograms yet.
    taken: Alike,
    of_bursts: Alike,
    late: Alike,
}

/// One latency after another that is the same: what comes in a turn comes at one time, and much of
/// it was due at one time.
#[derive(Debug, Default)]
struct Alike {
    ns: u64,
    count: u64,
}

impl Alike {
    fn add(&mut self, ns: u64, histogram: &mut Histogram<u64>) {
        if ns != self.ns {
            self.fold(histogram);
            self.ns = ns;
        }
        self.count += 1;
    }

    fn fold(&mut self, histogram: &mut Histogram<u64>) {
        if self.count > 0 {
            histogram.saturating_record_n(self.ns, self.count);
            self.count = 0;
        }
    }
}

impl Recorder {
    /// Measures from now on.
    #[must_use]
    pub fn begin(now_ns: u64) -> Self {
        let tally = Tally {
            elapsed_ns: 0,
            due: 0,
            delivered: 0,
            latency_ns: histogram(),
            burst_ns: histogram(),
            answer_ns: histogram(),
            late_ns: histogram(),
            intervals: Vec::new(),
        };
        let current = Interval {
            from_ns: now_ns,
            to_ns: now_ns,
            delivered: 0,
            latency_ns: histogram(),
        };
        Self {
            from_ns: now_ns,
            to_ns: u64::MAX,
            tally,
            current,
            taken: Alike::default(),
            of_bursts: Alike::default(),
            late: Alike::default(),
        }
    }

    /// Measures no more; what was due before is still waited for.
    pub fn end(&mut self, now_ns: u64) {
        self.to_ns = now_ns;
        self.tally.elapsed_ns = now_ns.saturating_sub(self.from_ns);
    }

    /// A message was written.
    pub fn wrote(&mut self, due_ns: u64, now_ns: u64) {
        if self.measures(due_ns) {
            self.tally.due += 1;
            let late = now_ns.saturating_sub(due_ns);
            self.late.add(late, &mut self.tally.late_ns);
        }
    }

    /// A message came.
    pub fn took(&mut self, due_ns: u64, now_ns: u64) {
        self.count(now_ns);
        if self.measures(due_ns) {
            let latency = now_ns.saturating_sub(due_ns);
            self.taken.add(latency, &mut self.current.latency_ns);
        }
    }

    /// A message came that was written in a burst.
    pub fn took_of_burst(&mut self, due_ns: u64, now_ns: u64) {
        self.count(now_ns);
        if self.measures(due_ns) {
            let latency = now_ns.saturating_sub(due_ns);
            self.of_bursts.add(latency, &mut self.tally.burst_ns);
        }
    }

    fn count(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.current.from_ns) >= INTERVAL_NS {
            self.next_interval(now_ns);
        }
        if now_ns < self.to_ns {
            self.tally.delivered += 1;
            self.current.delivered += 1;
        }
    }

    /// A sender was answered.
    pub fn answered(&mut self, due_ns: u64, now_ns: u64) {
        if self.measures(due_ns) {
            let latency = now_ns.saturating_sub(due_ns);
            self.tally.answer_ns.saturating_record(latency);
        }
    }

    /// What was recorded.
    #[must_use]
    pub fn finish(mut self, now_ns: u64) -> Tally {
        self.late.fold(&mut self.tally.late_ns);
        self.of_bursts.fold(&mut self.tally.burst_ns);
        self.next_interval(now_ns);
        for interval in &self.tally.intervals {
            self.tally.latency_ns += &interval.latency_ns;
        }
        self.tally
    }

    fn measures(&self, due_ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(&due_ns)
    }

    fn next_interval(&mut self, now_ns: u64) {
        self.taken.fold(&mut self.current.latency_ns);
        let next = Interval {
            from_ns: now_ns,
            to_ns: now_ns,
            delivered: 0,
            latency_ns: histogram(),
        };
        let mut done = std::mem::replace(&mut self.current, next);
        done.to_ns = now_ns;
        if done.delivered > 0 || !done.latency_ns.is_empty() {
            self.tally.intervals.push(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_by_when_it_was_due_however_late_it_came() {
        let mut recorder = Recorder::begin(1_000);
        recorder.took(900, 1_100);
        recorder.wrote(1_500, 1_700);
        recorder.end(2_000);
        recorder.took(1_500, 500_001_500);
        recorder.took(2_000, 500_002_000);
        let tally = recorder.finish(600_000_000);
        assert_eq!((tally.due, tally.delivered), (1, 1));
        assert_eq!(tally.latency_ns.len(), 1);
        let late = tally.late_ns.max();
        assert!((200..=300).contains(&late), "{late}");
        let slowest = tally.latency_ns.max();
        assert!((499_000_000..502_000_000).contains(&slowest), "{slowest}");
        assert_eq!(tally.intervals.len(), 2);
    }

    #[test]
    fn what_came_of_bursts_is_counted_with_the_rest_and_its_latency_is_apart() {
        let mut recorder = Recorder::begin(0);
        recorder.took(10_000, 30_000);
        recorder.took_of_burst(10_000, 500_000);
        recorder.took_of_burst(10_000, 500_000);
        let tally = recorder.finish(600_000);
        assert_eq!(tally.delivered, 3);
        assert_eq!((tally.latency_ns.len(), tally.burst_ns.len()), (1, 2));
        let (most, least) = (tally.latency_ns.max(), tally.burst_ns.min());
        assert!(most < 21_000 && least > 480_000, "{most}, {least}");
    }
}
