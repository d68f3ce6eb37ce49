//! A steady load on one topology, at a rate or as fast as messages get through: what `mesh` and
//! `fan-in` have in common.

use clap::Args;

use super::flags::{Common, Timing};
use super::run::Run;
use crate::BenchError;
use crate::engine::{Pace, Topology, Traffic};

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
    /// Bytes of each message.
    #[arg(long, value_name = "N", default_value = "64", value_parser = super::message_bytes)]
    bytes: u32,
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
        let mut run = Run::begin(name, &self.common)?;
        run.report.setting("message bytes", self.bytes);
        let (pace, case) = match self.in_flight {
            Some(window) => (
                Pace::Window(window),
                format!("closed loop, {who} x {window} in flight"),
            ),
            None => (
                Pace::Rate(self.rate),
                format!("open loop, {who}, {}/s", self.rate),
            ),
        };
        let clients = run.open_clients(topology.users())?;
        let mut traffic = Traffic::new(clients, topology, self.bytes);
        run.rounds(&case, &mut traffic, pace, &self.timing)?;
        run.settle(&traffic);
        run.finish()
    }
}
