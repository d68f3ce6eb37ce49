//! A steady load on one topology, at a rate or as fast as messages get through: what `mesh` and
//! `fan-in` have in common.

use clap::Args;

use super::flags::{Common, Shape, Timing};
use super::run::Run;
use crate::BenchError;
use crate::engine::{Pace, Sizes, Topology, Traffic};

/// Flags of a steady load.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Messages a second that are due, of all senders together: an open loop.
    #[arg(
        long,
        value_name = "N",
        default_value = "20000",
        value_parser = super::rate,
        conflicts_with = "in_flight"
    )]
    rate: f64,
    /// Messages that each sender keeps in flight: a closed loop.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight: Option<u32>,
    /// When the next message of a closed loop is written.
    #[arg(
        long,
        value_name = "SHAPE",
        value_enum,
        default_value = "gather",
        requires = "in_flight"
    )]
    shape: Shape,
    /// Bytes of each message, or a mix of sizes with the share of each, as in
    /// 0.8:64,0.15:1024,0.05:16384.
    #[arg(
        long,
        visible_alias = "bytes",
        value_name = "SIZES",
        default_value = "64",
        value_parser = clap::value_parser!(Sizes)
    )]
    size: Sizes,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    common: Common,
}

impl LoadArgs {
    /// Runs the scenario of this name. `who`: the users, for the heading.
    pub(super) fn run(
        &self,
        name: &'static str,
        topology: Topology,
        who: &str,
    ) -> Result<(), BenchError> {
        if self.shape == Shape::Reply && !topology.all_send() {
            return Err(BenchError::Shape(name));
        }
        let mut run = Run::begin(name, &self.common)?;
        run.report.setting("message bytes", &self.size);
        let (pace, case) = match self.in_flight {
            Some(window) => (
                self.shape.pace(window),
                match self.shape {
                    Shape::Gather => format!("closed loop, {who} x {window} in flight"),
                    Shape::Bursts => format!("bursts, {who}, 1 in 5 writes {window} at once"),
                    shape => format!("{}, {who} x {window} in flight", shape.name()),
                },
            ),
            None => (
                Pace::Rate(self.rate),
                format!("open loop, {who}, {}/s", self.rate),
            ),
        };
        let clients = run.open_clients(topology.users())?;
        let mut traffic = Traffic::new(clients, topology, self.size.clone());
        run.rounds(&case, &mut traffic, pace, &self.timing)?;
        run.settle(&traffic);
        run.finish()
    }
}
