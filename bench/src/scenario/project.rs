//! `iris-bench project`: how many machines a number of users would need, and what binds: from the
//! cost of a message, a login and a connection as measured here and now, and from assumptions that
//! are printed.
//!
//! Invariant: every number that goes into the projection is a figure of this run or a flag.

use clap::Args;

use super::flags::{Common, Timing};
use super::inbox::{drain, store};
use super::logins::Logins;
use super::run::Run;
use super::{idle, storm};
use crate::BenchError;
use crate::engine::{Pace, Topology, Traffic};
use crate::report::number;

/// Users of the loads that are measured.
const USERS: u32 = 1_000;
/// In flight of each, to find the ceiling.
const WINDOW: u32 = 16;
/// Messages that are stored and drained.
const STORED: u64 = 100_000;
/// Of a second.
const DAY_SECONDS: f64 = 86_400.0;

/// Flags of `project`.
#[derive(Debug, Args)]
pub struct ProjectArgs {
    #[command(flatten)]
    assumptions: Assumptions,
    /// Users that are logged in to measure their memory.
    #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(2_000..=1_000_000))]
    idle_users: u32,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    common: Common,
}

/// What is assumed of users and machines.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Assumptions")]
struct Assumptions {
    /// Users, such as 1e9.
    #[arg(long, value_name = "N", value_parser = positive)]
    users: f64,
    /// Of a hundred users, so many are online at the busiest time.
    #[arg(long, value_name = "PERCENT", default_value = "20", value_parser = percent)]
    online: f64,
    /// Messages that a user sends in a day.
    #[arg(long, value_name = "N", default_value = "40", value_parser = positive)]
    messages_per_day: f64,
    /// Logins of a user in a day.
    #[arg(long, value_name = "N", default_value = "10", value_parser = positive)]
    logins_per_day: f64,
    /// How much busier the busiest time is than the day's mean.
    #[arg(long, value_name = "N", default_value = "4", value_parser = positive)]
    peak: f64,
    /// Of a hundred messages, so many are for a user who is away.
    #[arg(long, value_name = "PERCENT", default_value = "30", value_parser = percent)]
    away: f64,
    /// Days that a stored message waits, on the mean.
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive)]
    waits_days: f64,
    /// Bytes of a message.
    #[arg(long, value_name = "N", default_value = "200", value_parser = super::message_bytes)]
    bytes: u32,
    /// Cores of a machine.
    #[arg(long, value_name = "N", default_value = "32", value_parser = positive)]
    cores: f64,
    /// A message on a machine of many cores costs so much more than on one: the lanes. `cores`
    /// measures it.
    #[arg(long, value_name = "N", default_value = "1.3", value_parser = positive)]
    crossing: f64,
    /// Memory of a machine, in GiB.
    #[arg(long, value_name = "N", default_value = "128", value_parser = positive)]
    memory_gib: f64,
    /// Network of a machine, each way, in Gbit/s.
    #[arg(long, value_name = "N", default_value = "25", value_parser = positive)]
    network_gbit: f64,
    /// What a machine's disk takes, in MB/s.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = positive)]
    disk_mb_per_s: f64,
    /// What a machine's disk holds, in TB.
    #[arg(long, value_name = "N", default_value = "4", value_parser = positive)]
    disk_tb: f64,
    /// A message's bytes on the wire besides its payload, each way: headers of ours and of TCP/IP,
    /// its acknowledgement, its answer.
    #[arg(long, value_name = "N", default_value = "200", value_parser = positive)]
    wire_bytes: f64,
    /// A message's bytes on disk besides its payload.
    #[arg(long, value_name = "N", default_value = "120", value_parser = positive)]
    record_bytes: f64,
    /// How much of each resource is planned for at the busiest time.
    #[arg(long, value_name = "PERCENT", default_value = "60", value_parser = percent)]
    utilisation: f64,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
struct Measured {
    online_us: f64,
    stored_us: f64,
    drained_us: f64,
    login_us: f64,
    written_bytes: f64,
    user_bytes: f64,
}

