//! `iris-bench mixed`: a day of a messenger in fast motion. Users come and go, four of five are
//! online at a time, everybody writes to random others, whether they are there or not, in messages
//! of many sizes, and asks after some others at each login. In the end all come, and everything
//! must be there.

use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;

use super::flags::{Common, Timing};
use super::run::{Run, latency_figures};
use crate::BenchError;
use crate::dialect::{Heard, Outcome};
use crate::engine::{
    Clients, End, Handler, Message, Post, Random, Recorder, Streams, Taken, Topology, clock,
    histogram,
};
use crate::measure::{Meter, microseconds};

/// How many of a hundred users are online.
const ONLINE_PERCENT: u64 = 80;
/// Of a hundred messages so many are at most so long, in bytes: short words mostly, a few pictures.
const SIZES: [(u32, u32); 5] = [(50, 64), (75, 128), (90, 512), (98, 2_048), (100, 16_384)];
/// Users that are asked after at a login.
const ASKED_AFTER: u32 = 5;
/// A user in the wanted state is looked for so often.
const TRIES: u32 = 32;
/// Events of one kind in a turn.
const EVENTS_MAX: u32 = 1_024;
/// How long everything may take to come in the end, without one more message.
const PATIENCE: Duration = Duration::from_secs(5);

/// Flags of `mixed`.
#[derive(Debug, Args)]
pub struct MixedArgs {
    /// Users.
    #[arg(long, value_name = "N", default_value = "2000", value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    users: u32,
    /// Messages a second that are due.
    #[arg(long, value_name = "N", default_value = "5000", value_parser = super::rate)]
    rate: f64,
    /// Logins and logouts a second that are due.
    #[arg(long, value_name = "N", default_value = "200", value_parser = super::rate)]
    changes: f64,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    common: Common,
}

/// Whether a user is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Away,
    Coming { due_ns: u64 },
    Online { since_ns: u64 },
    Going,
}

/// Everything but the sockets.
struct Day {
    streams: Streams,
    random: Random,
    users: Vec<Presence>,
    /// Those on their way out.
    going: Vec<u32>,
    online: u64,
    numbers: Vec<u64>,
    recorder: Recorder,
    login_ns: Histogram<u64>,
    from_inbox: u64,
    presences: u64,
    closing: Option<Box<str>>,
}

pub(super) fn run(args: &MixedArgs) -> Result<(), BenchError> {
    let mut run = Run::begin("mixed", &args.common)?;
    run.needs_inbox("mixed")?;
    run.report.setting("users", args.users);
    run.report.setting("online", format!("{ONLINE_PERCENT} %"));
    run.report.verdict.repeats_are_due = true;
    let mut clients = run.clients(args.users)?;
    let mut day = Day::new(args.users);
    run.progress.phase("the first come", None);
    day.all_come(&mut clients, u64::from(args.users) * ONLINE_PERCENT / 100)?;
    let case = format!(
        "{} messages/s, {} logins and logouts/s",
        args.rate, args.changes
    );
    for _ in 0..args.common.repeat.rounds {
        run.progress.phase(&case, None);
        day.pass(&mut clients, args, args.timing.warm_up)?;
        day.begin();
        let meter = Meter::begin(run.target.pid)?;
        day.pass(&mut clients, args, args.timing.duration)?;
        let cost = meter.end()?;
        day.recorder.end(clock::now_ns());
        record(&mut run, &case, &mut day, &cost);
    }
    run.progress.phase("all come, and take what waits", None);
    day.all_come(&mut clients, args.users.into())?;
    day.take_everything(&mut clients)?;
    let streams = &day.streams;
    let faults = streams.faults();
    run.report
        .verdict
        .add(streams.sent(), streams.refusals(), faults);
    if let Some(word) = &day.closing {
        run.report
            .warn(format!("the server closed a connection as {word}"));
    }
    run.finish()
}

