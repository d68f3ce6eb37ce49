//! One sender floods an inbox, or the store, and others are still stored, in both protocols.

use iris_protocol::{Outcome, RefusalReason};

use crate::support;
use crate::support::{Classic, Framed, Gateway};

const INBOX_FULL: Outcome = Outcome::Refused(RefusalReason::InboxFull);
const STORAGE: Outcome = Outcome::Refused(RefusalReason::Storage);

fn failed(metrics: &support::Metrics, reason: &str) -> u64 {
    metrics.sum(&format!("iris_store_failed_total{{reason=\"{reason}\"}}"))
}

#[test]
fn one_flood_leaves_room_in_an_inbox() {
    let gateway = Gateway::serving(&["--inbox-messages-max", "64"]);
    let at = gateway.address();
    let mut flood = Framed::login(at, "flood");
    for _ in 0..32 {
        assert_eq!(flood.sends("bob", b"x"), Outcome::Stored);
    }
    assert_eq!(flood.sends("bob", b"x"), INBOX_FULL);
    let mut classic_flood = Classic::login(at, "classic flood");
    for _ in 0..100 {
        classic_flood.send("bob", b"y");
    }
    gateway.metrics_when("one half, then half of the rest", |metrics| {
        metrics.sum("iris_store_live_messages") == 48
            && failed(metrics, "inbox-share") == 1 + 84
            && metrics.refused("inbox-full") == 1 + 84
    });
    let mut alice = Framed::login(at, "alice");
    assert_eq!(alice.sends("bob", b"from alice"), Outcome::Stored);
    let mut carl = Classic::login(at, "carl");
    carl.send("bob", b"from carl");
    gateway.metrics_when("the others are stored", |metrics| {
        metrics.sum("iris_store_live_messages") == 50 && failed(metrics, "inbox-full") == 0
    });
    // Elsewhere the flood goes on, and here once the reader was there.
    assert_eq!(flood.sends("dora", b"x"), Outcome::Stored);
    let mut bob = Framed::login(at, "bob");
    (0..50).for_each(|_| drop(bob.takes()));
    bob.leave();
    Framed::inbox_becomes(at, "bob", 0);
    assert_eq!(flood.sends("bob", b"x"), Outcome::Stored);
}

#[test]
fn one_flood_leaves_room_in_the_store() {
    let gateway = Gateway::serving(&["--store-bytes-max", "2MiB"]);
    let at = gateway.address();
    let payload = vec![7; 20_000];
    let mut flood = Framed::login(at, "flood");
    let mut stored = 0;
    // To many readers, none of whose inboxes is full.
    let refused = loop {
        match flood.sends(&format!("reader{stored}"), &payload) {
            Outcome::Stored => stored += 1,
            other => break other,
        }
    };
    assert_eq!(refused, STORAGE);
    // Of 104 that fit; what came before the first quarter was full is not counted.
    assert!((50..=68).contains(&stored), "{stored}");
    let mut alice = Framed::login(at, "alice");
    assert_eq!(alice.sends("bob", &payload), Outcome::Stored);
    let mut carl = Classic::login(at, "carl");
    carl.send("bob", &payload);
    gateway.metrics_when("the others are stored", |metrics| {
        metrics.sum("iris_store_live_messages") == stored + 2
            && failed(metrics, "store-share") == 1
            && failed(metrics, "store-full") == 0
    });
    assert_eq!(flood.sends("bob", &payload), STORAGE);
}