/// The machines that one resource asks for.
type Need = (&'static str, f64);

pub(super) fn run(args: &ProjectArgs) -> Result<(), BenchError> {
    args.common.target.must_be_ours("project")?;
    let mut run = Run::begin("project", &args.common)?;
    run.needs_inbox("project")?;
    run.report.setting("message bytes", args.assumptions.bytes);
    let measured = measure(&mut run, args)?;
    let assumed = &args.assumptions;
    let needs = needs(assumed, &measured);
    let Some(&(binding, most)) = needs.iter().max_by(|a, b| a.1.total_cmp(&b.1)) else {
        return run.finish();
    };
    let machines = most.ceil();
    run.report.headline = Some(format!(
        "{} users need {} machines of {} cores and {} GiB; {binding} binds",
        number(assumed.users),
        number(machines),
        assumed.cores,
        assumed.memory_gib
    ));
    let case = run.report.case("machines, by resource");
    for (resource, machines) in needs {
        case.figure(resource, "machines", machines);
    }
    let (rate, online) = (assumed.peak_messages(), assumed.users_online());
    run.report
        .case("one machine then has, at the busiest time")
        .figure("users online", "users", online / machines)
        .figure("messages", "each s", rate / machines)
        .figure("logins", "each s", assumed.peak_logins() / machines);
    for note in [
        "the figures are of one core, this machine and loopback; a real network card and other \
         processors differ",
        "cost is taken to grow in step with load, users are spread evenly over the machines, and \
         messages between machines are taken to cost nothing: Iris is one machine today",
    ] {
        run.report.warn(note);
    }
    run.finish()
}

/// Measures all that the projection needs, each on a gateway of its own.
fn measure(run: &mut Run<'_>, args: &ProjectArgs) -> Result<Measured, BenchError> {
    const ONLINE: &str = "online, at half of the ceiling";
    let bytes = args.assumptions.bytes;
    let topology = Topology::Mesh { users: USERS };
    let clients = run.open_clients(USERS)?;
    let mut traffic = Traffic::new(clients, topology, bytes);
    let closed = Pace::Window(WINDOW);
    let (tally, _) = run.measure("finding the ceiling", &mut traffic, closed, &args.timing)?;
    let ceiling = tally.delivered as f64 / args.timing.duration.as_secs_f64();
    let half = Pace::Rate((ceiling / 2.0).max(1.0));
    for _ in 0..args.common.repeat.rounds {
        run.round(ONLINE, &mut traffic, half, &args.timing)?;
    }
    run.settle(&traffic);
    drop(traffic);

    let topology = Topology::FanOut {
        senders: USERS / 10,
        readers_each: 9,
    };
    let clients = run.clients(topology.users())?;
    let mut traffic = Traffic::new(clients, topology, bytes);
    traffic.log_in(topology.senders())?;
    let written = run.target.written_bytes();
    for _ in 0..args.common.repeat.rounds {
        store(run, &mut traffic, "stored while away", 64, STORED)?;
        let readers = topology.senders().end..topology.users();
        drain(run, &mut traffic, "drained", readers)?;
    }
    let written = run.target.written_bytes().zip(written);
    let stored = STORED * u64::from(args.common.repeat.rounds);
    run.settle(&traffic);
    drop(traffic);

    let mut clients = run.clients(USERS)?;
    for _ in 0..args.common.repeat.rounds {
        storm::storm(run, &mut clients, "login", USERS)?;
        (0..USERS).for_each(|client| clients.close(client));
    }
    clients.turn(std::time::Duration::from_millis(100), &mut Logins::new())?;
    drop(clients);

    for _ in 0..args.common.repeat.rounds {
        run.go_on_with(args.common.target.ready()?)?;
        idle::measure(run, args.idle_users, idle::SETTLE)?;
    }
    let of = |case: &str, figure: &str| run.report.median_of(case, figure).unwrap_or(0.0);
    let cpu = |case: &str| of(case, "server, CPU");
    Ok(Measured {
        online_us: cpu(ONLINE),
        stored_us: cpu("stored while away"),
        drained_us: cpu("drained"),
        login_us: cpu("login"),
        written_bytes: written.map_or(0.0, |(after, before)| {
            (after - before) as f64 / stored as f64
        }),
        user_bytes: of(idle::CASE, idle::RESIDENT) + of(idle::CASE, idle::KERNEL),
    })
}

impl Assumptions {
    fn peak_messages(&self) -> f64 {
        self.users * self.messages_per_day / DAY_SECONDS * self.peak
    }

    fn peak_logins(&self) -> f64 {
        self.users * self.logins_per_day / DAY_SECONDS * self.peak
    }

    fn users_online(&self) -> f64 {
        self.users * self.online / 100.0
    }
}

/// Machines that each resource asks for, by itself.
fn needs(assumed: &Assumptions, measured: &Measured) -> [Need; 5] {
    let planned = assumed.utilisation / 100.0;
    let away = assumed.away / 100.0;
    let messages = assumed.peak_messages();
    let message_us =
        (1.0 - away) * measured.online_us + away * (measured.stored_us + measured.drained_us);
    let cpu_us = messages * message_us * assumed.crossing
        + assumed.peak_logins() * measured.login_us * assumed.crossing;
    let memory_bytes = assumed.users_online() * measured.user_bytes;
    let network_bits = messages * (f64::from(assumed.bytes) + assumed.wire_bytes) * 8.0;
    let written_bytes = messages * away * measured.written_bytes;
    let waiting = assumed.users * assumed.messages_per_day * away * assumed.waits_days;
    let held_bytes = waiting * (f64::from(assumed.bytes) + assumed.record_bytes);
    let gib = f64::from(1 << 30);
    [
        ("CPU", cpu_us / (assumed.cores * 1e6 * planned)),
        (
            "memory",
            memory_bytes / (assumed.memory_gib * gib * planned),
        ),
        (
            "network",
            network_bits / (assumed.network_gbit * 1e9 * planned),
        ),
        (
            "disk writes",
            written_bytes / (assumed.disk_mb_per_s * 1e6 * planned),
        ),
        (
            "disk space",
            held_bytes / (assumed.disk_tb * 1e12 * planned),
        ),
    ]
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number <= 1e12 => Ok(number),
        _ => Err(format!("{text:?} is no number above 0, at most 1e12")),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err(format!("{text:?} is no percentage above 0, at most 100")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSUMED: Assumptions = Assumptions {
        users: 86_400_000.0,
        online: 10.0,
        messages_per_day: 10.0,
        logins_per_day: 1.0,
        peak: 2.0,
        away: 50.0,
        waits_days: 1.0,
        bytes: 100,
        cores: 10.0,
        crossing: 2.0,
        memory_gib: 1.0,
        network_gbit: 0.032,
        disk_mb_per_s: 1.0,
        disk_tb: 0.0864,
        wire_bytes: 100.0,
        record_bytes: 100.0,
        utilisation: 50.0,
    };

    const MEASURED: Measured = Measured {
        online_us: 10.0,
        stored_us: 20.0,
        drained_us: 10.0,
        login_us: 100.0,
        written_bytes: 500.0,
        user_bytes: 1_073.741_824,
    };

    #[test]
    fn each_resource_asks_for_what_follows_from_its_figures() {
        // 20,000 messages and 2,000 logins a second at the busiest time.
        let expected = [
            // (20,000 x 20 us + 2,000 x 100 us) x 2, of 10 cores, half of each.
            ("CPU", 0.24),
            // 8,640,000 online.
            ("memory", 17.28),
            // 20,000 x 200 bytes = 32 Mbit/s, of which half may be used.
            ("network", 2.0),
            // 10,000 x 500 bytes = 5 MB/s.
            ("disk writes", 10.0),
            // 432,000,000 messages of 200 bytes.
            ("disk space", 2.0),
        ];
        for ((resource, machines), (name, number)) in
            needs(&ASSUMED, &MEASURED).iter().zip(expected)
        {
            assert_eq!(*resource, name);
            assert!((machines - number).abs() < 1e-6, "{name}: {machines}");
        }
    }
}
