//! The flags that scenarios have in common.

use std::time::Duration;

use clap::Args;

use super::target::TargetArgs;
use crate::dialect::Protocol;
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

/// Reads a number of seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}
