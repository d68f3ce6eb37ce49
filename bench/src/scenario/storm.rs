//! `iris-bench storm`: everybody logs in at the same instant; then every connection is lost at the
//! same instant, and all come back at once: cut by the clients, and by a gateway that is killed or
//! drained and started again, where that is ours.

use std::time::{Duration, Instant};

use clap::Args;

use super::flags::Common;
use super::logins::Logins;
use super::run::{Run, latency_figures};
use super::target::Ending;
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
        let killed = "reconnect storm, gateway killed and started again";
        cut_by_the_server(&mut run, &mut clients, killed, args.users, Ending::Killed)?;
        let drained = "reconnect storm, gateway drained and started again";
        cut_by_the_server(&mut run, &mut clients, drained, args.users, Ending::Drained)?;
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

/// Ends the gateway and starts it again, if it is ours, has all users come back by themselves, and
/// adds the round. A login counts from when the gateway was told to end.
fn cut_by_the_server(
    run: &mut Run<'_>,
    clients: &mut Clients,
    name: &str,
    users: u32,
    ending: Ending,
) -> Result<(), BenchError> {
    let Some(restart) = run.target.restart(ending)? else {
        return Ok(());
    };
    run.progress.phase(name, Some(users.into()));
    let (mut logins, began) = (Logins::new(), Instant::now());
    let mut away = None;
    let progress = &run.progress;
    let is_back = || {
        let over = restart.is_over();
        if over && away.is_none() {
            away = Some(began.elapsed());
        }
        over
    };
    logins.all_again(clients, users, is_back, |taken| progress.at(taken))?;
    let elapsed = began.elapsed().as_secs_f64();
    run.restarted(restart)?;
    run.report.verdict.add_logins(users.into(), logins.taken);
    let away_ms = away.map_or(elapsed, |away| away.as_secs_f64()) * 1e3;
    // Each was cut off once; that is what the storm is about.
    let turned_away = logins.failed.saturating_sub(users.into());
    let case = run.report.case(name);
    case.figure("logged in", "users", logins.taken as f64)
        .figure("until the gateway was ready", "ms", away_ms)
        .figure("until all were in", "ms", elapsed * 1e3);
    latency_figures(case, &logins.latency_ns);
    case.latencies(&logins.latency_ns)
        .figure("turned away and came again", "", turned_away as f64);
    // What is heard late is heard before the next storm.
    clients.turn(Duration::from_millis(100), &mut logins)
}
