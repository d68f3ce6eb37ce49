//! What every scenario has in common: its server, its rounds, its report.
//!
//! Owner: the main thread. Invariant: a round is warmed up, then measured, then drained, and its
//! CPU is that of exactly the time that was measured.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::flags::{Common, Timing};
use super::progress::Progress;
use super::target::{Restart, Target};
use crate::BenchError;
use crate::engine::{Clients, Pace, Tally, Traffic, clock};
use crate::measure::{CallCount, Cost, Meter, Sample, Sampler, microseconds, pin, resident_bytes};
use crate::report::{Case, Report, Series};

/// How long system calls are counted.
const CALLS_SECONDS: f64 = 0.5;
/// Traffic runs so long between two looks at whether they are counted.
const CALLS_SLICE: Duration = Duration::from_millis(20);
/// A generator may be so late, in ns, before anyone is told: a sleeping thread wakes no sooner.
const LATE_NS_MAX: u64 = 500_000;
/// An open loop that makes fewer messages than this share of what is due did not hold its rate.
const RATE_SHARE_MIN: f64 = 0.99;
/// Traffic runs so long between two looks at the progress bar.
const SLICE: Duration = Duration::from_millis(250);

/// A scenario under way.
pub(crate) struct Run<'a> {
    pub(crate) common: &'a Common,
    pub(crate) target: Target,
    pub(crate) report: Report,
    pub(crate) progress: Progress,
    sampler: Option<Sampler>,
    samples: Vec<Sample>,
}

impl<'a> Run<'a> {
    /// Pins this thread, and has the server ready.
    ///
    /// # Errors
    /// See [`TargetArgs::ready`].
    pub(crate) fn begin(scenario: &'static str, common: &'a Common) -> Result<Self, BenchError> {
        let target = common.target.ready()?;
        Self::begin_with(scenario, common, target)
    }

    /// The same with a server that was started otherwise.
    ///
    /// # Errors
    /// No thread could be started.
    pub(crate) fn begin_with(
        scenario: &'static str,
        common: &'a Common,
        target: Target,
    ) -> Result<Self, BenchError> {
        pin(common.repeat.load_cpu);
        let mut report = Report::begin(scenario, clock::now_ns());
        report.setting("server", &target.description);
        report.setting("protocol", common.protocol);
        let sampler = target.pid.map(Sampler::begin).transpose()?;
        Ok(Self {
            common,
            target,
            report,
            progress: Progress::begin(scenario),
            sampler,
            samples: Vec::new(),
        })
    }

    /// Goes on with another server; the one before is ended.
    ///
    /// # Errors
    /// No thread could be started.
    pub(crate) fn go_on_with(&mut self, target: Target) -> Result<(), BenchError> {
        self.target = target;
        self.sample_again()
    }

    /// Goes on with the gateway that was started again.
    pub(crate) fn restarted(&mut self, restart: Restart) -> Result<(), BenchError> {
        self.target.restarted(restart)?;
        self.sample_again()
    }

    /// Samples the process that serves now.
    fn sample_again(&mut self) -> Result<(), BenchError> {
        if let Some(sampler) = self.sampler.take() {
            self.samples.extend(sampler.finish());
        }
        self.sampler = self.target.pid.map(Sampler::begin).transpose()?;
        Ok(())
    }

    /// Clients of the server, none connected yet.
    pub(crate) fn clients(&self, count: u32) -> Result<Clients, BenchError> {
        Clients::new(self.target.address, self.common.protocol, count)
    }

    /// Clients that are logged in.
    pub(crate) fn open_clients(&mut self, count: u32) -> Result<Clients, BenchError> {
        self.progress.phase("logging in", None);
        Clients::open(self.target.address, self.common.protocol, count)
    }

    /// An error unless the protocol answers sends and keeps what is sent to users who are away.
    pub(crate) fn needs_inbox(&self, scenario: &'static str) -> Result<(), BenchError> {
        let protocol = self.common.protocol;
        if protocol.answers() && protocol.keeps() {
            return Ok(());
        }
        Err(BenchError::Protocol {
            scenario,
            need: "answers sends and keeps messages for users who are away",
            protocol,
        })
    }

    /// Measures `traffic` at `pace` once, as one more round of `case`, and answers what was
    /// recorded.
    pub(crate) fn round(
        &mut self,
        case: &str,
        traffic: &mut Traffic,
        pace: Pace,
        timing: &Timing,
    ) -> Result<Tally, BenchError> {
        let (tally, cost) = self.measure(case, traffic, pace, timing)?;
        self.record(case, &tally, &cost, pace);
        Ok(tally)
    }

