//! `iris-bench compare`: the gateway beside other servers, by the same engine, on the same cpu, in
//! the same minutes.
//!
//! Each server does the same work: every connection is a user with a subject, topic, channel or
//! stream of its own. They take turns within each round, every time as a new process in a new
//! folder, so that what the machine does meanwhile falls on all of them. The yardsticks stand
//! beside them: the bare ring, and the raw log.
//!
//! Invariant: a server that is not installed is left out, and that is said; one that loses, refuses
//! or changes the order of messages has that beside its figures.

mod contender;
mod memory;
mod online;
mod picture;
mod program;
mod raw_log;
mod stored;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::flags::{Repeat, Timing};
use super::progress::Progress;
use crate::BenchError;
use crate::engine::{Pace, Traffic, clock};
use crate::measure::{Cost, microseconds, pin};
use crate::report::{Output, Report, Verdict};
use contender::{Contender, ONLINE, STORED};
use program::{Program, Programs};
use table::{Column, Table, wrong};

/// What the servers are put to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Load {
    /// 200 users, 20,000 messages a second in an open loop: latency.
    Steady,
    /// 200 users with 1 message in flight each: throughput with little to do at a time.
    Few,
    /// 1,000 users with 16 messages in flight each: throughput with deep queues.
    Deep,
    /// 10,000 users with 1 message in flight each: throughput with many sockets.
    Many,
    /// Memory for each idle user.
    Memory,
    /// 1,000 senders, 1,000 readers who are away: stored, then drained.
    Stored,
}

/// Flags of `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The gateway's program [default: the `iris` beside this program].
    #[arg(long, value_name = "PATH")]
    gateway: Option<PathBuf>,
    /// The loads, in turn.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values = ["steady", "few", "deep", "many", "memory", "stored"])]
    loads: Vec<Load>,
    /// The programs, where they are installed.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values = ["limit", "iris", "nats", "mosquitto", "redis"])]
    servers: Vec<Program>,
    /// The cpu that all servers run on.
    #[arg(long, value_name = "CPU", default_value = "0")]
    server_cpu: usize,
    /// Where the servers' folders are made [default: the folder for temporary files].
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Write the tables as a picture: bars, in SVG.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    repeat: Repeat,
    #[command(flatten)]
    output: Output,
}

/// What every message is, in bytes.
const MESSAGE_BYTES: u32 = 64;

/// Messages a second of [`Load::Steady`].
const STEADY_RATE: f64 = 20_000.0;
/// Senders of [`Load::Stored`], and as many readers.
const PAIRS: u32 = 1_000;
/// Messages each of them has in flight.
const STORED_IN_FLIGHT: u32 = 1;

const fn column(name: &'static str, unit: &'static str, ratio: bool) -> Column {
    Column { name, unit, ratio }
}

const ONLINE_COLUMNS: [Column; 5] = [
    column("delivered", "msg/s", true),
    column("server CPU", "us/msg", true),
    column("p50", "us", true),
    column("p99", "us", true),
    column("server busy", "%", false),
];
const MEMORY_COLUMNS: [Column; 1] = [column("resident", "bytes/user", true)];
const STORED_COLUMNS: [Column; 6] = [
    column("stored", "msg/s", true),
    column("server CPU", "us/msg", true),
    column("answer p50", "us", true),
    column("answer p99", "us", true),
    column("drained", "msg/s", true),
    column("drain CPU", "us/msg", true),
];

pub(super) fn run(args: &CompareArgs) -> Result<(), BenchError> {
    pin(args.repeat.load_cpu);
    let mut run = Run::begin(args)?;
    let mut tables = Vec::new();
    for &load in &args.loads {
        tables.push(run.load(load)?);
    }
    run.progress.finish();
    if let Some(path) = &args.svg {
        fs::write(path, picture::svg(&tables)).map_err(|source| BenchError::Output {
            path: path.clone(),
            source,
        })?;
    }
    let text = |report: &Report| {
        let notes = report.warnings.iter().map(|note| format!("Mind: {note}\n"));
        let settings = report.settings.iter();
        let settings = settings.map(|(name, value)| format!("- {name}: {value}\n"));
        let mut parts = vec![report.verdict_line()];
        parts.push(format!("{}\n$ {}", report.machine, report.command));
        parts.push(settings.collect());
        parts.extend(tables.iter().map(Table::text));
        parts.push(notes.collect());
        parts.join("\n\n")
    };
    args.output.write_as(&run.report, text)
}

/// A comparison under way.
struct Run<'a> {
    args: &'a CompareArgs,
    programs: Programs,
    data: PathBuf,
    online: Vec<Contender>,
    stored: Vec<Contender>,
    report: Report,
    progress: Progress,
}

