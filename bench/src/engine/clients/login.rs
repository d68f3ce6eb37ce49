//! Connecting many clients and logging them in, a batch at a time.
//!
//! Owner: the engine's thread.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Clients, End, Handler};
use crate::BenchError;
use crate::dialect::{Heard, Protocol};
use crate::engine::Post;

/// Connections opened at a time.
const BATCH: u32 = 250;
/// How long a server may take to answer a batch of logins.
const LOGIN_MAX: Duration = Duration::from_secs(30);

impl Clients {
    /// Connects `count` clients and logs each in, client n as user n.
    ///
    /// # Errors
    /// One of them cannot connect, is turned away, or gets no answer.
    pub fn open(server: SocketAddr, protocol: Protocol, count: u32) -> Result<Self, BenchError> {
        let mut all = Self::new(server, protocol, count)?;
        all.log_in(count)?;
        Ok(all)
    }

    /// Connects the first `count` clients and logs each in, client n as user n.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn log_in(&mut self, count: u32) -> Result<(), BenchError> {
        let mut logins = Logins::default();
        for client in 0..count {
            self.connect(client, client)?;
            if (client + 1) % BATCH == 0 || client + 1 == count {
                logins.all(self, client + 1)?;
            }
        }
        Ok(())
    }
}

/// Waits for the answers to logins.
#[derive(Debug, Default)]
struct Logins {
    answered: u32,
    ended: u32,
    word: Option<Box<str>>,
}

impl Logins {
    fn all(&mut self, clients: &mut Clients, count: u32) -> Result<(), BenchError> {
        let deadline = Instant::now() + LOGIN_MAX;
        while self.answered < count {
            clients.turn(Duration::from_millis(100), self)?;
            if self.ended > 0 {
                return Err(BenchError::TurnedAway(self.word.take().unwrap_or_default()));
            }
            if Instant::now() > deadline {
                return Err(BenchError::Unanswered("logging in"));
            }
        }
        Ok(())
    }
}

impl Handler for Logins {
    fn heard(&mut self, _: u32, heard: Heard, _: &[u8], _: u64, _: &mut Post) {
        match heard {
            Heard::LoggedIn { .. } => self.answered += 1,
            Heard::Closing(word) => self.word = Some(word),
            _ => {}
        }
    }

    fn ended(&mut self, _: u32, _: End) {
        self.ended += 1;
    }
}
