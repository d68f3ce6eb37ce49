//! The way out: SIGTERM tells everybody, keeps what is not acknowledged, and ends with 0; a second
//! signal does not wait.

use std::time::{Duration, Instant};

use iris_protocol::{CloseReason, Outcome};
use rustix::process::Signal;

use crate::support::{Classic, Event, Framed, Gateway};

#[test]
fn what_is_not_acknowledged_is_found_after_the_restart() {
    const MESSAGES: u64 = 200;
    // Long enough that nothing is stored before the drain.
    let mut gateway = Gateway::serving(&["--ack-timeout", "10min"]);
    let readers = [0, 1].map(|core| gateway.users_of(core, "reader", 1).remove(0));
    let mut alice = Framed::login(gateway.address(), "alice");
    let mut open = Vec::new();
    for reader in &readers {
        let mut bob = Framed::login(gateway.address(), reader);
        alice.warms_up(reader, || {
            bob.takes();
        });
        let mut ids = Vec::new();
        for number in 0..MESSAGES {
            alice.send(reader, &number.to_be_bytes());
        }
        for _ in 0..MESSAGES {
            let message = bob.receives();
            // Some are in its hands.
            if ids.len() == 50 {
                bob.ack(message.delivery);
            }
            ids.push(message.id);
        }
        bob.is_heard();
        open.push((bob, ids));
    }
    let mut classic = Classic::login(gateway.address(), "classic");
    gateway.signal(Signal::TERM);
    for (bob, _) in &mut open {
        let (reason, retry_after_ms) = bob.is_closed();
        assert_eq!(reason, CloseReason::Draining);
        assert!(retry_after_ms > 0, "all would come back at once");
    }
    assert_eq!(alice.is_closed().0, CloseReason::Draining);
    classic.reads_exactly(b"");
    classic.sees_the_end();
    let ids: Vec<_> = open.into_iter().map(|(_, ids)| ids).collect();
    assert_eq!(gateway.ended().code(), Some(0), "{:#?}", gateway.seen());

    gateway.start_again();
    for (reader, ids) in readers.iter().zip(ids) {
        let (mut bob, depth) = Framed::login_depth(gateway.address(), reader);
        assert_eq!(depth, MESSAGES - 51);
        for (number, id) in ids.iter().enumerate().skip(51) {
            let message = bob.takes();
            assert_eq!(message.payload, (number as u64).to_be_bytes());
            assert_eq!(message.id, *id);
        }
        bob.leave();
    }
}

#[test]
fn a_drain_under_load_loses_nothing_that_was_answered() {
    let mut gateway = Gateway::serving(&[]);
    let mut number = 0u64;
    for round in 0..3 {
        let mut bob = Framed::login(gateway.address(), "bob");
        let mut alice = Framed::login(gateway.address(), "alice");
        let mut sent = Vec::new();
        let begun = Instant::now();
        let mut signalled = false;
        let mut stored_or_delivered = Vec::new();
        let is_over = |event: &Event| matches!(event, Event::Close(..) | Event::End);
        'load: loop {
            number += 1;
            let mut out = Vec::new();
            let payload = number.to_be_bytes();
            iris_protocol::framed::encode::send(&mut out, number, 0, b"bob", &payload);
            if alice.try_say(&out).is_err() {
                break;
            }
            sent.push(number);
            while let Some(event) = alice.hears_within(Duration::from_micros(1)) {
                match event {
                    Event::Answer(answer) if !matches!(answer.outcome, Outcome::Refused(_)) => {
                        stored_or_delivered.push(answer.sequence);
                    }
                    event if is_over(&event) => break 'load,
                    _ => {}
                }
            }
            if begun.elapsed() > Duration::from_millis(300) && !signalled {
                signalled = true;
                gateway.signal(Signal::TERM);
            }
        }
        let mut received = Vec::new();
        let mut take = |bob: &mut Framed, patience: Duration| {
            while let Some(event) = bob.hears_within(patience) {
                match event {
                    Event::Deliver(message) => {
                        let (number, _) = message.payload.split_first_chunk().expect("a number");
                        received.push(u64::from_be_bytes(*number));
                    }
                    Event::End => break,
                    _ => {}
                }
            }
        };
        // It reads, and never acknowledges: all of it is still the gateway's to keep.
        take(&mut bob, Duration::from_secs(5));
        drop(alice);
        assert_eq!(gateway.ended().code(), Some(0), "{:#?}", gateway.seen());
        gateway.start_again();
        let (mut bob, depth) = Framed::login_depth(gateway.address(), "bob");
        let mut found = Vec::new();
        for _ in 0..depth {
            let message = bob.takes();
            let (number, _) = message.payload.split_first_chunk().expect("a number");
            found.push(u64::from_be_bytes(*number));
        }
        assert!(found.is_sorted(), "round {round}: in order");
        for number in &stored_or_delivered {
            assert!(found.contains(number), "round {round}: {number} is lost");
        }
        for number in &received {
            assert!(
                found.contains(number),
                "round {round}: {number} was not acknowledged"
            );
        }
        bob.leave();
        Framed::inbox_becomes(gateway.address(), "bob", 0);
    }
}

#[test]
fn a_second_signal_does_not_wait_for_a_peer_that_stays() {
    let mut gateway = Gateway::serving(&["--drain-timeout", "1min"]);
    // They are told, and do not end their side.
    let mut peers: Vec<Framed> = (0..4)
        .map(|number| Framed::login(gateway.address(), &format!("peer-{number}")))
        .collect();
    gateway.signal(Signal::TERM);
    for peer in &mut peers {
        assert_eq!(peer.is_closed().0, CloseReason::Draining);
    }
    assert!(gateway.try_ended().is_none(), "it did not wait at all");
    let begun = Instant::now();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(143));
    assert!(begun.elapsed() < Duration::from_millis(500), "not at once");
    gateway.start_again();
    Framed::login(gateway.address(), "peer-0").leave();
}

#[test]
fn a_peer_that_stays_holds_up_a_drain_only_for_a_while() {
    let mut gateway = Gateway::serving(&[]);
    let mut bob = Framed::login(gateway.address(), "bob");
    let mut alice = Framed::login(gateway.address(), "alice");
    alice.gets_through("bob", b"not acknowledged");
    assert_eq!(bob.receives().text(), "not acknowledged");
    let begun = Instant::now();
    gateway.stop();
    assert!(begun.elapsed() < Duration::from_secs(8));
    gateway.start_again();
    let mut bob = Framed::login(gateway.address(), "bob");
    assert_eq!(bob.takes().text(), "not acknowledged");
}
