//! Traffic between clients that are all logged in, in an open or a closed loop.
//!
//! *Open*: messages are due at an even rate, whatever the server does, and each carries the time
//! it was due. A server that stalls is charged for every message that was due meanwhile; that is
//! what "no coordinated omission" means. *Closed*: each sender keeps a number of messages in
//! flight and makes the next when one of them has come; this finds the highest throughput, and its
//! latency is that of full queues.
//!
//! Owner: the engine's thread. Both ends of every message are here, so what was sent and not
//! delivered is known exactly.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::clients::{Clients, End, Handler};
use super::clock;
use super::message::Message;
use super::post::Post;
use super::random::Random;
use super::recorder::{Recorder, Tally};
use super::streams::{Faults, Streams, Taken, Topology};
use crate::BenchError;
use crate::dialect::{Heard, Outcome};

/// How long the last messages in flight may take to come.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// As long as so many are in flight, an open loop makes no more: it gets late instead, which its
/// latencies show, and its memory stays in bounds.
const IN_FLIGHT_MAX: u64 = 1 << 20;
/// Logins that are waited for together.
const LOGINS_AT_ONCE: u64 = 250;
/// Messages made in a turn of an open loop.
const MAKE_MAX: u32 = 4096;

/// How messages follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Closed: so many messages of each sender are in flight.
    Window(u32),
    /// Closed: so many messages of each sender are unanswered, whether they have come or not.
    Unanswered(u32),
    /// Open: so many messages a second are due, of all senders together.
    Rate(f64),
}

/// Clients, and what they send each other.
pub struct Traffic {
    clients: Clients,
    state: State,
}

/// What is not the clients', so that these may call it.
struct State {
    streams: Streams,
    message_bytes: u32,
    random: Random,
    /// The last number each sender gave to a message.
    numbers: Vec<u64>,
    /// Which of its readers each sender wrote to last, where that goes in turn.
    turns: Vec<u32>,
    pace: Pace,
    /// Messages still to be made.
    left: u64,
    /// Answers that took a message.
    answered: u64,
    logins: u64,
    /// By client: whether it is logged in, and how much waited then, if the server told.
    sessions: Vec<Option<Option<u64>>>,
    /// Open loop: when its count began, and how many were made since.
    schedule_ns: u64,
    made: u64,
    recorder: Recorder,
    closing: Option<Box<str>>,
}

impl Traffic {
    /// Traffic among clients that are logged in as the users of `topology`, client n as user n.
    #[must_use]
    pub fn new(clients: Clients, topology: Topology, message_bytes: u32) -> Self {
        let state = State {
            streams: Streams::new(topology),
            message_bytes,
            random: Random::seeded(topology.users().into()),
            numbers: vec![0; topology.senders().len()],
            turns: vec![0; topology.senders().len()],
            pace: Pace::Window(1),
            left: 0,
            answered: 0,
            logins: 0,
            sessions: vec![None; topology.users() as usize],
            schedule_ns: 0,
            made: 0,
            recorder: Recorder::begin(clock::now_ns()),
            closing: None,
        };
        Self { clients, state }
    }

    /// Records the latencies of the first `senders` only, and waits only for their messages; to be
    /// said before anything is sent.
    pub fn watch(&mut self, senders: u32) {
        self.state.streams.watch(senders);
    }

    /// Begins to send, until it is stopped by [`Self::finish`].
    pub fn start(&mut self, pace: Pace) {
        self.start_total(pace, u64::MAX);
    }

    /// Begins to send `total` messages.
    pub fn start_total(&mut self, pace: Pace, total: u64) {
        let state = &mut self.state;
        state.pace = pace;
        state.left = total;
        state.schedule_ns = clock::now_ns();
        state.made = 0;
        if let Pace::Window(window) | Pace::Unanswered(window) = pace {
            // In turn, so that a small total is spread over all.
            for _ in 0..window {
                for sender in state.streams.topology().senders() {
                    let now_ns = clock::now_ns();
                    state.send(sender, now_ns, now_ns, self.clients.post());
                }
            }
        }
    }

    /// Begins to measure: what was recorded before was the warm-up.
    pub fn begin(&mut self) {
        self.state.recorder = Recorder::begin(clock::now_ns());
    }

