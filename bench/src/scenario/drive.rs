//! One measurement: clients are opened, warmed up, measured and drained against a server that is
//! there already. What every scenario has in common.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::run::Timing;
use crate::BenchError;
use crate::dialect::Protocol;
use crate::engine::{Clients, Faults, Pace, Tally, Topology, Traffic};
use crate::measure::{CpuTime, microseconds, row};

/// How many connections, and how many messages each keeps in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) topology: Topology,
    pub(crate) in_flight: u32,
}

/// The three loads a server is judged by: few turns with little in them, deep queues, many sockets.
pub(crate) const STANDARD: [Shape; 3] = [
    Shape::random(200, 1),
    Shape::random(1_000, 16),
    Shape::random(10_000, 1),
];

impl Shape {
    /// Everybody sends to random others.
    pub(crate) const fn random(connections: u32, in_flight: u32) -> Self {
        Self {
            topology: Topology::Mesh { users: connections },
            in_flight,
        }
    }

    /// As it is called in print.
    pub(crate) fn name(&self) -> String {
        format!("{} x {}", self.topology.users(), self.in_flight)
    }
}

/// What every message is, in bytes.
pub(crate) const MESSAGE_BYTES: u32 = 64;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) elapsed: Duration,
    pub(crate) tally: Tally,
    pub(crate) faults: Faults,
    /// CPU of the server meanwhile, if its pid was known.
    pub(crate) cpu: Option<Duration>,
}

/// Drives `server`; `pid` is the process whose CPU is counted.
pub(crate) fn drive(
    server: SocketAddr,
    protocol: Protocol,
    pid: Option<u32>,
    shape: Shape,
    timing: &Timing,
) -> Result<Measured, BenchError> {
    let clients = Clients::open(server, protocol, shape.topology.users())?;
    let mut load = Traffic::new(clients, shape.topology, MESSAGE_BYTES);
    load.start(Pace::Window(shape.in_flight));
    load.run(timing.warm_up)?;
    let cpu_before = pid.map(CpuTime::of).transpose()?;
    let began = Instant::now();
    load.begin();
    load.run(timing.duration)?;
    load.end();
    let elapsed = began.elapsed();
    let cpu_after = pid.map(CpuTime::of).transpose()?;
    let cpu = cpu_after
        .zip(cpu_before)
        .map(|(after, before)| after.since(before));
    let tally = load.finish()?;
    Ok(Measured {
        elapsed,
        faults: load.faults(),
        tally,
        cpu,
    })
}

impl Measured {
    /// Messages delivered in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.tally.delivered as f64 / self.elapsed.as_secs_f64()
    }

    /// The server's CPU for each delivered message, in microseconds.
    pub(crate) fn cpu_us(&self) -> Option<f64> {
        let cpu = self.cpu?.as_secs_f64() * 1e6;
        (self.tally.delivered > 0).then(|| cpu / self.tally.delivered as f64)
    }

    /// The share of one cpu that the server used.
    pub(crate) fn busy(&self) -> Option<f64> {
        Some(self.cpu?.as_secs_f64() / self.elapsed.as_secs_f64())
    }

    /// A percentile of latency, in microseconds.
    pub(crate) fn latency_us(&self, percentile: f64) -> f64 {
        microseconds(self.tally.latency_ns.value_at_percentile(percentile))
    }

    /// An error if a message went wrong.
    pub(crate) fn verdict(&self) -> Result<(), BenchError> {
        let Faults {
            lost,
            reordered,
            repeated,
            strays,
            ended,
        } = self.faults;
        if self.faults.is_none() {
            return Ok(());
        }
        Err(BenchError::Wrong(format!(
            "{lost} lost, {reordered} out of order, {repeated} repeated, {strays} strays, {ended} \
             connections ended"
        )))
    }

    /// The heading of [`Self::line`].
    pub(crate) fn heading() -> String {
        let cells = [
            "CPU us/msg",
            "busy",
            "msg/s",
            "p50 us",
            "p99 us",
            "p99.9 us",
        ];
        row("connections x in flight", cells.map(str::to_owned))
    }

    /// One line of figures.
    pub(crate) fn line(&self, name: &str) -> String {
        let dash = || "-".to_owned();
        row(
            name,
            [
                self.cpu_us().map_or_else(dash, |us| format!("{us:.2}")),
                self.busy()
                    .map_or_else(dash, |share| format!("{:.0} %", share * 100.0)),
                format!("{:.0}", self.rate()),
                format!("{:.0}", self.latency_us(50.0)),
                format!("{:.0}", self.latency_us(99.0)),
                format!("{:.0}", self.latency_us(99.9)),
            ],
        )
    }
}
