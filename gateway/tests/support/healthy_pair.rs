//! Two users who exchange messages all the time, whatever others do.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use iris_protocol::Outcome;

use super::{Framed, Gateway};

/// Two users, one on each core, who must not notice anything.
pub struct HealthyPair {
    ends: Arc<AtomicBool>,
    exchanging: JoinHandle<Vec<Duration>>,
}

impl HealthyPair {
    /// They begin.
    pub fn start(gateway: &Gateway) -> HealthyPair {
        HealthyPair::start_on(gateway, [0, 1])
    }

    /// The same with these cores as their homes.
    pub fn start_on(gateway: &Gateway, cores: [usize; 2]) -> HealthyPair {
        let mut pair = [(cores[0], "healthy"), (cores[1], "well")].map(|(core, stem)| {
            let user = gateway.users_of(core, stem, 1).remove(0);
            (Framed::login(gateway.address(), &user), user)
        });
        let ends = Arc::new(AtomicBool::new(false));
        let exchanging = thread::spawn({
            let ends = Arc::clone(&ends);
            move || {
                let mut took = Vec::new();
                while !ends.load(Ordering::SeqCst) {
                    // Each is the sender in turn.
                    pair.reverse();
                    let [(from, _), (to, target)] = &mut pair;
                    let number = took.len().to_be_bytes();
                    let sent = Instant::now();
                    let sequence = from.send(target, &number);
                    assert_eq!(to.takes().payload, number);
                    let outcome = from.outcome(sequence);
                    assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
                    took.push(sent.elapsed());
                    thread::sleep(Duration::from_millis(1));
                }
                took
            }
        });
        HealthyPair { ends, exchanging }
    }

    /// Both are well to the end. Says how long their messages took.
    pub fn end(self) -> RoundTrips {
        self.ends.store(true, Ordering::SeqCst);
        let mut took = self.exchanging.join().expect("the pair noticed nothing");
        assert!(!took.is_empty());
        took.sort();
        RoundTrips(took)
    }
}

/// How long each message took, until its sender was told what became of it; the slowest last.
pub struct RoundTrips(Vec<Duration>);

impl RoundTrips {
    /// The longest of all.
    pub fn slowest(&self) -> Duration {
        *self.0.last().expect("at least one")
    }
}

impl fmt::Display for RoundTrips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |percent: usize| self.0[(self.0.len() - 1) * percent / 100];
        let (median, p99, slowest) = (at(50), at(99), self.slowest());
        let count = self.0.len();
        write!(
            f,
            "{count} round trips, median {median:?}, p99 {p99:?}, slowest {slowest:?}"
        )
    }
}
