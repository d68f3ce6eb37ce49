//! Messages between users who are online: both protocols, both ways between the cores, in order.

use std::collections::HashSet;
use std::thread;

use iris_protocol::Outcome;
use iris_protocol::framed::encode;

use crate::support;
use crate::support::{Classic, Framed, Gateway};

/// A pair of users on one core, and pairs across, both ways.
fn pairs(gateway: &Gateway, stem: &str) -> Vec<(String, String)> {
    let zero = gateway.users_of(0, stem, 2);
    let one = gateway.users_of(1, stem, 2);
    vec![
        (zero[0].clone(), zero[1].clone()),
        (one[0].clone(), one[1].clone()),
        (zero[0].clone(), one[0].clone()),
        (one[0].clone(), zero[0].clone()),
    ]
}

#[test]
fn classic_to_classic_within_and_across_cores() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    for (sender, reader) in pairs(&gateway, "classic") {
        let mut bob = Classic::login(at, &reader);
        let mut alice = Classic::login(at, &sender);
        alice.send(&reader, b"one");
        alice.send(&reader, b"two");
        bob.reads_exactly(b"onetwo");
        bob.send(&sender, b"back");
        alice.reads_exactly(b"back");
        alice.leave();
        bob.leave();
    }
    let metrics = gateway.metrics_when("all delivered", |metrics| {
        metrics.sum("iris_messages_delivered_total") == 12 && metrics.sum("iris_connections") == 0
    });
    assert_eq!(metrics.closed("peer-closed"), 8);
    assert_eq!(
        metrics.sum("iris_messages_received_total{protocol=\"classic\"}"),
        12
    );
    // Two pairs stay on their core, two cross with three messages each.
    assert_eq!(metrics.sum("iris_lane_sent_total"), 6);
}

#[test]
fn framed_to_framed_is_delivered_when_its_reader_says_so() {
    let gateway = Gateway::serving(&["--ack-timeout", "1min"]);
    let at = gateway.address();
    for (sender, reader) in pairs(&gateway, "framed") {
        let mut bob = Framed::login(at, &reader);
        let mut alice = Framed::login(at, &sender);
        alice.warms_up(&reader, || {
            bob.takes();
        });
        let sequence = alice.send(&reader, b"hello");
        let message = bob.receives();
        assert_eq!(
            (message.text(), message.sender.as_str()),
            ("hello".to_owned(), sender.as_str())
        );
        // Until the reader has said so, there is no answer.
        alice.is_heard();
        alice.hears_nothing_for(std::time::Duration::from_millis(100));
        bob.ack(message.delivery);
        let answer = alice.answer(sequence);
        assert_eq!(
            (answer.outcome, answer.id),
            (Outcome::Delivered, message.id)
        );

        // Another message of the same sender has another id, whose halves are others too.
        let second = alice.send(&reader, b"");
        let (one, other) = (message.id.to_bytes(), bob.takes().id.to_bytes());
        assert!(one[..8] != other[..8] && one[8..] != other[8..]);
        assert_eq!(alice.outcome(second), Outcome::Delivered);
        alice.leave();
        bob.leave();
    }
}

#[test]
fn the_protocols_mix() {
    let gateway = Gateway::serving(&["--ack-timeout", "1min"]);
    let at = gateway.address();
    for (old, new) in pairs(&gateway, "mixed") {
        let mut classic = Classic::login(at, &old);
        let mut framed = Framed::login(at, &new);
        classic.send(&new, b"from the old");
        let message = framed.takes();
        assert_eq!(
            (message.text(), message.sender),
            ("from the old".to_owned(), old.clone())
        );
        // A classic reader's TCP acknowledges for it.
        framed.warms_up(&old, || classic.reads_exactly(b"warm"));
        // To oneself, too.
        let sequence = framed.send(&new, b"note");
        assert_eq!(framed.takes().text(), "note");
        assert_eq!(framed.outcome(sequence), Outcome::Delivered);
        classic.send(&old, b"note");
        classic.reads_exactly(b"note");
        classic.leave();
        framed.leave();
    }
}

