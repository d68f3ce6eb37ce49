//! Traffic between clients that are all logged in, in an open or a closed loop: see [`Pace`].
//!
//! Owner: the engine's thread. Both ends of every message are here, so what was sent and not
//! delivered is known exactly.

mod pace;
mod state;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::{Duration, Instant};

pub use pace::Pace;
use state::State;

use super::clients::Clients;
use super::clock;
use super::recorder::{Recorder, Tally};
use super::sizes::Sizes;
use super::streams::{Faults, Streams, Topology};
use crate::BenchError;

/// How long nothing may happen before what is in flight is given up.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Logins that are waited for together.
const LOGINS_AT_ONCE: u64 = 250;

/// Clients, and what they send each other.
pub struct Traffic {
    clients: Clients,
    state: State,
}

impl Traffic {
    /// Traffic among clients that are logged in as the users of `topology`, client n as user n.
    /// `sizes`: of the messages, in bytes.
    #[must_use]
    pub fn new(clients: Clients, topology: Topology, sizes: impl Into<Sizes>) -> Self {
        let state = State::new(topology, sizes.into());
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
    ///
    /// # Panics
    /// If users are to reply who send to nobody.
    pub fn start_total(&mut self, pace: Pace, total: u64) {
        self.state.start(pace, total, self.clients.post());
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
            let gather = self.state.gather();
            self.clients.turn_of(gather, wait, &mut self.state)?;
        }
    }

    /// Measures no more.
    pub fn end(&mut self) {
        self.state.recorder.end(clock::now_ns());
    }

    /// Sends no more, waits for what is in flight as long as something comes, and answers what was
    /// recorded.
    ///
    /// # Errors
    /// See [`Clients::turn`].
    pub fn finish(&mut self) -> Result<Tally, BenchError> {
        self.state.left = 0;
        self.run_until(|traffic| traffic.state.streams.watched_in_flight() == 0)?;
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
            } else if since.elapsed() > SILENCE_MAX {
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
