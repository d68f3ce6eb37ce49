//! `iris-bench connect`: users come at a rate, each on a connection of its own, log in and leave.

use std::collections::VecDeque;
use std::time::Duration;

use clap::Args;

use super::flags::{Common, Timing};
use super::logins::Logins;
use super::run::{Run, latency_figures};
use crate::BenchError;
use crate::engine::{Clients, clock};
use crate::measure::{Cost, Meter};

/// Connections begun in a turn.
const BEGIN_MAX: u32 = 64;

/// Flags of `connect`.
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// Logins a second that are due: an open loop.
    #[arg(long, value_name = "N", default_value = "2000", value_parser = super::rate)]
    rate: f64,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    common: Common,
}

/// Users who come and go.
struct Visitors {
    clients: Clients,
    /// Clients without a connection, and those on their way out.
    free: Vec<u32>,
    leaving: VecDeque<u32>,
    count: u32,
}

pub(super) fn run(args: &ConnectArgs) -> Result<(), BenchError> {
    let mut run = Run::begin("connect", &args.common)?;
    let mut visitors = Visitors {
        clients: run.clients(args.rate as u32)?,
        free: Vec::new(),
        leaving: VecDeque::new(),
        count: 0,
    };
    let case = format!("open loop, {} logins/s", args.rate);
    for _ in 0..args.common.repeat.rounds {
        run.progress.phase(&case, None);
        visitors.receive(&mut Logins::new(), args.rate, args.timing.warm_up)?;
        let mut logins = Logins::new();
        let meter = Meter::begin(run.target.pid)?;
        let due = visitors.receive(&mut logins, args.rate, args.timing.duration)?;
        run.report.verdict.add_logins(due, logins.taken);
        record(&mut run, &case, &logins, &meter.end()?);
    }
    run.finish()
}

fn record(run: &mut Run<'_>, case: &str, logins: &Logins, cost: &Cost) {
    if let Some(word) = &logins.word {
        run.report
            .warn(format!("the server closed a connection as {word}"));
    }
    let resident_mib = run.resident_mib();
    let case = run.report.case(case);
    let rate = logins.taken as f64 / cost.elapsed.as_secs_f64();
    case.figure("logins", "each s", rate);
    latency_figures(case, &logins.latency_ns);
    case.latencies(&logins.latency_ns)
        .figure("turned away and came again", "", logins.failed as f64)
        .figure("server, CPU", "us/login", cost.server_us_each(logins.taken))
        .figure("server, busy", "% of a cpu", cost.server_percent())
        .figure("server, resident", "MiB", resident_mib)
        .figure("generator, busy", "% of a cpu", cost.generator_percent());
}

impl Visitors {
    /// Has users come for `time`, waits until all are in, and answers how many came.
    fn receive(
        &mut self,
        logins: &mut Logins,
        rate: f64,
        time: Duration,
    ) -> Result<u64, BenchError> {
        let began_ns = clock::now_ns();
        let until_ns = began_ns + time.as_nanos() as u64;
        let patience_ns = until_ns + 5_000_000_000;
        let mut made = 0u64;
        loop {
            let now_ns = clock::now_ns();
            let mut due_ns = began_ns;
            for _ in 0..BEGIN_MAX {
                due_ns = began_ns + (made as f64 * 1e9 / rate) as u64;
                if due_ns > now_ns.min(until_ns) {
                    break;
                }
                made += 1;
                let client = self.free.pop().unwrap_or_else(|| {
                    self.count += 1;
                    self.count - 1
                });
                logins.begin(&mut self.clients, client, due_ns)?;
            }
            if due_ns > until_ns && (logins.taken >= made || now_ns > patience_ns) {
                return Ok(made);
            }
            logins.try_again(&mut self.clients)?;
            let wait_ns = due_ns.saturating_sub(now_ns).min(10_000_000);
            self.clients.turn(Duration::from_nanos(wait_ns), logins)?;
            for client in logins.arrived.drain(..) {
                self.clients.leave(client);
                self.leaving.push_back(client);
            }
            while let Some(&client) = self.leaving.front()
                && !self.clients.is_open(client)
            {
                self.leaving.pop_front();
                self.free.push(client);
            }
        }
    }
}
