//! The power is cut at any instant under full load: whatever the disk was not told to sync is gone. The ledger holds:
//! nothing that was answered is lost, and nothing that was burned comes again. Also after single syncs have failed and
//! the store has healed: what such a sync lost, no later one brings back by itself.
//!
//! `IRIS_KILL_ROUNDS` sets how many times; `IRIS_KILL_SEED` repeats a run as far as its schedule goes.

use std::thread;
use std::time::Duration;

use crate::support::{Disk, Fault, Gateway, Ledger, Random, of_environment, seed_of};
use rustix::process::Signal;

const ROUNDS: u64 = 25;
const UPTIME_US_MAX: u64 = 500_000;

fn rounds(of_failing: bool) {
    let Some(disk) = Disk::new(true) else {
        return;
    };
    let rounds = of_environment("IRIS_KILL_ROUNDS", ROUNDS);
    let mut random = Random(seed_of("IRIS_KILL_SEED"));
    let mut ledger = Ledger::new(of_failing);
    let mut gateway = Gateway::serving_on(&disk, &["--ack-timeout", "100ms"]);
    let mut healed = 0;
    for round in 0..rounds {
        let uptime = Duration::from_micros(random.below(UPTIME_US_MAX));
        let faults: Vec<u32> = (0..3).map(|n| 2 * n + 1 + random.below(8) as u32).collect();
        let meanwhile = || {
            for after in &faults {
                thread::sleep(uptime / 3);
                if of_failing {
                    disk.becomes(Fault::OneSync(*after));
                }
            }
            if of_failing {
                // Long enough to heal and to go on.
                thread::sleep(Duration::from_millis(300));
                disk.becomes(Fault::None);
                healed += gateway.metrics().sum("iris_store_healed_total");
            }
        };
        let address = gateway.address();
        let end = || gateway.signal(Signal::KILL);
        ledger.load(address, &mut random, meanwhile, end);
        gateway.ended();
        disk.cut(&gateway.data());
        gateway.start_again();
        let drained = ledger.drain(gateway.address());
        ledger.holds();
        eprintln!("round {round}: {}, {drained} at login", ledger.tells());
        // What is still to be synced without anybody waiting for it is cut off as well.
        gateway.kill();
        disk.cut(&gateway.data());
        gateway.start_again();
        assert_eq!(ledger.drain(gateway.address()), 0, "round {round}");
    }
    ledger.was_busy();
    assert!(!of_failing || healed > 0, "no sync failed");
}

#[test]
fn what_was_answered_survives_a_power_cut() {
    rounds(false);
}

#[test]
fn what_was_answered_survives_a_power_cut_after_failed_syncs() {
    rounds(true);
}
