//! What the end-to-end tests share: the real gateway as a process, clients of both protocols, and
//! the counters it shows.
//!
//! Blocking sockets and threads on purpose: nothing here resembles what is tested. Everything that
//! waits has a deadline, and every process has somebody who ends it.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

mod chat;
mod classic;
#[path = "../../../storage/tests/disk/mod.rs"]
mod disk;
mod framed;
mod gateway;
mod healthy_pair;
mod ledger;
mod metrics;

use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Socket, Type};

pub use chat::Chat;
pub use classic::{Classic, login as login_classic, send as send_classic};
pub use disk::{Disk, Fault};
pub use framed::{Event, Framed, Message};
pub use gateway::{Gateway, get, iris, run};
pub use healthy_pair::{HealthyPair, RoundTrips};
pub use ledger::Ledger;
pub use metrics::Metrics;

/// How long anything may take that is bound to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `done` gives something; panics with what `state` says when it does not.
pub fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A size or a time that whoever runs the tests may set, so that they run longer than every day.
pub fn of_environment(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => otherwise,
    }
}

/// The seed that the environment names, or one of the clock; printed, so that a run that fails can be repeated.
pub fn seed_of(variable: &str) -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let clock = clock.expect("after 1970").as_nanos() as u64;
    let seed = of_environment(variable, clock);
    eprintln!("{variable}={seed}");
    seed
}

/// Connects with the smallest receive buffer there is.
pub fn narrow(gateway: &Gateway) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(2_048).expect("set");
    socket
        .connect(&gateway.address().into())
        .expect("connected");
    socket.into()
}

/// A random number generator whose seed a failing test can name.
pub struct Random(pub u64);

impl Random {
    /// The next number (splitmix64, public domain, Vigna 2015).
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }
}
