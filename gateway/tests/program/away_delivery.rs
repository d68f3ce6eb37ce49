//! Messages to users who are away: stored, found in order at the next login, gone once read, and
//! there after a restart, however the gateway ended.

use std::time::Duration;

use iris_protocol::{Outcome, classic};

use crate::support;
use crate::support::{Classic, Framed, Gateway};

/// A reader's name on each core.
fn readers(gateway: &Gateway, stem: &str) -> [String; 2] {
    [0, 1].map(|core| gateway.users_of(core, stem, 1).remove(0))
}

#[test]
fn stored_found_in_order_and_then_gone() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let mut alice = Framed::login(at, "alice");
    for reader in readers(&gateway, "away") {
        for text in ["one", "two", "three"] {
            assert_eq!(alice.sends(&reader, text.as_bytes()), Outcome::Stored);
        }
        let (mut bob, depth) = Framed::login_depth(at, &reader);
        assert_eq!(depth, 3);
        for (text, delivery) in [("one", 1), ("two", 2), ("three", 3)] {
            let message = bob.receives();
            assert_eq!(message.text(), text);
            assert_eq!(
                (message.delivery, message.sender.as_str()),
                (delivery, "alice")
            );
        }
        bob.ack(3);
        bob.leave();
        // Nothing comes again, also before the store has caught up with the ack.
        let mut bob = Framed::login(at, &reader);
        bob.hears_nothing_for(Duration::from_millis(100));
        bob.leave();
        Framed::inbox_becomes(at, &reader, 0);
    }
}

#[test]
fn a_classic_reader_finds_them_behind_the_answer_to_its_login() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let mut alice = Framed::login(at, "alice");
    for reader in readers(&gateway, "away") {
        for text in ["one ", "two ", "three"] {
            assert_eq!(alice.sends(&reader, text.as_bytes()), Outcome::Stored);
        }
        let mut bob = Classic::login(at, &reader);
        bob.reads_exactly(b"one two three");
        bob.leave();
        // Its TCP had them, so they are gone.
        let mut bob = Classic::login(at, &reader);
        bob.send(&reader, b"only this");
        bob.reads_exactly(b"only this");
        bob.leave();
        Framed::inbox_becomes(at, &reader, 0);
    }
}

#[test]
fn what_a_classic_sender_leaves_is_found() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    for reader in readers(&gateway, "away") {
        let mut alice = Classic::login(at, "alice");
        for number in 0..500u32 {
            alice.send(&reader, &number.to_be_bytes());
        }
        alice.leave();
        let mut bob = Framed::login(at, &reader);
        for number in 0..500u32 {
            assert_eq!(bob.takes().payload, number.to_be_bytes());
        }
    }
}

#[test]
fn it_survives_a_restart_and_what_was_read_does_not_come_again() {
    let mut gateway = Gateway::serving(&[]);
    let readers = readers(&gateway, "away");
    let mut alice = Framed::login(gateway.address(), "alice");
    for reader in &readers {
        for text in ["read", "kept", "last"] {
            assert_eq!(alice.sends(reader, text.as_bytes()), Outcome::Stored);
        }
        let mut bob = Framed::login(gateway.address(), reader);
        assert_eq!(bob.takes().text(), "read");
        bob.leave();
    }
    gateway.stop();
    gateway.start_again();
    for reader in &readers {
        let (mut bob, depth) = Framed::login_depth(gateway.address(), reader);
        assert_eq!(depth, 2);
        assert_eq!(bob.takes().text(), "kept");
        assert_eq!(bob.takes().text(), "last");
        bob.leave();
    }
    gateway.stop();
    gateway.start_again();
    for reader in &readers {
        assert_eq!(Framed::login_depth(gateway.address(), reader).1, 0);
    }
}

#[test]
fn what_was_answered_survives_a_kill_right_after_the_answer() {
    let mut gateway = Gateway::serving(&[]);
    let readers = readers(&gateway, "away");
    let mut ids = Vec::new();
    for (round, reader) in readers.iter().enumerate() {
        let mut alice = Framed::login(gateway.address(), "alice");
        let sequence = 1 + round as u64;
        alice.send_as(sequence, reader, b"survives");
        let answer = alice.answer(sequence);
        gateway.kill();
        assert_eq!(answer.outcome, Outcome::Stored);
        ids.push(answer.id);
        gateway.start_again();
    }
    for (reader, id) in readers.iter().zip(ids) {
        let (mut bob, depth) = Framed::login_depth(gateway.address(), reader);
        let message = bob.takes();
        assert_eq!((depth, message.text()), (1, "survives".to_owned()));
        assert_eq!((message.id, message.sender.as_str()), (id, "alice"));
    }
}