    /// Runs for `time`.
    ///
    /// # Errors
    /// See [`Clients::turn`].
    pub fn run(&mut self, time: Duration) -> Result<(), BenchError> {
        let until_ns = clock::now_ns() + time.as_nanos() as u64;
        loop {
            let now_ns = clock::now_ns();
            if now_ns >= until_ns {
                return Ok(());
            }
            let due_ns = self.state.make(now_ns, self.clients.post());
            let wait_ns = due_ns.min(until_ns).saturating_sub(now_ns);
            let wait = Duration::from_nanos(wait_ns);
            self.clients.turn(wait, &mut self.state)?;
        }
    }

    /// Measures no more.
    pub fn end(&mut self) {
        self.state.recorder.end(clock::now_ns());
    }

    /// Sends no more, waits for what is in flight, and answers what was recorded.
    ///
    /// # Errors
    /// See [`Clients::turn`].
    pub fn finish(&mut self) -> Result<Tally, BenchError> {
        self.state.left = 0;
        let deadline = Instant::now() + DRAIN_MAX;
        while self.state.streams.watched_in_flight() > 0 && Instant::now() < deadline {
            self.clients
                .turn(Duration::from_millis(50), &mut self.state)?;
        }
        Ok(self.take())
    }

    /// What was recorded up to now; it begins afresh.
    pub fn take(&mut self) -> Tally {
        let now_ns = clock::now_ns();
        let next = Recorder::begin(now_ns);
        std::mem::replace(&mut self.state.recorder, next).finish(now_ns)
    }

