//! The scenarios: what is run, for how long, and how it is printed. One file each.
//!
//! Owner: the main thread. Invariant: a scenario owns its servers and its clients, and leaves
//! neither processes nor folders behind, however it ends.

mod burn;
mod compare;
mod compare_limit;
mod connect;
mod cores;
mod cost;
mod drive;
mod fan_in;
mod flags;
mod hot;
mod idle;
mod inbox;
mod limit;
mod logins;
mod mesh;
mod mixed;
mod offline;
mod ping;
mod progress;
mod project;
mod run;
mod slow;
mod steady;
mod storm;
mod sweep;
mod target;

use clap::Subcommand;

use crate::BenchError;
use crate::engine::Message;

/// What can be run.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Serve as the yardstick: a router of the classic protocol without limits, store or safety.
    Limit(limit::LimitArgs),
    /// One pair in lock step: latency.
    Ping(ping::PingArgs),
    /// Everybody writes to random others, in an open or a closed loop: latency, throughput, cost.
    Mesh(mesh::MeshArgs),
    /// Many write to one reader.
    FanIn(fan_in::FanInArgs),
    /// Users come at a rate, log in and leave.
    Connect(connect::ConnectArgs),
    /// Everybody logs in at once; everybody is cut off at once and comes back.
    Storm(storm::StormArgs),
    /// Messages are stored for users who are away, who then drain them.
    Offline(offline::OfflineArgs),
    /// One user to whom everybody writes: while away, at the return, and both at once.
    Hot(hot::HotArgs),
    /// Users consume what waits, come again and must find nothing.
    Burn(burn::BurnArgs),
    /// Readers that do not read: what the others notice, and whether everything comes in the end.
    Slow(slow::SlowArgs),
    /// A day of a messenger in fast motion.
    Mixed(mixed::MixedArgs),
    /// The highest rate at which a percentile of latency stays under a bound.
    Sweep(sweep::SweepArgs),
    /// The machines that so many users would need, from what is measured here, and what binds.
    Project(project::ProjectArgs),
    /// Users who are logged in and say nothing: bytes of each in the gateway and in the kernel.
    Idle(idle::IdleArgs),
    /// The same load on gateways of one, two and four cores on one cpu: what crossing costs.
    Cores(cores::CoresArgs),
    /// Start a server, drive the three standard loads, and report its CPU per message.
    Cost(cost::CostArgs),
    /// Run the yardstick and a gateway in turn, and report the gateway's cost over the limit's.
    CompareLimit(compare_limit::CompareLimitArgs),
    /// Run a gateway and the other servers that are installed in turn, and report how they stand to
    /// each other.
    Compare(compare::CompareArgs),
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
            Self::Ping(args) => ping::run(args),
            Self::Mesh(args) => mesh::run(args),
            Self::FanIn(args) => fan_in::run(args),
            Self::Connect(args) => connect::run(args),
            Self::Storm(args) => storm::run(args),
            Self::Offline(args) => offline::run(args),
            Self::Hot(args) => hot::run(args),
            Self::Burn(args) => burn::run(args),
            Self::Slow(args) => slow::run(args),
            Self::Mixed(args) => mixed::run(args),
            Self::Sweep(args) => sweep::run(args),
            Self::Project(args) => project::run(args),
            Self::Idle(args) => idle::run(args),
            Self::Cores(args) => cores::run(args),
            Self::Cost(args) => cost::run(args),
            Self::CompareLimit(args) => compare_limit::run(args),
            Self::Compare(args) => compare::run(args),
        }
    }
}

/// Bytes of a message.
fn message_bytes(text: &str) -> Result<u32, String> {
    let (least, most) = (Message::BYTES_MIN, Message::BYTES_MAX);
    match text.parse() {
        Ok(bytes) if (least..=most).contains(&bytes) => Ok(bytes),
        _ => Err(format!(
            "{text:?} is not between {least}, what a message has to say, and {most}"
        )),
    }
}

/// Messages or logins a second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.1..=1e8).contains(&rate) => Ok(rate),
        _ => Err(format!("{text:?} is no rate between 0.1 and 100,000,000")),
    }
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