impl<'a> Run<'a> {
    /// Finds out who takes part, and states all settings.
    fn begin(args: &'a CompareArgs) -> Result<Self, BenchError> {
        let gateway = match &args.gateway {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("iris"),
        };
        if args.servers.contains(&Program::Iris) && !gateway.is_file() {
            return Err(BenchError::NoGateway(gateway));
        }
        let mut run = Self {
            args,
            programs: Programs { gateway },
            data: args.data.clone().unwrap_or_else(std::env::temp_dir),
            online: Vec::new(),
            stored: Vec::new(),
            report: Report::begin("compare", clock::now_ns()),
            progress: Progress::begin("compare"),
        };
        let data = format!("{}, {}", run.data.display(), file_system(&run.data));
        run.report.setting("bytes of a message", MESSAGE_BYTES);
        run.report.setting("cpu of the servers", args.server_cpu);
        run.report.setting("folder of the data", data);
        for &program in &args.servers {
            let version = run.programs.version(program)?;
            run.report.setting(program.name(), version);
        }
        if args.loads.iter().any(|load| *load != Load::Stored) {
            run.online = run.present(&ONLINE)?;
        }
        if args.loads.contains(&Load::Stored) {
            run.stored = run.present(&STORED)?;
        }
        Ok(run)
    }

    fn present(&mut self, all: &[Contender]) -> Result<Vec<Contender>, BenchError> {
        let mut present = Vec::new();
        for contender in all {
            if !self.args.servers.contains(&contender.program) {
                continue;
            }
            let settings = match contender.missing(&self.programs)? {
                Some(why) => format!("left out: {why}"),
                None => {
                    present.push(*contender);
                    contender.settings(self.args.server_cpu)
                }
            };
            self.report.setting(contender.name, settings);
        }
        Ok(present)
    }

    fn load(&mut self, load: Load) -> Result<Table, BenchError> {
        match load {
            Load::Steady => self.online(
                "200 users, 20,000 messages a second are due (open loop)",
                200,
                Pace::Rate(STEADY_RATE),
            ),
            Load::Few => self.online("200 users x 1 in flight", 200, Pace::Window(1)),
            Load::Deep => self.online("1,000 users x 16 in flight", 1_000, Pace::Window(16)),
            Load::Many => self.online("10,000 users x 1 in flight", 10_000, Pace::Window(1)),
            Load::Memory => self.memory(),
            Load::Stored => self.stored(),
        }
    }

    /// The rounds of a load: `once` for each of `contenders` in turn.
    fn rounds(
        &mut self,
        title: &'static str,
        columns: &'static [Column],
        contenders: &[Contender],
        mut once: impl FnMut(&mut Self, &Contender, &mut Table) -> Result<(), BenchError>,
    ) -> Result<Table, BenchError> {
        let gateway = |contender: &&Contender| contender.program == Program::Iris;
        let base = contenders.iter().find(gateway);
        let mut table = Table::new(title, columns, base.map_or("", |base| base.name));
        for round in 1..=self.args.repeat.rounds {
            for contender in contenders {
                let what = format!("{title}: round {round}: {}", contender.name);
                self.progress.phase(&what, None);
                once(self, contender, &mut table)?;
            }
        }
        Ok(table)
    }

    /// Adds a round to a table and to the report. What our own servers did wrong is the run's
    /// verdict; what others did is said beside it.
    fn record(
        &mut self,
        table: &mut Table,
        contender: &Contender,
        figures: Vec<Option<f64>>,
        verdict: &Verdict,
    ) -> String {
        let case = format!("{}: {}", table.title(), contender.name);
        for (column, figure) in table.columns().iter().zip(&figures) {
            let case = self.report.case(&case);
            case.figure(column.name, column.unit, *figure);
        }
        if contender.program.package().is_none() {
            let total = &mut self.report.verdict;
            total.add(verdict.messages, verdict.refused, verdict.faults);
        } else if !verdict.is_sound() || verdict.refused > 0 {
            self.report.warn(format!("{case}: {}", wrong(verdict)));
        }
        table.round(contender, figures, verdict);
        case
    }

    /// Says so if the figures may be those of the generator.
    fn warn_of_the_generator(&mut self, case: &str, cost: &Cost) {
        if let Some(doubt) = cost.doubt() {
            self.report.warn(format!("{case}: {doubt}"));
        }
    }

    fn start(&self, contender: &Contender) -> Result<contender::Running, BenchError> {
        contender.start(&self.programs, self.args.server_cpu, &self.data)
    }