    /// Measures `traffic` at `pace` once, and adds it to nothing.
    pub(crate) fn measure(
        &mut self,
        what: &str,
        traffic: &mut Traffic,
        pace: Pace,
        timing: &Timing,
    ) -> Result<(Tally, Cost), BenchError> {
        traffic.start(pace);
        self.drive(what, traffic, timing.warm_up)?;
        traffic.begin();
        let meter = Meter::begin(self.target.pid)?;
        self.drive(what, traffic, timing.duration)?;
        traffic.end();
        let cost = meter.end()?;
        Ok((traffic.finish()?, cost))
    }

    /// Runs all rounds of one case, then counts system calls.
    pub(crate) fn rounds(
        &mut self,
        case: &str,
        traffic: &mut Traffic,
        pace: Pace,
        timing: &Timing,
    ) -> Result<(), BenchError> {
        for _ in 0..self.common.repeat.rounds {
            self.round(case, traffic, pace, timing)?;
        }
        self.count_calls(case, traffic, pace)
    }

    /// The server's resident memory now.
    pub(crate) fn resident_mib(&self) -> Option<f64> {
        let bytes = resident_bytes(self.target.pid?).ok()?;
        Some(bytes as f64 / f64::from(1 << 20))
    }

    /// Adds the ledger of `traffic` to the verdict.
    pub(crate) fn settle(&mut self, traffic: &Traffic) {
        let streams = traffic.streams();
        self.report
            .verdict
            .add(streams.sent(), streams.refusals(), streams.faults());
        if let Some(word) = traffic.last_word() {
            self.report
                .warn(format!("the server closed a connection as {word}"));
        }
    }

    /// Writes the report.
    ///
    /// # Errors
    /// Messages went wrong, or a file could not be written.
    pub(crate) fn finish(mut self) -> Result<(), BenchError> {
        self.progress.finish();
        if let Some(sampler) = self.sampler.take() {
            self.samples.extend(sampler.finish());
        }
        if !self.samples.is_empty() {
            let samples = &self.samples;
            let began_ns = self.report.began_ns;
            let series = |name: &str, bytes: fn(&Sample) -> u64| Series {
                name: name.to_owned(),
                unit: "MiB",
                points: samples
                    .iter()
                    .map(|sample| {
                        let mib = bytes(sample) as f64 / f64::from(1 << 20);
                        (seconds_between(began_ns, sample.at_ns), mib)
                    })
                    .collect(),
            };
            let server = series("server, resident", |sample| sample.resident_bytes);
            let kernel = series("kernel, whole machine", |sample| sample.kernel_bytes);
            self.report.series.extend([server, kernel]);
        }
        self.common.output.write(&self.report)
    }

    /// Runs `traffic` for `time`, showing that it goes on.
    fn drive(
        &mut self,
        what: &str,
        traffic: &mut Traffic,
        time: Duration,
    ) -> Result<(), BenchError> {
        self.progress.phase(what, None);
        let mut left = time;
        while !left.is_zero() {
            let slice = left.min(SLICE);
            traffic.run(slice)?;
            left -= slice;
            self.progress.tick();
        }
        Ok(())
    }

    /// Counts the server's system calls under the same load, in a window of its own.
    fn count_calls(
        &mut self,
        case: &str,
        traffic: &mut Traffic,
        pace: Pace,
    ) -> Result<(), BenchError> {
        let Some(pid) = self.target.pid else {
            return Ok(());
        };
        traffic.start(pace);
        self.drive("counting system calls", traffic, SLICE)?;
        let calls = CallCount::begin(pid, CALLS_SECONDS);
        let (before, began) = (traffic.streams().delivered(), Instant::now());
        let per_second = match calls {
            Some(mut calls) => {
                while !calls.is_done() {
                    traffic.run(CALLS_SLICE)?;
                }
                calls.finish().map(|count| count as f64 / CALLS_SECONDS)
            }
            None => None,
        };
        let delivered = traffic.streams().delivered() - before;
        let rate = delivered as f64 / began.elapsed().as_secs_f64();
        traffic.finish()?;
        let each = per_second.filter(|_| rate > 0.0).map(|calls| calls / rate);
        self.report
            .case(case)
            .figure("server, system calls", "each msg", each);
        Ok(())
    }