fn record(run: &mut Run<'_>, name: &str, day: &mut Day, cost: &crate::measure::Cost) {
    let now_ns = clock::now_ns();
    let tally = std::mem::replace(&mut day.recorder, Recorder::begin(now_ns)).finish(now_ns);
    let seconds = cost.elapsed.as_secs_f64();
    let delivered = tally.delivered + day.from_inbox;
    let resident_mib = run.resident_mib();
    let case = run.report.case(name);
    case.figure("delivered", "msg/s", delivered as f64 / seconds)
        .figure(
            "of these from the inbox",
            "msg/s",
            day.from_inbox as f64 / seconds,
        );
    latency_figures(case, &tally.latency_ns);
    let login_us = |quantile| microseconds(day.login_ns.value_at_quantile(quantile));
    case.latencies(&tally.latency_ns)
        .figure("logins", "each s", day.login_ns.len() as f64 / seconds)
        .figure("login, p50", "us", login_us(0.5))
        .figure("login, p99", "us", login_us(0.99))
        .figure("presence told", "each s", day.presences as f64 / seconds)
        .figure("server, CPU", "us/msg", cost.server_us_each(delivered))
        .figure("server, busy", "% of a cpu", cost.server_percent())
        .figure("server, resident", "MiB", resident_mib)
        .figure("generator, busy", "% of a cpu", cost.generator_percent())
        .figure(
            "generator late, p99",
            "us",
            microseconds(tally.late_ns.value_at_quantile(0.99)),
        );
    case.intervals.extend(tally.intervals.iter().cloned());
    run.record_series(name, &tally);
}

/// So many events since a begin are due by now, at a rate.
struct Schedule {
    began_ns: u64,
    interval_ns: f64,
    made: u64,
}

impl Schedule {
    fn at(rate: f64, began_ns: u64) -> Self {
        Self {
            began_ns,
            interval_ns: 1e9 / rate,
            made: 0,
        }
    }

    fn next_ns(&self) -> u64 {
        self.began_ns + (self.made as f64 * self.interval_ns) as u64
    }
}

impl Day {
    fn new(users: u32) -> Self {
        Self {
            streams: Streams::new(Topology::Mesh { users }),
            random: Random::seeded(users.into()),
            users: vec![Presence::Away; users as usize],
            going: Vec::new(),
            online: 0,
            numbers: vec![0; users as usize],
            recorder: Recorder::begin(clock::now_ns()),
            login_ns: histogram(),
            from_inbox: 0,
            presences: 0,
            closing: None,
        }
    }

    fn begin(&mut self) {
        self.recorder = Recorder::begin(clock::now_ns());
        self.login_ns.reset();
        self.from_inbox = 0;
        self.presences = 0;
    }

    /// Has users come until `count` are online; clients are opened in the order of their numbers.
    fn all_come(&mut self, clients: &mut Clients, count: u64) -> Result<(), BenchError> {
        for user in 0..count as u32 {
            while self.users[user as usize] == Presence::Going {
                clients.turn(Duration::from_millis(1), self)?;
                self.settle_leavers(clients);
            }
            if self.users[user as usize] == Presence::Away {
                self.come(clients, user, clock::now_ns())?;
            }
            if user % 64 == 0 {
                clients.turn(Duration::ZERO, self)?;
            }
        }
        let began = Instant::now();
        while self.online < count {
            clients.turn(Duration::from_millis(10), self)?;
            if began.elapsed() > 4 * PATIENCE {
                return Err(BenchError::Unanswered("logging in"));
            }
        }
        Ok(())
    }

    /// Waits for what is still on its way.
    fn take_everything(&mut self, clients: &mut Clients) -> Result<(), BenchError> {
        let (mut seen, mut since) = (0, Instant::now());
        while self.streams.in_flight() > 0 && since.elapsed() < PATIENCE {
            clients.turn(Duration::from_millis(20), self)?;
            if self.streams.delivered() != seen {
                (seen, since) = (self.streams.delivered(), Instant::now());
            }
        }
        Ok(())
    }

    /// Lets `time` pass.
    fn pass(
        &mut self,
        clients: &mut Clients,
        args: &MixedArgs,
        time: Duration,
    ) -> Result<(), BenchError> {
        let began_ns = clock::now_ns();
        let until_ns = began_ns + time.as_nanos() as u64;
        let mut messages = Schedule::at(args.rate, began_ns);
        let mut changes = Schedule::at(args.changes, began_ns);
        loop {
            let now_ns = clock::now_ns();
            if now_ns >= until_ns {
                return Ok(());
            }
            for _ in 0..EVENTS_MAX {
                let due_ns = messages.next_ns();
                if due_ns > now_ns {
                    break;
                }
                messages.made += 1;
                self.write(clients.post(), due_ns, now_ns);
            }
            for _ in 0..EVENTS_MAX {
                let due_ns = changes.next_ns();
                if due_ns > now_ns {
                    break;
                }
                changes.made += 1;
                self.change(clients, due_ns)?;
            }
            self.settle_leavers(clients);
            let next_ns = messages.next_ns().min(changes.next_ns()).min(until_ns);
            let wait_ns = next_ns.saturating_sub(clock::now_ns());
            clients.turn(Duration::from_nanos(wait_ns), self)?;
        }
    }

