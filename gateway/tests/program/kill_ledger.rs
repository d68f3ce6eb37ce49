//! The gateway is killed at any instant under full load, a hundred times, and a ledger is held against what readers
//! got: whatever was answered `delivered` or `stored` came to its reader, in order for each pair, again only with the
//! same id, and never after it was read and burned.
//!
//! `IRIS_KILL_ROUNDS` sets how many times; `IRIS_KILL_SEED` repeats a run as far as its schedule goes.

use std::thread;
use std::time::Duration;

use crate::support::{Gateway, Ledger, Random, of_environment, seed_of};

const ROUNDS: u64 = 100;
/// Long enough for tables to be written and spills to happen, short enough for a hundred.
const UPTIME_US_MAX: u64 = 300_000;

#[test]
fn what_was_answered_is_received_whenever_it_is_killed() {
    let rounds = of_environment("IRIS_KILL_ROUNDS", ROUNDS);
    let mut random = Random(seed_of("IRIS_KILL_SEED"));
    let mut ledger = Ledger::new(false);
    let mut gateway = Gateway::serving(&["--ack-timeout", "100ms"]);
    for round in 0..rounds {
        let uptime = Duration::from_micros(random.below(UPTIME_US_MAX));
        let address = gateway.address();
        ledger.load(
            address,
            &mut random,
            || thread::sleep(uptime),
            || gateway.kill(),
        );
        gateway.start_again();
        let drained = ledger.drain(gateway.address());
        ledger.holds();
        if round % 10 == 9 {
            // What is read and burned does not come again after a clean restart either.
            gateway.stop();
            gateway.start_again();
            assert_eq!(ledger.drain(gateway.address()), 0, "round {round}");
            eprintln!("round {round}: {}, {drained} at login", ledger.tells());
        }
    }
    ledger.was_busy();
}