    /// Adds the figures of a round.
    pub(crate) fn record(&mut self, name: &str, tally: &Tally, cost: &Cost, pace: Pace) {
        let resident_mib = self.resident_mib();
        let case = self.report.case(name);
        let elapsed = tally.elapsed_ns as f64 / 1e9;
        let rate = tally.delivered as f64 / elapsed;
        case.figure("delivered", "msg/s", rate);
        latency_figures(case, &tally.latency_ns);
        if !tally.burst_ns.is_empty() {
            let us = |quantile| microseconds(tally.burst_ns.value_at_quantile(quantile));
            case.figure("of bursts, p50", "us", us(0.5))
                .figure("of bursts, p99", "us", us(0.99));
        }
        if !tally.answer_ns.is_empty() {
            let us = |quantile| microseconds(tally.answer_ns.value_at_quantile(quantile));
            case.figure("answered, p50", "us", us(0.5))
                .figure("answered, p99", "us", us(0.99));
        }
        case.figure(
            "server, CPU",
            "us/msg",
            cost.server_us_each(tally.delivered),
        )
        .figure("server, busy", "% of a cpu", cost.server_percent())
        .figure("server, resident", "MiB", resident_mib)
        .figure("generator, busy", "% of a cpu", cost.generator_percent())
        .figure(
            "generator, CPU",
            "us/msg",
            cost.generator_us_each(tally.delivered),
        );
        match pace {
            Pace::Rate(_) => {
                let late = microseconds(tally.late_ns.value_at_quantile(0.99));
                case.figure("generator late, p99", "us", late);
            }
            // Only a server that is driven to its limit has one.
            _ => {
                case.figure("engine headroom", "times", cost.headroom());
            }
        }
        case.latencies(&tally.latency_ns);
        case.intervals.extend(tally.intervals.iter().cloned());
        self.record_series(name, tally);
        self.warn_of_the_generator(tally, cost, pace);
    }

    /// Adds the throughput over time.
    pub(crate) fn record_series(&mut self, name: &str, tally: &Tally) {
        let began_ns = self.report.began_ns;
        let points = tally.intervals.iter().filter_map(|interval| {
            let length = seconds_between(interval.from_ns, interval.to_ns);
            let at = seconds_between(began_ns, interval.from_ns) + length / 2.0;
            (length > 0.01).then(|| (at, interval.delivered as f64 / length))
        });
        match self.report.series.iter_mut().find(|s| s.name == name) {
            Some(series) => series.points.extend(points),
            None => self.report.series.push(Series {
                name: name.to_owned(),
                unit: "msg/s",
                points: points.collect(),
            }),
        }
    }

    /// Says so if the figures may be those of the generator and not of the server.
    fn warn_of_the_generator(&mut self, tally: &Tally, cost: &Cost, pace: Pace) {
        if let Some(doubt) = cost.doubt() {
            self.report.warn(doubt);
        }
        let Pace::Rate(rate) = pace else { return };
        let due = rate * tally.elapsed_ns as f64 / 1e9;
        if (tally.due as f64) < due * RATE_SHARE_MIN {
            self.report.warn(format!(
                "the generator made {} of {due:.0} messages that were due: the server did not \
                 take them at {rate:.0} msg/s, or the generator cannot make them",
                tally.due
            ));
        }
        let late = tally.late_ns.value_at_quantile(0.99);
        let latency = tally.latency_ns.value_at_quantile(0.99);
        if late * 2 > latency && late > LATE_NS_MAX {
            self.report.warn(format!(
                "the generator was late by {:.0} us at its p99, a large part of the latency shown",
                microseconds(late)
            ));
        }
    }
}

/// The percentiles of a latency, which every scenario shows alike.
pub(crate) fn latency_figures(case: &mut Case, latency_ns: &Histogram<u64>) {
    if latency_ns.is_empty() {
        return;
    }
    for (name, quantile) in [
        ("latency, p50", 0.5),
        ("latency, p90", 0.9),
        ("latency, p99", 0.99),
        ("latency, p99.9", 0.999),
        ("latency, max", 1.0),
    ] {
        let us = microseconds(latency_ns.value_at_quantile(quantile));
        case.figure(name, "us", us);
    }
}

/// From one moment of the engine's clock to a later one.
pub(crate) fn seconds_between(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}
