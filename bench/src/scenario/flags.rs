//! The flags that scenarios have in common.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::target::TargetArgs;
use crate::dialect::Protocol;
use crate::engine::Pace;
use crate::report::Output;

/// How long is driven, in scenarios that go by time.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Timing")]
pub(crate) struct Timing {
    /// Seconds of load before anything is measured, in each round.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) warm_up: Duration,
    /// Seconds that are measured, in each round.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub(crate) duration: Duration,
}

/// How often it is measured, and where from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Timing")]
pub(crate) struct Repeat {
    /// How often it is measured.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// The cpu that the load generator is pinned to [default: the last one].
    #[arg(long, value_name = "CPU")]
    pub(crate) load_cpu: Option<usize>,
}

/// The flags of every scenario.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// The protocol that is spoken.
    #[arg(long, value_enum, default_value = "framed", help_heading = "Server")]
    pub(crate) protocol: Protocol,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) repeat: Repeat,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// When the next message of a closed loop is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// A sender waits until seven eighths of its messages have come, and writes as many in one
    /// send: the least that a load can cost a server.
    Gather,
    /// Whoever receives a message answers at once with one to a random other: some have more to
    /// say than others, and all have as many in flight as they began with.
    Reply,
    /// A sender writes the next message as soon as one of its own has come.
    Eager,
    /// One user in five writes all its messages at once, and the next ones when all of them came.
    /// The others keep one in flight, and their latency is the one that is shown first.
    Bursts,
}

impl Shape {
    /// The pace of this shape with so many messages of each sender in flight.
    pub(crate) fn pace(self, in_flight: u32) -> Pace {
        match self {
            Self::Gather => Pace::Window(in_flight),
            Self::Reply => Pace::Reply(in_flight),
            Self::Eager => Pace::Eager(in_flight),
            Self::Bursts => Pace::Bursts(in_flight),
        }
    }

    /// As it is called on the command line and in print.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gather => "gather",
            Self::Reply => "reply",
            Self::Eager => "eager",
            Self::Bursts => "bursts",
        }
    }
}

/// Reads a number of seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}