    /// A user who is online writes to a random other one.
    fn write(&mut self, post: &mut Post, due_ns: u64, now_ns: u64) {
        let is_online = |presence| matches!(presence, Presence::Online { .. });
        let Some(sender) = self.find(is_online) else {
            return;
        };
        let nth = self.random.below(self.streams.readers_each());
        let (message, reader) = self.streams.send(sender, nth, due_ns);
        let drawn = self.random.below(100);
        let size = SIZES.iter().find(|(below, _)| drawn < *below);
        let bytes = size.map_or(Message::BYTES_MIN, |(_, bytes)| *bytes);
        let number = &mut self.numbers[sender as usize];
        *number = due_ns.max(*number + 1);
        post.send(sender, *number, reader, &message, bytes);
        self.recorder.wrote(due_ns, now_ns);
    }

    /// One user comes or goes, so that the share of those online stays.
    fn change(&mut self, clients: &mut Clients, due_ns: u64) -> Result<(), BenchError> {
        let all = self.users.len() as u64;
        if self.online * 100 >= all * ONLINE_PERCENT {
            let is_online = |presence| matches!(presence, Presence::Online { .. });
            if let Some(user) = self.find(is_online) {
                self.users[user as usize] = Presence::Going;
                self.going.push(user);
                self.online -= 1;
                clients.leave(user);
            }
        } else {
            let is_away = |presence| presence == Presence::Away;
            // Clients are opened in the order of their numbers.
            let known = clients.count();
            let user = if u64::from(known) < all {
                Some(known)
            } else {
                self.find(is_away)
            };
            if let Some(user) = user {
                self.come(clients, user, due_ns)?;
            }
        }
        Ok(())
    }

    fn come(&mut self, clients: &mut Clients, user: u32, due_ns: u64) -> Result<(), BenchError> {
        self.users[user as usize] = Presence::Coming { due_ns };
        clients.connect(user, user)
    }

    /// Those whose connection has ended from both sides are away.
    fn settle_leavers(&mut self, clients: &Clients) {
        let Self { going, users, .. } = self;
        going.retain(|user| {
            let is_open = clients.is_open(*user);
            if !is_open {
                users[*user as usize] = Presence::Away;
            }
            is_open
        });
    }

    fn find(&mut self, wanted: impl Fn(Presence) -> bool) -> Option<u32> {
        let count = self.users.len() as u32;
        (0..TRIES).find_map(|_| {
            let user = self.random.below(count);
            wanted(self.users[user as usize]).then_some(user)
        })
    }
}

impl Handler for Day {
    fn heard(&mut self, client: u32, heard: Heard, bytes: &[u8], now_ns: u64, post: &mut Post) {
        match heard {
            Heard::LoggedIn { .. } => {
                if let Presence::Coming { due_ns } = self.users[client as usize] {
                    let latency = now_ns.saturating_sub(due_ns);
                    self.login_ns.saturating_record(latency);
                    self.users[client as usize] = Presence::Online { since_ns: now_ns };
                    self.online += 1;
                }
                for _ in 0..ASKED_AFTER {
                    let about = self.random.below(self.users.len() as u32);
                    post.ask_presence(client, about);
                }
            }
            Heard::Delivered { payload } => {
                let Some(message) = bytes.get(payload).and_then(Message::decode) else {
                    self.streams.stray();
                    return;
                };
                if self.streams.took(client, &message) == Taken::New {
                    match self.users[client as usize] {
                        Presence::Online { since_ns } if since_ns <= message.due_ns => {
                            self.recorder.took(message.due_ns, now_ns);
                        }
                        _ => self.from_inbox += 1,
                    }
                }
            }
            Heard::Answered {
                outcome: Outcome::Refused(_),
                ..
            } => self.streams.refused(client),
            Heard::Answered { .. } => {}
            Heard::Presence => self.presences += 1,
            Heard::Closing(word) => self.closing = Some(word),
        }
    }

    fn ended(&mut self, client: u32, end: End) {
        if let Presence::Online { .. } = self.users[client as usize] {
            self.online -= 1;
        }
        self.users[client as usize] = Presence::Away;
        match end {
            End::Peer => self.streams.ended(),
            End::Garbled => self.streams.stray(),
        }
    }
}
