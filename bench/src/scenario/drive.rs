//! One measurement: clients are opened, warmed up, measured and drained against a server that is
//! there already. What every scenario has in common.

use std::net::SocketAddr;

use super::flags::{Shape, Timing};
use crate::BenchError;
use crate::dialect::Protocol;
use crate::engine::{Clients, Faults, Sizes, Tally, Topology, Traffic};
use crate::measure::{Cost, Meter, microseconds, row};

/// How many connections, how many messages each keeps in flight, when it writes the next one, and
/// how long these are. Everybody sends to random others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Load {
    pub(crate) shape: Shape,
    pub(crate) connections: u32,
    pub(crate) in_flight: u32,
    pub(crate) sizes: Sizes,
}

impl Load {
    /// A load of messages that are all alike.
    pub(crate) fn new(shape: Shape, connections: u32, in_flight: u32, bytes: u32) -> Self {
        Self {
            shape,
            connections,
            in_flight,
            sizes: bytes.into(),
        }
    }

    /// The three loads a server is judged by: few turns with little in them, deep queues, many
    /// sockets.
    pub(crate) fn standard() -> [Self; 3] {
        [(200, 1), (1_000, 16), (10_000, 1)]
            .map(|(connections, in_flight)| Self::new(Shape::Gather, connections, in_flight, 64))
    }

    /// As it is called in print.
    pub(crate) fn name(&self) -> String {
        let Self {
            shape,
            connections,
            in_flight,
            sizes,
        } = self;
        format!("{} {connections} x {in_flight}, {sizes} B", shape.name())
    }
}

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
    load: &Load,
    timing: &Timing,
) -> Result<Measured, BenchError> {
    let users = load.connections;
    let clients = Clients::open(server, protocol, users)?;
    let mut traffic = Traffic::new(clients, Topology::Mesh { users }, load.sizes.clone());
    traffic.start(load.shape.pace(load.in_flight));
    traffic.run(timing.warm_up)?;
    traffic.begin();
    let meter = Meter::begin(pid)?;
    traffic.run(timing.duration)?;
    traffic.end();
    let cost = meter.end()?;
    let tally = traffic.finish()?;
    Ok(Measured {
        faults: traffic.faults(),
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

    /// What went wrong with the messages, if anything did.
    fn wrong(&self) -> Option<String> {
        let Faults {
            lost,
            reordered,
            repeated,
            strays,
            ended,
        } = self.faults;
        (!self.faults.is_none()).then(|| {
            format!(
                "{lost} lost, {reordered} out of order, {repeated} repeated, {strays} strays, \
                 {ended} connections ended"
            )
        })
    }

    /// The heading of [`Self::print`].
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
        row("connections x in flight, size", cells.map(str::to_owned))
    }

    /// Prints one line of figures; what went wrong is added to `wrongs`.
    pub(crate) fn print(&self, name: &str, wrongs: &mut Vec<String>) {
        println!("{}", self.line(name));
        wrongs.extend(self.wrong().map(|wrong| format!("{name}: {wrong}")));
    }

    fn line(&self, name: &str) -> String {
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

/// An error if there is anything that went wrong.
pub(crate) fn verdict(wrongs: &[String]) -> Result<(), BenchError> {
    if wrongs.is_empty() {
        return Ok(());
    }
    Err(BenchError::Wrong(wrongs.join("; ")))
}