#[test]
fn sockets_move_to_the_homes_of_their_users_both_ways() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    // The kernel spreads connections over both cores, so with this many some move each way.
    let mut names = gateway.users_of(0, "mover", 20);
    names.extend(gateway.users_of(1, "mover", 20));
    names.sort();
    let mut clients: Vec<Framed> = names.iter().map(|name| Framed::login(at, name)).collect();
    let mut sent = Vec::new();
    for (client, name) in clients.iter_mut().zip(&names) {
        let to = |target: &String| client.send(target, name.as_bytes());
        sent.push(names.iter().map(to).collect::<Vec<u64>>());
    }
    for client in &mut clients {
        let mut senders: Vec<String> = names.iter().map(|_| client.takes().text()).collect();
        senders.sort();
        assert_eq!(senders, names);
    }
    for (client, sequences) in clients.iter_mut().zip(sent) {
        for sequence in sequences {
            let outcome = client.outcome(sequence);
            assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        }
    }
    let metrics = gateway.metrics_when("moves shown", |metrics| {
        metrics.sum("iris_handed_over_total") > 0
            && metrics.sum("iris_messages_delivered_total") == 1600
    });
    assert_eq!(metrics.sum("iris_sessions"), 40);
    assert_eq!(metrics.sum("iris_lane_sent_total"), 800);
    let page = gateway.page("/metrics").1;
    for core in 0..2 {
        let none = format!("iris_handed_over_total{{core=\"{core}\"}} 0\n");
        assert!(!page.contains(&none), "no socket left core {core}");
    }
}

#[test]
fn thousands_of_pipelined_messages_keep_their_order() {
    const MESSAGES: u64 = 20_000;
    const WINDOW: u64 = 512;
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    for (pair, (sender, reader)) in pairs(&gateway, "ordered").into_iter().enumerate() {
        let mut bob = Framed::login(at, &reader);
        let mut alice = Framed::login(at, &sender);
        // A user's numbers are never used again.
        let base = pair as u64 * MESSAGES;
        let target = reader.clone();
        let writing = thread::spawn(move || {
            let mut out = Vec::new();
            for first in (base + 1..=base + MESSAGES).step_by(WINDOW as usize) {
                let last = (first + WINDOW - 1).min(base + MESSAGES);
                out.clear();
                for sequence in first..=last {
                    let payload = sequence.to_be_bytes();
                    let target = target.as_bytes();
                    encode::send(&mut out, sequence, 0, target, &payload);
                }
                alice.say(&out);
                for sequence in first..=last {
                    let outcome = alice.outcome(sequence);
                    // Stored is as good an answer, if the machine is busy.
                    assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
                }
            }
        });
        let mut ids = HashSet::new();
        for expected in base + 1..=base + MESSAGES {
            let message = bob.receives();
            assert_eq!(
                message.payload,
                expected.to_be_bytes(),
                "{sender} to {reader}"
            );
            assert!(ids.insert(message.id), "{sender} to {reader}");
            if expected % 32 == 0 {
                bob.ack(message.delivery);
            }
        }
        writing.join().expect("all answered");
    }
}

#[test]
fn thousands_of_classic_messages_in_one_stream_keep_their_order() {
    const MESSAGES: u32 = 20_000;
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    for (sender, reader) in pairs(&gateway, "stream") {
        let mut bob = Classic::login(at, &reader);
        let mut alice = Classic::login(at, &sender);
        let target = reader.clone();
        let writing = thread::spawn(move || {
            let mut out = Vec::new();
            for number in 0..MESSAGES {
                support::send_classic(&mut out, &target, &number.to_be_bytes());
            }
            alice.say(&out);
            alice
        });
        for number in 0..MESSAGES {
            assert_eq!(bob.read(4), number.to_be_bytes(), "{sender} to {reader}");
        }
        drop(writing.join().expect("all written"));
    }
}