    /// Runs until `done` says so, which is asked after every turn. `false` if nothing was
    /// delivered, answered or logged in for a while before that.
    ///
    /// # Errors
    /// See [`Clients::turn`].
    pub fn run_until(&mut self, mut done: impl FnMut(&Self) -> bool) -> Result<bool, BenchError> {
        let (mut seen, mut since) = (0, Instant::now());
        while !done(self) {
            let due_ns = self.state.make(clock::now_ns(), self.clients.post());
            let wait_ns = due_ns.saturating_sub(clock::now_ns());
            let wait = Duration::from_nanos(wait_ns).min(Duration::from_millis(50));
            self.clients.turn(wait, &mut self.state)?;
            let now = self.state.streams.delivered() + self.state.answered + self.state.logins;
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() > DRAIN_MAX {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Logs some clients in, a batch at a time, and goes on with everything else meanwhile. `false`
    /// if they were not answered.
    ///
    /// # Errors
    /// See [`Clients::connect`] and [`Clients::turn`].
    pub fn log_in(&mut self, clients: Range<u32>) -> Result<bool, BenchError> {
        let before = self.state.logins;
        for (count, client) in (1..).zip(clients.clone()) {
            self.clients.connect(client, client)?;
            let whole = count % LOGINS_AT_ONCE == 0 || client + 1 == clients.end;
            if whole && !self.run_until(|traffic| traffic.logins() - before >= count)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Logs some clients out and waits until they are gone.
    ///
    /// # Errors
    /// See [`Clients::turn`].
    pub fn log_out(&mut self, clients: Range<u32>) -> Result<(), BenchError> {
        for client in clients.clone() {
            self.leave(client);
        }
        let gone = |traffic: &Self| {
            clients
                .clone()
                .all(|client| !traffic.clients.is_open(client))
        };
        self.run_until(gone)?;
        Ok(())
    }

    /// Logs one client out, see [`Clients::leave`].
    pub fn leave(&mut self, client: u32) {
        self.state.sessions[client as usize] = None;
        self.clients.leave(client);
    }

    /// Whether a client's login was taken.
    #[must_use]
    pub fn is_logged_in(&self, client: u32) -> bool {
        self.state.sessions[client as usize].is_some()
    }

    /// How many messages waited at a client's login, where the server tells.
    #[must_use]
    pub fn waiting(&self, client: u32) -> Option<u64> {
        self.state.sessions[client as usize].flatten()
    }

    /// Messages that were sent to a reader of a fan-out and have not come.
    #[must_use]
    pub fn owed_to(&self, reader: u32) -> u32 {
        let senders = self.state.streams.topology().senders();
        self.state.streams.owed(reader - senders.end)
    }

    /// The clients, to connect and close some of them.
    pub fn clients(&mut self) -> &mut Clients {
        &mut self.clients
    }

    /// Whether everything was made that [`Self::start_total`] asked for.
    #[must_use]
    pub fn is_all_made(&self) -> bool {
        self.state.left == 0
    }

    /// Sends that were answered as delivered or stored, since the very start.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.state.answered
    }

    /// Logins that were taken, since the very start.
    #[must_use]
    pub fn logins(&self) -> u64 {
        self.state.logins
    }

    /// What went wrong since the very start; what is in flight counts as lost.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.state.streams.faults()
    }

    /// The ledger since the very start.
    #[must_use]
    pub fn streams(&self) -> &Streams {
        &self.state.streams
    }

    /// The server's last word, if it gave one.
    #[must_use]
    pub fn last_word(&self) -> Option<&str> {
        self.state.closing.as_deref()
    }
}

impl State {
    /// Makes the messages of an open loop that are due, and answers when the next one is.
    fn make(&mut self, now_ns: u64, post: &mut Post) -> u64 {
        let Pace::Rate(rate) = self.pace else {
            return u64::MAX;
        };
        let interval_ns = 1e9 / rate;
        let senders = self.streams.topology().senders();
        for _ in 0..MAKE_MAX {
            let due_ns = self.schedule_ns + (self.made as f64 * interval_ns) as u64;
            if due_ns > now_ns {
                return due_ns;
            }
            if self.left == 0 || self.streams.in_flight() >= IN_FLIGHT_MAX {
                return u64::MAX;
            }
            self.made += 1;
            let sender = self.random.below(senders.end);
            self.send(sender, due_ns, now_ns, post);
        }
        now_ns
    }

    fn send(&mut self, sender: u32, due_ns: u64, now_ns: u64, post: &mut Post) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let nth = match self.streams.topology() {
            Topology::FanOut { readers_each, .. } => {
                let turn = &mut self.turns[sender as usize];
                *turn = (*turn + 1) % readers_each;
                *turn
            }
            _ => self.random.below(self.streams.readers_each()),
        };
        let (message, reader) = self.streams.send(sender, nth, due_ns);
        let number = &mut self.numbers[sender as usize];
        *number = due_ns.max(*number + 1);
        post.send(sender, *number, reader, &message, self.message_bytes);
        self.recorder.wrote(due_ns, now_ns);
    }
}

impl Handler for State {
    fn heard(&mut self, client: u32, heard: Heard, bytes: &[u8], now_ns: u64, post: &mut Post) {
        match heard {
            Heard::Delivered { payload } => {
                let Some(message) = bytes.get(payload).and_then(Message::decode) else {
                    self.streams.stray();
                    return;
                };
                if self.streams.took(client, &message) == Taken::New {
                    let sender = self.streams.sender(message.stream);
                    if self.streams.is_watched(sender) {
                        self.recorder.took(message.due_ns, now_ns);
                    }
                    if let Pace::Window(_) = self.pace {
                        self.send(sender, now_ns, now_ns, post);
                    }
                }
            }
            Heard::Answered { number, outcome } => {
                let refused = matches!(outcome, Outcome::Refused(_));
                if refused {
                    self.streams.refused(client);
                } else {
                    self.answered += 1;
                    if self.streams.is_watched(client) {
                        self.recorder.answered(number, now_ns);
                    }
                }
                if matches!(self.pace, Pace::Unanswered(_))
                    || refused && matches!(self.pace, Pace::Window(_))
                {
                    self.send(client, now_ns, now_ns, post);
                }
            }
            Heard::Closing(word) => self.closing = Some(word),
            Heard::LoggedIn { waiting } => {
                self.logins += 1;
                self.sessions[client as usize] = Some(waiting);
            }
            Heard::Presence => {}
        }
    }

    fn ended(&mut self, _: u32, end: End) {
        match end {
            End::Peer => self.streams.ended(),
            End::Garbled => self.streams.stray(),
        }
    }
}
