//! A reader that acknowledges late: it is sent its whole inbox all the same, in a fixed budget of
//! memory, and costs the store nothing while it is silent.

use std::time::{Duration, Instant};

use iris_protocol::Outcome;

use crate::support::{Framed, Gateway};

/// With their frames, many times what an outbox may hold, and ten times `UNACKED_MAX`.
const MESSAGES: u64 = 40_000;
const UNACKED_MAX: &str = "4096";
const OUTBOX_BYTES_MAX: u64 = 256 << 10;

/// Fills the inbox of a user who is away.
fn fills(gateway: &Gateway, reader: &str) {
    const WINDOW: u64 = 1_000;
    let mut alice = Framed::login(gateway.address(), "alice");
    for first in (0..MESSAGES).step_by(WINDOW as usize) {
        let sent: Vec<u64> = (first..first + WINDOW)
            .map(|number| alice.send(reader, &number.to_be_bytes()))
            .collect();
        for sequence in sent {
            assert_eq!(alice.outcome(sequence), Outcome::Stored);
        }
    }
    alice.leave();
}

/// Reads the whole inbox, in order, and acknowledges every so many.
fn drains(gateway: &Gateway, reader: &str, ack_every: u64) {
    let (mut bob, depth) = Framed::login_depth(gateway.address(), reader);
    assert_eq!(depth, MESSAGES);
    for number in 0..MESSAGES {
        let message = bob.receives();
        assert_eq!(message.payload, number.to_be_bytes());
        if message.delivery.is_multiple_of(ack_every) {
            bob.ack(message.delivery);
        }
    }
    bob.leave();
    Framed::inbox_becomes(gateway.address(), reader, 0);
}

#[test]
fn an_inbox_is_drained_by_acks_of_large_batches() {
    let gateway = Gateway::serving(&["--unacked-deliveries-max", UNACKED_MAX]);
    for ack_every in [MESSAGES, 10_000] {
        fills(&gateway, "bob");
        drains(&gateway, "bob", ack_every);
    }
}

#[test]
fn what_is_not_acknowledged_is_kept_by_the_store_alone() {
    let gateway = Gateway::serving(&["--ack-timeout", "200ms"]);
    fills(&gateway, "bob");
    let mut bob = Framed::login(gateway.address(), "bob");
    for _ in 0..MESSAGES {
        bob.receives();
    }
    // What comes now is not acknowledged either.
    let mut alice = Framed::login(gateway.address(), "alice");
    for number in 0..3 {
        assert_eq!(alice.sends("bob", b"one more"), Outcome::Stored);
        assert_eq!(bob.receives().delivery, MESSAGES + number + 1);
    }
    let metrics = gateway.metrics_when("all is sent", |metrics| {
        metrics.sum("iris_outbox_bytes") <= OUTBOX_BYTES_MAX
    });
    // A silent reader is not looked after again and again.
    let pages = metrics.sum("iris_store_pages_total");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        bob.is_heard();
        std::thread::sleep(Duration::from_millis(200));
    }
    let more = gateway.metrics().sum("iris_store_pages_total") - pages;
    assert!(more <= 2, "{more} pages for nobody");
    // An ack of a part burns a part: the rest comes again.
    let acked = MESSAGES / 2;
    bob.ack(acked);
    bob.leave();
    let (mut bob, depth) = Framed::login_depth(gateway.address(), "bob");
    let rest = MESSAGES + 3 - acked;
    assert!(
        (rest..rest + MESSAGES / 500).contains(&depth),
        "{depth} are left of {rest}"
    );
    for number in MESSAGES + 3 - depth..MESSAGES {
        assert_eq!(bob.receives().payload, number.to_be_bytes());
    }
}
