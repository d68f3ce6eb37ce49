//! Logins by the thousand: from due to the server's consent, and what was turned away.
//!
//! Owner: the scenario. Invariant: a login that failed is tried again, and its latency still
//! counts from when it was first due.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::BenchError;
use crate::dialect::Heard;
use crate::engine::{Clients, End, Handler, Post, clock, histogram};

/// Connections begun between two turns: so many hold a descriptor of the process.
const BEGIN_MAX: u32 = 64;
/// Before a login that failed is tried again, in ns.
const AGAIN_AFTER_NS: u64 = 200_000_000;
/// Without one more login for this long, in ns, the rest are given up.
const PATIENCE_NS: u64 = 10_000_000_000;

/// Logins under way.
#[derive(Debug)]
pub(super) struct Logins {
    /// By client: when its login was due.
    due_ns: Vec<u64>,
    /// Those that came in since they were last looked at.
    pub(super) arrived: Vec<u32>,
    /// To be tried again, and when.
    again: VecDeque<(u64, u32)>,
    /// From due to the server's consent.
    pub(super) latency_ns: Histogram<u64>,
    /// Logins that were taken.
    pub(super) taken: u64,
    /// Connections that ended before the server's consent.
    pub(super) failed: u64,
    /// The server's last word, if it gave one.
    pub(super) word: Option<Box<str>>,
    last_ns: u64,
}

impl Logins {
    pub(super) fn new() -> Self {
        Self {
            due_ns: Vec::new(),
            arrived: Vec::new(),
            again: VecDeque::new(),
            latency_ns: histogram(),
            taken: 0,
            failed: 0,
            word: None,
            last_ns: clock::now_ns(),
        }
    }

    /// Begins the login of client `client`, as a user of the same number.
    pub(super) fn begin(
        &mut self,
        clients: &mut Clients,
        client: u32,
        due_ns: u64,
    ) -> Result<(), BenchError> {
        if client as usize >= self.due_ns.len() {
            self.due_ns.resize(client as usize + 1, 0);
        }
        self.due_ns[client as usize] = due_ns;
        clients.connect(client, client)
    }

    /// Begins again what failed a while ago.
    pub(super) fn try_again(&mut self, clients: &mut Clients) -> Result<(), BenchError> {
        let now_ns = clock::now_ns();
        while let Some(&(at_ns, client)) = self.again.front()
            && at_ns <= now_ns
        {
            self.again.pop_front();
            clients.connect(client, client)?;
        }
        Ok(())
    }

    /// Has clients 0 to `count` - 1 log in, all of them due now. Gives up when none was
    /// taken for a while.
    pub(super) fn all_at_once(
        &mut self,
        clients: &mut Clients,
        count: u32,
        progress: impl Fn(u64),
    ) -> Result<(), BenchError> {
        let due_ns = clock::now_ns();
        let before = self.taken;
        self.last_ns = due_ns;
        let mut begun = 0;
        while self.taken - before < count.into() {
            for _ in 0..BEGIN_MAX.min(count - begun) {
                self.begin(clients, begun, due_ns)?;
                begun += 1;
            }
            self.try_again(clients)?;
            let wait = if begun < count { 0 } else { 10 };
            clients.turn(Duration::from_millis(wait), self)?;
            progress(self.taken - before);
            if clock::now_ns().saturating_sub(self.last_ns) > PATIENCE_NS {
                break;
            }
        }
        Ok(())
    }

    /// Has clients 0 to `count` - 1, who are all about to be cut off, log in again as they find out;
    /// all of that is due now. Gives up when `is_back` says that the server is there again and none
    /// was taken for a while.
    pub(super) fn all_again(
        &mut self,
        clients: &mut Clients,
        count: u32,
        mut is_back: impl FnMut() -> bool,
        progress: impl Fn(u64),
    ) -> Result<(), BenchError> {
        self.last_ns = clock::now_ns();
        self.due_ns = vec![self.last_ns; count as usize];
        while self.taken < count.into() {
            self.try_again(clients)?;
            clients.turn(Duration::from_millis(10), self)?;
            progress(self.taken);
            if !is_back() {
                self.last_ns = clock::now_ns();
            } else if clock::now_ns().saturating_sub(self.last_ns) > PATIENCE_NS {
                break;
            }
        }
        Ok(())
    }
}

impl Handler for Logins {
    fn heard(&mut self, client: u32, heard: Heard, _: &[u8], now_ns: u64, _: &mut Post) {
        match heard {
            Heard::LoggedIn { .. } => {
                let latency = now_ns.saturating_sub(self.due_ns[client as usize]);
                self.latency_ns.saturating_record(latency);
                self.taken += 1;
                self.last_ns = now_ns;
                self.arrived.push(client);
            }
            Heard::Closing(word) => self.word = Some(word),
            _ => {}
        }
    }

    fn ended(&mut self, client: u32, _: End) {
        self.failed += 1;
        self.again
            .push_back((clock::now_ns() + AGAIN_AFTER_NS, client));
    }
}
