//! The scenarios: what is run, for how long, and how it is printed. One file each.
//!
//! Owner: the main thread. Invariant: a scenario owns its servers and its clients, and leaves
//! neither processes nor folders behind, however it ends.

mod compare_limit;
mod cost;
mod drive;
mod limit;
mod load;
mod ping;

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::BenchError;

/// What can be run.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Serve as the yardstick: a router of the classic protocol without limits, store or safety.
    Limit(limit::LimitArgs),
    /// Drive a running server in a closed loop and report throughput and latency.
    Load(load::LoadArgs),
    /// Drive one pair in lock step and report latency.
    Ping(ping::PingArgs),
    /// Start a server, drive the three standard loads, and report its CPU per message.
    Cost(cost::CostArgs),
    /// Run the yardstick and a gateway in turn, and report the gateway's cost over the limit's.
    CompareLimit(compare_limit::CompareLimitArgs),
}

impl Scenario {
    /// Runs it to its end.
    ///
    /// # Errors
    /// It could not be run, or messages went wrong.
    pub fn run(&self) -> Result<(), BenchError> {
        raise_descriptor_limit();
        if !matches!(self, Self::Limit(_)) {
            crate::interrupt::watch()?;
        }
        match self {
            Self::Limit(args) => limit::run(args),
            Self::Load(args) => load::run(args),
            Self::Ping(args) => ping::run(args),
            Self::Cost(args) => cost::run(args),
            Self::CompareLimit(args) => compare_limit::run(args),
        }
    }
}

/// How long is driven, and where: the same flags in every scenario.
#[derive(Debug, Clone, Args)]
pub struct Timing {
    /// Seconds of load before anything is measured.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) warm_up: Duration,
    /// Seconds that are measured.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) duration: Duration,
    /// The cpu that the load generator is pinned to [default: the last one].
    #[arg(long, value_name = "CPU")]
    pub(crate) load_cpu: Option<usize>,
}

impl Timing {
    /// Pins this thread apart from the servers.
    pub(crate) fn pin(&self) {
        let last = || core_affinity::get_core_ids()?.last().map(|core| core.id);
        if let Some(id) = self.load_cpu.or_else(last) {
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

/// A ring's table holds as many sockets as the process may hold descriptors: ask for all we may
/// have, for us and for the servers we start. What is refused is refused.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    let _ = setrlimit(Resource::Nofile, limit);
}
