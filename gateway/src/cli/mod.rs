//! The command line of `iris`: what was asked for, and what becomes of the process.
//!
//! Runs on the main thread. Every failure is one line on stderr, `iris: what went wrong: what to
//! do`, and one of the exit codes that `--help` lists.

mod arguments;
mod check;
mod serve;
mod store;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::fs::Mode;

use crate::chat;
use arguments::SettingArguments;

const AFTER_HELP: &str = "\
Values:
  A setting comes from the first of these that names it: flag, environment (IRIS_ and the
  flag's name in capitals with underscores, so IRIS_IDLE_TIMEOUT for --idle-timeout), the
  file of --config (idle_timeout = \"5min\"), built-in default.
  `iris check` shows the values in effect and where each comes from, as such a file.
  SIZE is 65536, 64KiB or 1MiB; TIME is 250ms, 2s, 5min, 1h or 30d.

Signals:
  SIGTERM, SIGINT   stop taking connections, finish what was begun (see --drain-timeout),
                    exit 0; the second one exits at once
  SIGHUP            ignored: settings are read at start

Exit codes:
  0    drained after a signal
  1    could not run, or failed; the last line on stderr says why and what to do
  2    wrong command line or configuration; the last line says where and what is allowed
  3    `iris store` found damage, or lost something to it
  130, 143   a second SIGINT or SIGTERM
";

/// Messaging gateway: users log in and send messages to each other; who is away finds them later.
///
/// Without a command it serves. With nothing configured it serves on 127.0.0.1:8085 and keeps
/// messages for users who are away in ./iris-data.
#[derive(Debug, Parser)]
#[command(name = "iris", version, args_conflicts_with_subcommands = true, after_long_help = AFTER_HELP)]
#[command(after_help = "--help says more: how values are found, signals, exit codes")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: SettingArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (also what `iris` alone does).
    #[command(after_long_help = AFTER_HELP)]
    Serve(SettingArguments),
    /// Check the configuration and show the values in effect, each with its source.
    ///
    /// The output is TOML and can be used as the file of --config. Nothing is started or changed.
    #[command(after_long_help = AFTER_HELP)]
    Check(SettingArguments),
    /// Log in as a user and exchange messages from a terminal.
    #[command(after_long_help = chat::AFTER_HELP)]
    Chat(chat::Options),
    /// Check, repair or count what is in a data folder, while no gateway uses it.
    #[command(subcommand, after_long_help = store::AFTER_HELP)]
    Store(store::Command),
}

/// Why a command did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The command line or the configuration: exit code 2.
    Usage(String),
    /// Anything later: exit code 1.
    Run(String),
    /// It ran, and found damage: exit code 3.
    Damage(String),
}

impl Failure {
    /// The line on stderr, without `iris: `.
    pub fn line(&self) -> &str {
        match self {
            Failure::Usage(line) | Failure::Run(line) | Failure::Damage(line) => line,
        }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Run(_) => 1,
            Failure::Damage(_) => 3,
        }
    }
}

/// Runs what the process's command line asks for.
pub fn run() -> ExitCode {
    // A wrong command line ends here, with clap's explanation and exit code 2.
    let arguments = Arguments::parse();
    // Also the database below makes files, and says nothing of who may read them.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let done = match arguments.command {
        None => serve::run(&arguments.settings),
        Some(Command::Serve(settings)) => serve::run(&settings),
        Some(Command::Check(settings)) => check::run(&settings),
        Some(Command::Chat(options)) => chat::run(options),
        Some(Command::Store(command)) => store::run(&command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nothing is left to tell it to if stderr is gone.
            let _ = writeln!(std::io::stderr(), "iris: {}", failure.line());
            ExitCode::from(failure.code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