#[test]
fn without_an_ack_it_comes_again_with_the_same_id() {
    let mut gateway = Gateway::serving(&[]);
    for reader in readers(&gateway, "forgetful") {
        let at = gateway.address();
        let mut alice = Framed::login(at, "alice");
        let mut bob = Framed::login(at, &reader);
        let base = if gateway.home(&reader) == 0 { 0 } else { 10 };
        // One goes through the inbox, one straight to a session that ends without an ack.
        alice.send_as(base + 1, &reader, b"online");
        let online = bob.receives();
        drop(bob);
        assert_eq!(alice.outcome(base + 1), Outcome::Stored);
        alice.send_as(base + 2, &reader, b"away");
        assert_eq!(alice.outcome(base + 2), Outcome::Stored);

        let mut second_id = None;
        for round in 0..3 {
            let (mut bob, depth) = Framed::login_depth(gateway.address(), &reader);
            assert_eq!(depth, 2, "round {round}");
            let (first, second) = (bob.receives(), bob.receives());
            assert_eq!((first.id, first.text()), (online.id, "online".to_owned()));
            assert_eq!(first.sent_at_ms, online.sent_at_ms);
            assert_eq!(second.text(), "away");
            assert_eq!(*second_id.get_or_insert(second.id), second.id);
            match round {
                0 => bob.leave(),
                1 => {
                    drop(bob);
                    gateway.kill();
                    gateway.start_again();
                }
                _ => {
                    bob.ack(second.delivery);
                    bob.leave();
                }
            }
        }
        Framed::inbox_becomes(gateway.address(), &reader, 0);
    }
}

#[test]
fn a_repeat_keeps_its_id_and_is_not_delivered_twice() {
    let gateway = Gateway::serving(&[]);
    for reader in readers(&gateway, "once") {
        let at = gateway.address();
        let mut alice = Framed::login(at, "alice");
        let base = if gateway.home(&reader) == 0 { 0 } else { 100 };
        alice.send_as(base + 7, &reader, b"seven");
        let first = alice.answer(base + 7);
        // On the same connection, then as after a lost connection.
        alice.send_as(base + 7, &reader, b"seven");
        assert_eq!(alice.answer(base + 7), first);
        drop(alice);
        let mut alice = Framed::login(at, "alice");
        alice.send_as(base + 7, &reader, b"seven");
        assert_eq!(alice.answer(base + 7), first);
        alice.send_as(base + 8, &reader, b"eight");
        assert_eq!(alice.outcome(base + 8), Outcome::Stored);

        let (mut bob, depth) = Framed::login_depth(at, &reader);
        assert_eq!(depth, 2);
        let message = bob.takes();
        assert_eq!((message.id, message.text()), (first.id, "seven".to_owned()));
        assert_eq!(bob.takes().text(), "eight");
        // Also when it comes while the first is still with its reader.
        alice.send_as(base + 9, &reader, b"nine");
        let nine = bob.receives();
        alice.send_as(base + 9, &reader, b"nine");
        alice.is_heard();
        bob.ack(nine.delivery);
        assert_eq!(alice.outcome(base + 9), Outcome::Delivered);
        bob.hears_nothing_for(Duration::from_millis(100));
        bob.leave();
        alice.leave();
    }
    let metrics = gateway.metrics_when("repeats counted", |metrics| {
        metrics.sum("iris_duplicates_dropped_total") == 6
    });
    assert_eq!(
        metrics.sum("iris_messages_received_total{protocol=\"framed\"}"),
        6
    );
}

#[test]
fn a_repeat_after_a_kill_keeps_its_id() {
    let mut gateway = Gateway::serving(&[]);
    let mut alice = Framed::login(gateway.address(), "alice");
    alice.send_as(5, "bob", b"five");
    let before = alice.answer(5);
    gateway.kill();
    gateway.start_again();
    // What the gateway knew of the first try is gone; the id follows from who sent it and the number.
    let mut alice = Framed::login(gateway.address(), "alice");
    alice.send_as(5, "bob", b"five");
    assert_eq!(alice.answer(5), before);
    let (mut bob, depth) = Framed::login_depth(gateway.address(), "bob");
    assert_eq!(depth, 2, "the reader drops the repeat by its id");
    assert_eq!(bob.takes().id, before.id);
    assert_eq!(bob.takes().id, before.id);
}

#[test]
fn a_deep_inbox_drains_in_order_while_more_comes() {
    const STORED: u32 = 5_000;
    const MORE: u32 = 5_000;
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    for (reader, is_classic) in readers(&gateway, "deep").into_iter().zip([true, false]) {
        let mut alice = Classic::login(at, "alice");
        let mut out = Vec::new();
        for number in 0..STORED {
            support::send_classic(&mut out, &reader, &number.to_be_bytes());
        }
        alice.say(&out);
        let mut more = Vec::new();
        for number in STORED..STORED + MORE {
            support::send_classic(&mut more, &reader, &number.to_be_bytes());
        }
        if is_classic {
            let mut bob = Classic::connect(at);
            alice.say(&more);
            bob.become_user(&reader);
            for number in 0..STORED + MORE {
                assert_eq!(bob.read(4), number.to_be_bytes());
            }
        } else {
            let mut bob = Framed::login(at, &reader);
            alice.say(&more);
            for number in 0..STORED + MORE {
                let message = bob.receives();
                assert_eq!(message.payload, number.to_be_bytes());
                if number % 100 == 99 {
                    bob.ack(message.delivery);
                }
            }
        }
    }
}

#[test]
fn a_login_and_the_inbox_may_share_a_segment() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let mut alice = Framed::login(at, "alice");
    assert_eq!(alice.sends("bob", b"waited"), Outcome::Stored);
    let mut bob = Classic::connect(at);
    let mut out = Vec::new();
    support::login_classic(&mut out, "bob");
    support::send_classic(&mut out, "bob", b" and more");
    bob.say(&out);
    bob.reads_exactly(classic::LOGIN_OK);
    bob.reads_exactly(b"waited and more");
}
