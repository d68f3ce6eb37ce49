//! A disk that fails below the real gateway, in every way and for a while: senders to absent users are told at once,
//! who is online notices nothing, inboxes can be read, and the store heals by itself with all it ever acknowledged.

use std::time::{Duration, Instant};

use crate::support::{Disk, Event, Fault, Framed, Gateway, eventually};
use iris_protocol::{Outcome, RefusalReason};

/// Far below what anybody waits for a broken disk, far above what a busy machine takes.
const AT_ONCE: Duration = Duration::from_secs(2);
const REFUSED: Outcome = Outcome::Refused(RefusalReason::Storage);

/// The next answer about storage, until it is `wanted`; counts what was stored.
fn sends_until(ben: &mut Framed, wanted: Outcome, stored: &mut u64) {
    eventually("another outcome", || {
        let outcome = ben.sends("away", b"for later");
        *stored += u64::from(outcome == Outcome::Stored);
        (outcome == wanted).then_some(())
    });
}

fn fails_and_heals(fault: Fault) {
    let Some(disk) = Disk::new(false) else {
        return;
    };
    let gateway = Gateway::serving_on(&disk, &[]);
    let address = gateway.address();
    let (mut anna, mut ben) = (
        Framed::login(address, "anna"),
        Framed::login(address, "ben"),
    );
    ben.warms_up("anna", || drop(anna.takes()));
    let mut stored = 0;
    for _ in 0..10 {
        sends_until(&mut ben, Outcome::Stored, &mut stored);
    }
    for round in 0..3 {
        disk.becomes(fault);
        sends_until(&mut ben, REFUSED, &mut stored);
        assert_eq!(gateway.page("/readyz").0, 503);
        for _ in 0..20 {
            let began = Instant::now();
            assert_eq!(ben.sends("away", b"lost"), REFUSED);
            assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
            let sequence = ben.send("anna", b"now");
            anna.takes();
            assert_eq!(ben.outcome(sequence), Outcome::Delivered);
            assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        }
        // Who logs in now gets in, and gets what is there; what it takes is burned later.
        let mut away = Framed::login(address, "away");
        let mut found = 0;
        while let Some(Event::Deliver(message)) = away.hears_within(Duration::from_millis(200)) {
            away.ack(message.delivery);
            found += 1;
        }
        assert!(found >= stored, "round {round}: {found} of {stored}");
        let metrics = gateway.metrics();
        assert_eq!(metrics.sum("iris_store_state{state=\"open\"}"), 0);
        assert!(metrics.sum("iris_store_failed_total{reason=\"unwritable\"}") > 0);
        disk.becomes(Fault::None);
        gateway.metrics_when("healing", |metrics| {
            metrics.sum("iris_store_healed_total") > round
                && metrics.sum("iris_store_state{state=\"open\"}") == 1
        });
        assert_eq!(gateway.page("/readyz").0, 200);
        away.leave();
        // What came up after all, although it was refused, is taken as well.
        eventually("an empty inbox", || {
            let (mut away, depth) = Framed::login_depth(address, "away");
            (0..depth).for_each(|_| drop(away.takes()));
            away.leave();
            (depth == 0).then_some(())
        });
        stored = 0;
        sends_until(&mut ben, Outcome::Stored, &mut stored);
    }
    let (mut away, depth) = Framed::login_depth(address, "away");
    assert_eq!(depth, stored);
    (0..depth).for_each(|_| drop(away.takes()));
}

#[test]
fn a_disk_that_fails_every_write_and_sync() {
    fails_and_heals(Fault::Dead);
}

#[test]
fn a_disk_that_fails_every_sync() {
    fails_and_heals(Fault::Unsynced);
}

#[test]
fn a_disk_that_is_full() {
    fails_and_heals(Fault::Full);
}

/// A disk that takes seconds for each sync: nothing is answered before its sync, online delivery goes on, and what
/// waits is bounded.
#[test]
fn a_disk_that_takes_seconds() {
    const SYNC: Duration = Duration::from_millis(1500);
    const FLOOD: u64 = 300_000;
    const MEMORY_MAX: u64 = 256 << 20;
    let Some(disk) = Disk::new(false) else {
        return;
    };
    let gateway = Gateway::serving_on(&disk, &["--unanswered-sends-max", "65536"]);
    let address = gateway.address();
    let (mut anna, mut ben) = (
        Framed::login(address, "anna"),
        Framed::login(address, "ben"),
    );
    ben.warms_up("anna", || drop(anna.takes()));
    assert_eq!(ben.sends("away", b"x"), Outcome::Stored);
    disk.becomes(Fault::Slow(SYNC.as_millis() as u32));
    let before = gateway.resident_bytes();
    let began = Instant::now();
    assert_eq!(ben.sends("away", b"x"), Outcome::Stored);
    assert!(
        began.elapsed() >= SYNC,
        "answered after {:?}",
        began.elapsed()
    );
    // Beside it a flood to users who are away, from somebody who does not wait for answers.
    let flood = std::thread::spawn(move || {
        let mut carl = Framed::login(address, "carl");
        let (mut sent, mut answered, mut stored) = (0, 0, 0);
        while answered < FLOOD {
            while sent < FLOOD && sent - answered < 50_000 {
                carl.send(&format!("away-{}", sent % 1000), &[b'.'; 200]);
                sent += 1;
            }
            match carl.hears() {
                Event::Answer(answer) => {
                    answered += 1;
                    let is_stored = answer.outcome == Outcome::Stored;
                    let is_shed = answer.outcome == Outcome::Refused(RefusalReason::Overloaded);
                    assert!(is_stored || is_shed, "{:?}", answer.outcome);
                    stored += u64::from(is_stored);
                }
                other => panic!("{other:?}"),
            }
        }
        stored
    });
    let (mut slowest, mut most) = (Duration::ZERO, 0);
    while began.elapsed() < 6 * SYNC {
        let sent = Instant::now();
        let sequence = ben.send("anna", b"now");
        anna.takes();
        assert_eq!(ben.outcome(sequence), Outcome::Delivered);
        slowest = slowest.max(sent.elapsed());
        most = most.max(gateway.resident_bytes());
    }
    eprintln!(
        "slowest online message {slowest:?}; resident {} MiB, {} MiB before",
        most >> 20,
        before >> 20
    );
    assert!(slowest < SYNC / 2, "{slowest:?}");
    assert!(most < before + MEMORY_MAX, "{most} bytes, {before} before");
    disk.becomes(Fault::None);
    let stored = flood.join().expect("each send was answered");
    let kept: u64 = (0..1000)
        .map(|n| Framed::login_depth(address, &format!("away-{n}")))
        .map(|(client, depth)| {
            client.leave();
            depth
        })
        .sum();
    assert_eq!(kept, stored, "of those that were answered as stored");
}
