//! Limits of inboxes over the wire: what is full is refused with its reason or lets the oldest go, what has
//! expired is not delivered, and all of it is counted.

use std::time::Duration;

use iris_protocol::{Outcome, RefusalReason};

use crate::support;
use crate::support::{Classic, Framed, Gateway};

const FULL: Outcome = Outcome::Refused(RefusalReason::InboxFull);

#[test]
fn a_full_inbox_refuses_until_its_reader_was_here() {
    let gateway = Gateway::serving(&["--inbox-messages-max=3", "--sender-inbox-percent=100"]);
    let at = gateway.address();
    let mut alice = Framed::login(at, "alice");
    for text in ["one", "two", "three"] {
        assert_eq!(alice.sends("bob", text.as_bytes()), Outcome::Stored);
    }
    let refused = alice.send("bob", b"four");
    assert_eq!(alice.outcome(refused), FULL);
    let mut carl = Classic::login(at, "carl");
    carl.send("bob", b"unheard of");
    let is_counted = |metrics: &support::Metrics| metrics.refused("inbox-full") == 2;
    let metrics = gateway.metrics_when("both refusals are counted", is_counted);
    assert_eq!(
        metrics.sum("iris_store_failed_total{reason=\"inbox-full\"}"),
        2
    );
    assert_eq!(metrics.sum("iris_store_live_messages"), 3);

    let mut bob = Framed::login(at, "bob");
    for (text, delivery) in [("one", 1), ("two", 2), ("three", 3)] {
        assert_eq!(bob.receives().text(), text);
        bob.ack(delivery);
    }
    bob.leave();
    Framed::inbox_becomes(at, "bob", 0);
    alice.send_as(refused, "bob", b"four");
    assert_eq!(alice.outcome(refused), Outcome::Stored);
}

#[test]
fn a_full_inbox_lets_the_oldest_go_if_that_is_the_rule() {
    let gateway = Gateway::serving(&["--inbox-messages-max=3", "--inbox-overflow=drop-oldest"]);
    let at = gateway.address();
    let mut alice = Framed::login(at, "alice");
    for text in ["one", "two", "three", "four", "five"] {
        assert_eq!(alice.sends("bob", text.as_bytes()), Outcome::Stored);
    }
    let is_counted = |metrics: &support::Metrics| metrics.sum("iris_store_dropped_total") == 2;
    gateway.metrics_when("what went is counted", is_counted);
    let (mut bob, depth) = Framed::login_depth(at, "bob");
    assert_eq!(depth, 3);
    for text in ["three", "four", "five"] {
        assert_eq!(bob.receives().text(), text);
    }
}

#[test]
fn what_has_expired_is_not_delivered_and_makes_room() {
    let gateway = Gateway::serving(&["--inbox-messages-max=2", "--sender-inbox-percent=100"]);
    let at = gateway.address();
    let mut alice = Framed::login(at, "alice");
    for sequence in 1..=2 {
        alice.send_within(sequence, 1, "bob", b"in a hurry");
        assert_eq!(alice.outcome(sequence), Outcome::Stored);
    }
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(alice.sends("bob", b"later"), Outcome::Stored);
    let is_counted = |metrics: &support::Metrics| metrics.sum("iris_store_expired_total") == 2;
    gateway.metrics_when("what expired is counted", is_counted);
    let mut bob = Framed::login(at, "bob");
    assert_eq!(bob.receives().text(), "later");
    bob.hears_nothing_for(Duration::from_millis(100));
}
