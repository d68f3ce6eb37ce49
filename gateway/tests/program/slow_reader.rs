//! A reader that does not read or does not acknowledge: its messages go to the inbox within a fixed
//! budget of memory, their senders are answered, and all come in order once it reads.

use std::thread;
use std::time::Duration;

use iris_protocol::Outcome;

use crate::support::{Classic, Event, Framed, Gateway, narrow};

const MESSAGES: u32 = 4_000;
const PAYLOAD_BYTES: usize = 1_024;
const LIMITS: [&str; 6] = [
    "--outbox-bytes-max",
    "64KiB",
    "--unacked-deliveries-max",
    "256",
    "--ack-timeout",
    "500ms",
];
/// What one session may hold in memory, generously: its outbox, which a flood fills four times before the
/// kernel has said how slow a classic reader is, a page, and the chunks they lie in.
const HELD_BYTES_MAX: u64 = 384 << 10;

fn payload(number: u32) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(PAYLOAD_BYTES, b'.');
    payload
}

fn number(payload: &[u8]) -> u32 {
    let (number, rest) = payload.split_first_chunk().expect("a number");
    assert_eq!(rest.len(), PAYLOAD_BYTES - 4);
    u32::from_be_bytes(*number)
}

/// Sends all messages; every one of them must be answered, those at the end `stored`.
fn sends_all(alice: &mut Framed, reader: &str) {
    const WINDOW: u32 = 500;
    for first in (0..MESSAGES).step_by(WINDOW as usize) {
        let sequences: Vec<u64> = (first..first + WINDOW)
            .map(|number| alice.send(reader, &payload(number)))
            .collect();
        for sequence in sequences {
            let outcome = alice.outcome(sequence);
            assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
            if first + WINDOW >= MESSAGES {
                assert_eq!(outcome, Outcome::Stored);
            }
        }
    }
}

/// After so many were stored, all in all: next to nothing of it is in memory.
fn is_bounded(gateway: &Gateway, stored: u32) {
    let metrics = gateway.metrics_when("all stored", |metrics| {
        metrics.sum("iris_messages_stored_total") >= u64::from(stored)
            && metrics.sum("iris_messages_spilled_total") > 0
    });
    let held = metrics.sum("iris_outbox_bytes");
    assert!(held <= HELD_BYTES_MAX, "{held} bytes are held");
}

#[test]
fn a_framed_reader_that_does_not_read() {
    let gateway = Gateway::serving(&LIMITS);
    for home in 0..2 {
        let reader = gateway.users_of(home, "asleep", 1).remove(0);
        let mut bob = Framed::over(narrow(&gateway));
        bob.logs_in(&reader, b"");
        let mut alice = Framed::login(gateway.address(), "alice");
        let mut warm = 0;
        alice.warms_up(&reader, || warm = bob.takes().delivery);
        sends_all(&mut alice, &reader);
        is_bounded(&gateway, (home as u32 + 1) * (MESSAGES - 600));
        for expected in 0..MESSAGES {
            let message = bob.receives();
            assert_eq!(number(&message.payload), expected);
            assert_eq!(
                message.delivery,
                warm + u64::from(expected) + 1,
                "each came once"
            );
            if expected % 10 == 9 {
                bob.ack(message.delivery);
            }
        }
        bob.is_heard();
        bob.leave();
        Framed::inbox_becomes(gateway.address(), &reader, 0);
    }
}

#[test]
fn a_framed_reader_that_reads_and_does_not_acknowledge() {
    let gateway = Gateway::serving(&LIMITS);
    let mut bob = Framed::login(gateway.address(), "mute");
    let mut alice = Framed::login(gateway.address(), "alice");
    alice.warms_up("mute", || {
        bob.takes();
    });
    let reading = thread::spawn(move || {
        // The store has it all, so it gets it all, in the memory of a few.
        let mut got = Vec::new();
        while let Some(event) = bob.hears_within(Duration::from_secs(3)) {
            match event {
                Event::Deliver(message) => got.push(message),
                other => panic!("{other:?}"),
            }
        }
        (bob, got)
    });
    sends_all(&mut alice, "mute");
    is_bounded(&gateway, MESSAGES);
    let (mut bob, got) = reading.join().expect("a sound stream");
    let numbers: Vec<u32> = got.iter().map(|one| number(&one.payload)).collect();
    assert!(numbers.into_iter().eq(0..MESSAGES), "all, in order");
    bob.ack(got.last().expect("some").delivery);
    bob.leave();
    Framed::inbox_becomes(gateway.address(), "mute", 0);
}

#[test]
fn a_framed_reader_that_goes_without_an_ack_finds_everything_again() {
    let gateway = Gateway::serving(&LIMITS);
    let mut alice = Framed::login(gateway.address(), "alice");
    let bob = {
        let mut bob = Framed::login(gateway.address(), "gone");
        sends_all(&mut alice, "gone");
        assert_eq!(number(&bob.receives().payload), 0);
        bob
    };
    let socket = socket2::SockRef::from(bob.stream());
    socket.set_linger(Some(Duration::ZERO)).expect("set");
    drop(bob);
    let mut bob = Framed::login(gateway.address(), "gone");
    for expected in 0..MESSAGES {
        assert_eq!(number(&bob.takes().payload), expected);
    }
}

#[test]
fn a_classic_reader_that_does_not_read() {
    let gateway = Gateway::serving(&LIMITS);
    for home in 0..2 {
        let reader = gateway.users_of(home, "asleep", 1).remove(0);
        let mut bob = Classic::over(narrow(&gateway));
        bob.become_user(&reader);
        let mut alice = Framed::login(gateway.address(), "alice");
        alice.warms_up(&reader, || bob.reads_exactly(b"warm"));
        sends_all(&mut alice, &reader);
        is_bounded(&gateway, (home as u32 + 1) * (MESSAGES - 600));
        for expected in 0..MESSAGES {
            assert_eq!(number(&bob.read(PAYLOAD_BYTES)), expected);
        }
        bob.leave();
        Framed::inbox_becomes(gateway.address(), &reader, 0);
    }
}

#[test]
fn what_the_tcp_of_a_half_dead_classic_reader_did_not_take_is_found_again() {
    let gateway = Gateway::serving(&LIMITS);
    for resets in [true, false] {
        let mut bob = Classic::over(narrow(&gateway));
        bob.become_user("half-dead");
        let mut alice = Framed::login(gateway.address(), "alice");
        alice.warms_up("half-dead", || bob.reads_exactly(b"warm"));
        sends_all(&mut alice, "half-dead");
        if resets {
            bob.will_reset();
        }
        drop(bob);
        // What its TCP had taken counts as read; that is no more than its buffer.
        let mut bob = Framed::login(gateway.address(), "half-dead");
        let first = number(&bob.takes().payload);
        assert!(first <= 32, "{first} messages in two kilobytes");
        for expected in first + 1..MESSAGES {
            assert_eq!(number(&bob.takes().payload), expected);
        }
        bob.hears_nothing_for(Duration::from_millis(100));
        bob.leave();
    }
}