    fn online(&mut self, title: &'static str, users: u32, pace: Pace) -> Result<Table, BenchError> {
        let contenders = self.online.clone();
        let once = |run: &mut Self, contender: &Contender, table: &mut Table| {
            let server = run.start(contender)?;
            let timing = &run.args.timing;
            let online = online::run(&server, contender.protocol, users, pace, timing)?;
            let (tally, cost) = (&online.tally, &online.cost);
            let latency = |quantile| microseconds(tally.latency_ns.value_at_quantile(quantile));
            let figures = vec![
                Some(tally.delivered as f64 / cost.elapsed.as_secs_f64()),
                cost.server_us_each(tally.delivered),
                Some(latency(0.5)),
                Some(latency(0.99)),
                cost.server_percent(),
            ];
            let case = run.record(table, contender, figures, &online.verdict);
            run.report.case(&case).latencies(&tally.latency_ns);
            run.warn_of_the_generator(&case, cost);
            Ok(())
        };
        self.rounds(title, &ONLINE_COLUMNS, &contenders, once)
    }

    fn memory(&mut self) -> Result<Table, BenchError> {
        let title = "8,000 more users, idle, after 2,000 who came and went";
        let contenders = self.online.clone();
        let once = |run: &mut Self, contender: &Contender, table: &mut Table| {
            let server = run.start(contender)?;
            let bytes = memory::run(&server, contender.protocol)?;
            run.record(table, contender, vec![Some(bytes)], &Verdict::default());
            Ok(())
        };
        self.rounds(title, &MEMORY_COLUMNS, &contenders, once)
    }

    fn stored(&mut self) -> Result<Table, BenchError> {
        let title = "1,000 senders x 1 in flight, 1,000 readers who are away: stored, then drained";
        let contenders = self.stored.clone();
        let mut all = Vec::new();
        if self.args.servers.contains(&Program::Limit) {
            all.push(contender::RAW_LOG);
        }
        all.extend(contenders);
        let once = |run: &mut Self, contender: &Contender, table: &mut Table| {
            if contender.program == Program::Limit {
                return run.raw_log(table);
            }
            let server = run.start(contender)?;
            let (protocol, timing) = (contender.protocol, &run.args.timing);
            let stored = stored::run(&server, protocol, PAIRS, STORED_IN_FLIGHT, timing)?;
            let answers = &stored.answer_ns;
            let answer = |quantile| {
                (!answers.is_empty()).then(|| microseconds(answers.value_at_quantile(quantile)))
            };
            let rate = |count: u64, cost: &Cost| Some(count as f64 / cost.elapsed.as_secs_f64());
            let figures = vec![
                rate(stored.stored, &stored.store),
                stored.store.server_us_each(stored.stored),
                answer(0.5),
                answer(0.99),
                rate(stored.drained, &stored.drain),
                stored.drain.server_us_each(stored.drained),
            ];
            let case = run.record(table, contender, figures, &stored.verdict);
            run.report.case(&case).latencies(answers);
            run.warn_of_the_generator(&case, &stored.store);
            Ok(())
        };
        self.rounds(title, &STORED_COLUMNS, &all, once)
    }

    /// One batch is what the senders have in flight together: no store can gather more.
    fn raw_log(&mut self, table: &mut Table) -> Result<(), BenchError> {
        let log = raw_log::run(
            &self.data,
            self.args.server_cpu,
            PAIRS * STORED_IN_FLIGHT,
            MESSAGE_BYTES as usize,
            self.args.timing.duration,
        )?;
        let batch = |quantile| Some(microseconds(log.batch_ns.value_at_quantile(quantile)));
        let rate = log.records as f64 / log.elapsed.as_secs_f64();
        let figures = vec![Some(rate), None, batch(0.5), batch(0.99), None, None];
        self.record(table, &contender::RAW_LOG, figures, &Verdict::default());
        Ok(())
    }
}

/// What the ledger of `traffic` comes to.
fn verdict_of(traffic: &Traffic) -> Verdict {
    let (streams, mut verdict) = (traffic.streams(), Verdict::default());
    verdict.add(streams.sent(), streams.refusals(), streams.faults());
    verdict
}

/// The kind of file system that `folder` is on: a sync costs nothing in memory.
fn file_system(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let found = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(mount, _)| folder.starts_with(mount))
        .max_by_key(|(mount, _)| mount.len());
    found.map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_of_a_folder_is_that_of_the_nearest_mount() {
        assert_eq!(file_system(Path::new("/proc/self")), "proc");
        assert_ne!(file_system(Path::new("/")), "unknown");
    }
}
