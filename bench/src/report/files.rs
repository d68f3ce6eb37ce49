//! Where a report goes: stdout, and the files that were asked for.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Report, hdr, html, table};
use crate::BenchError;

/// What is written besides the table.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Print the report as JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Write the report as a web page that needs no network.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the latencies over time as an HdrHistogram log.
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// Write the percentiles of latency as HdrHistogram's plotters read them.
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
}

impl Output {
    /// Writes everything that was asked for.
    ///
    /// # Errors
    /// A file could not be written, or the verdict is that messages went wrong.
    pub(crate) fn write(&self, report: &Report) -> Result<(), BenchError> {
        self.write_as(report, table::text)
    }

    /// The same, with another text for people.
    ///
    /// # Errors
    /// See [`Self::write`].
    pub(crate) fn write_as(
        &self,
        report: &Report,
        text: impl FnOnce(&Report) -> String,
    ) -> Result<(), BenchError> {
        if self.json {
            let text = serde_json::to_string_pretty(report).map_err(io::Error::from)?;
            print(&text)?;
        } else {
            print(text(report).trim_end())?;
        }
        to_file(self.html.as_deref(), |out| html::write(out, report))?;
        to_file(self.hlog.as_deref(), |out| hdr::write_hlog(out, report))?;
        to_file(self.hgrm.as_deref(), |out| hdr::write_hgrm(out, report))?;
        if report.verdict.is_sound() {
            return Ok(());
        }
        Err(BenchError::Wrong(report.verdict.faults_in_words()))
    }
}

/// To stdout; whoever closed it wants no more.
fn print(text: &str) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn to_file(
    path: Option<&Path>,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), BenchError> {
    let Some(path) = path else { return Ok(()) };
    let written = File::create(path).and_then(|file| {
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.flush()
    });
    written.map_err(|source| BenchError::Output {
        path: path.to_owned(),
        source,
    })
}
