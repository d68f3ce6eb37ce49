//! `iris-bench storm`: everybody logs in at the same instant; then every connection is lost at the
//! same instant, and all come back at once.

use std::time::Duration;

use clap::Args;

use super::logins::Logins;
use super::run::{Common, Run, latency_figures};
use crate::BenchError;
use crate::engine::Clients;
use crate::measure::Meter;

/// Flags of `storm`.
#[derive(Debug, Args)]
pub struct StormArgs {
    /// Users.
    #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    users: u32,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &StormArgs) -> Result<(), BenchError> {
    let mut run = Run::begin("storm", &args.common)?;
    run.report.setting("users", args.users);
    for _ in 0..args.common.repeat.rounds {
        let mut clients = run.clients(args.users)?;
        storm(&mut run, &mut clients, "login storm", args.users)?;
        for client in 0..args.users {
            clients.close(client);
        }
        storm(&mut run, &mut clients, "reconnect storm", args.users)?;
    }
    run.finish()
}

/// Has all users log in at once, and adds the round.
pub(super) fn storm(
    run: &mut Run<'_>,
    clients: &mut Clients,
    name: &str,
    users: u32,
) -> Result<(), BenchError> {
    run.progress.phase(name, Some(users.into()));
    let mut logins = Logins::new();
    let meter = Meter::begin(run.target.pid)?;
    let progress = &run.progress;
    logins.all_at_once(clients, users, |taken| progress.at(taken))?;
    let cost = meter.end()?;
    run.report.verdict.add_logins(users.into(), logins.taken);
    if let Some(word) = &logins.word {
        run.report
            .warn(format!("the server closed a connection as {word}"));
    }
    let resident_mib = run.resident_mib();
    let case = run.report.case(name);
    let elapsed = cost.elapsed.as_secs_f64();
    case.figure("logged in", "users", logins.taken as f64)
        .figure("until all were in", "ms", elapsed * 1e3)
        .figure("logins", "each s", logins.taken as f64 / elapsed);
    latency_figures(case, &logins.latency_ns);
    case.latencies(&logins.latency_ns)
        .figure("turned away and came again", "", logins.failed as f64)
        .figure("server, CPU", "us/login", cost.server_us_each(logins.taken))
        .figure("server, busy", "% of a cpu", cost.server_percent())
        .figure("server, resident", "MiB", resident_mib)
        .figure("generator, busy", "% of a cpu", cost.generator_percent());
    // What is heard late is heard before the next storm.
    clients.turn(Duration::from_millis(100), &mut logins)
}
