//! Log lines on stderr, human or JSON.
//!
//! Set up once by the main thread, before any other thread starts. Lines are for what an operator
//! acts on: nothing is logged per message, and per connection only at level debug, so that no flood
//! of clients becomes a flood of lines.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{LogFormat, LogLevel};

/// The database below the store tells of its every step; an operator acts on its warnings only.
/// Directives of the level stand behind these, so `info,fjall=info` wins.
const BELOW: &str = "fjall=warn,lsm_tree=warn";

/// Starts logging. Colour only where stderr is a terminal and `NO_COLOR` is not set.
///
/// A second call changes nothing: the first set-up stays.
pub fn start(format: LogFormat, level: &LogLevel) {
    let says_less = level
        .as_str()
        .parse::<LevelFilter>()
        .is_ok_and(|level| level <= LevelFilter::WARN);
    let filter = if says_less {
        EnvFilter::new(level.as_str())
    } else {
        EnvFilter::new(format!("{BELOW},{}", level.as_str()))
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A line that cannot be written would be told of on stderr, too, and that panics: whoever reads the log may be
        // gone, and the gateway goes on.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    let started = match format {
        LogFormat::Human => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colour).with_target(false).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // The error says only that a subscriber is there already, which is what was wanted.
    drop(started);
}
