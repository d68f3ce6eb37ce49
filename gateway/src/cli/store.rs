//! `iris store`: looks at a data folder, and mends it, while no gateway uses it.
//!
//! Runs on the main thread. The report is on stdout, problems and the log on stderr.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use iris_storage::{Check, Repair, StoreError, Survey};

use super::Failure;
use crate::config::{LogFormat, LogLevel};
use crate::logging;

pub(super) const AFTER_HELP: &str = "\
The folder is locked while a command runs: stop the gateway first.

Exit codes:
  0    check: the folder is sound; repair, stats: done
  1    could not run; the last line on stderr says why and what to do
  2    wrong command line
  3    check: the folder is damaged, the lines say where; repair: done, and something was lost
";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read everything in a data folder and say whether it is sound.
    ///
    /// First every file is read as it lies there: format, counter, marks, every batch of the journals, every block of
    /// the tables. If all are sound, the store is opened as a start would, and every account and record is looked at.
    #[command(after_long_help = AFTER_HELP)]
    Check(Folder),
    /// Build a data folder's databases anew from all that can be read.
    ///
    /// Needs room for a second copy. The old databases are moved to DIR/damaged; delete them when they are not needed
    /// any more. Whoever had read a message whose account is lost gets it again.
    #[command(after_long_help = AFTER_HELP)]
    Repair(Folder),
    /// Say what a data folder holds: users, messages, the largest inboxes.
    #[command(after_long_help = AFTER_HELP)]
    Stats {
        #[command(flatten)]
        folder: Folder,
        /// One JSON object instead of lines.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
pub(super) struct Folder {
    /// The data folder (--data of the gateway).
    #[arg(value_name = "DIR")]
    path: PathBuf,
}

/// Runs one of the commands.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    logging::start(LogFormat::Human, &LogLevel::info());
    match command {
        Command::Check(folder) => check(&folder.path),
        Command::Repair(folder) => repair(&folder.path),
        Command::Stats { folder, json } => stats(&folder.path, *json),
    }
}

fn check(path: &Path) -> Result<(), Failure> {
    let check = iris_storage::check(path).map_err(failed)?;
    let mut report = String::new();
    for fault in &check.faults {
        report += &format!("{fault}\n");
    }
    let Check {
        tables, journals, ..
    } = check;
    report += &format!("read {tables} tables and {journals} journals\n");
    if let Some(survey) = &check.survey {
        report += &lines(survey);
    }
    print(&report)?;
    match check.faults.len() {
        0 => print("sound\n"),
        faults => Err(Failure::Damage(format!(
            "{} is damaged in {faults} places: a start mends journals by itself; for the rest, `iris store repair {}`",
            path.display(),
            path.display()
        ))),
    }
}

fn repair(path: &Path) -> Result<(), Failure> {
    let repair = iris_storage::repair(path).map_err(failed)?;
    let Repair {
        messages,
        accounts,
        messages_missing,
        blocks_lost,
        bytes_lost,
        ..
    } = repair;
    let mut report = format!(
        "kept {messages} messages of {accounts} users\n\
         missing {messages_missing} messages (lost, or expired before)\n\
         could not read {blocks_lost} stretches of tables, {bytes_lost} bytes in all\n"
    );
    for kept in &repair.kept_in {
        report += &format!("the old database is in {}\n", kept.display());
    }
    print(&report)?;
    if blocks_lost == 0 && bytes_lost == 0 && repair.survey.faults().is_empty() {
        Ok(())
    } else {
        Err(Failure::Damage(format!(
            "{} is repaired, and something was lost: the lines above say how much",
            path.display()
        )))
    }
}

fn stats(path: &Path, json: bool) -> Result<(), Failure> {
    let (survey, disk_bytes) = iris_storage::stats(path).map_err(failed)?;
    if json {
        return print(&object(&survey, disk_bytes));
    }
    print(&format!("{}disk {disk_bytes} bytes\n", lines(&survey)))
}

fn lines(survey: &Survey) -> String {
    let mut lines = format!(
        "users {} ({} without a name)\nmessages {}, {} bytes\nmissing {} (expired and destroyed, or lost)\n",
        survey.users, survey.users_unnamed, survey.messages, survey.bytes, survey.messages_missing
    );
    if let Some(oldest_ms) = survey.oldest_ms {
        lines += &format!("oldest sent at {oldest_ms} (Unix ms)\n");
    }
    for inbox in &survey.largest {
        let name = inbox.name.escape_default();
        lines += &format!(
            "inbox {name}: {} messages, {} bytes\n",
            inbox.messages, inbox.bytes
        );
    }
    lines
}

fn object(survey: &Survey, disk_bytes: u64) -> String {
    let largest: Vec<String> = survey
        .largest
        .iter()
        .map(|inbox| {
            format!(
                "{{\"name\":{},\"messages\":{},\"bytes\":{}}}",
                quoted(&inbox.name),
                inbox.messages,
                inbox.bytes
            )
        })
        .collect();
    let oldest = survey
        .oldest_ms
        .map_or("null".to_owned(), |at| at.to_string());
    format!(
        "{{\"users\":{},\"users_unnamed\":{},\"messages\":{},\"bytes\":{},\"messages_missing\":{},\"oldest_ms\":{oldest},\"disk_bytes\":{disk_bytes},\"largest\":[{}]}}\n",
        survey.users,
        survey.users_unnamed,
        survey.messages,
        survey.bytes,
        survey.messages_missing,
        largest.join(",")
    )
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\0'..='\x1f' => quoted += &format!("\\u{:04x}", u32::from(character)),
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::Run(format!("cannot write to stdout: {error}")))
}

fn failed(error: StoreError) -> Failure {
    Failure::Run(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("a\"b\\c\nd é"), "\"a\\\"b\\\\c\\u000ad é\"");
    }
}
