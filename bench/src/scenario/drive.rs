//! One measurement: clients are opened, warmed up, measured and drained against a server that is
//! there already. What every scenario has in common.

use std::net::SocketAddr;

use super::flags::Timing;
use crate::BenchError;
use crate::dialect::Protocol;
use crate::engine::{Clients, Faults, Pace, Tally, Topology, Traffic};
use crate::measure::{Cost, Meter, microseconds, row};

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
    pub(crate) tally: Tally,
    pub(crate) faults: Faults,
    /// CPU of the server, if its pid was known, and of the generator.
    pub(crate) cost: Cost,
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
    load.begin();
    let meter = Meter::begin(pid)?;
    load.run(timing.duration)?;
    load.end();
    let cost = meter.end()?;
    let tally = load.finish()?;
    Ok(Measured {
        faults: load.faults(),
        tally,
        cost,
    })
}

impl Measured {
    /// Messages delivered in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.tally.delivered as f64 / self.cost.elapsed.as_secs_f64()
    }

    /// The server's CPU for each delivered message, in microseconds.
    pub(crate) fn cpu_us(&self) -> Option<f64> {
        self.cost.server_us_each(self.tally.delivered)
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
            "headroom",
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
                self.cost
                    .server_percent()
                    .map_or_else(dash, |share| format!("{share:.0} %")),
                self.cost
                    .headroom()
                    .map_or_else(dash, |times| format!("{times:.2}")),
                format!("{:.0}", self.rate()),
                format!("{:.0}", self.latency_us(50.0)),
                format!("{:.0}", self.latency_us(99.0)),
                format!("{:.0}", self.latency_us(99.9)),
            ],
        )
    }
}
