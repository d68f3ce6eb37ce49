//! What keeps a session alive and who may have one: idle time-out, ping and pong, the shared secret.

use std::time::{Duration, Instant};

use iris_protocol::CloseReason;
use iris_protocol::framed::encode;

use crate::support::{Classic, Event, Framed, Gateway};

#[test]
fn silence_ends_a_framed_session_and_a_ping_keeps_it() {
    let gateway = Gateway::serving(&["--idle-timeout", "1s"]);
    let at = gateway.address();
    let mut pinging = Framed::login(at, "pinging");
    let mut classic = Classic::login(at, "classic");
    let mut silent = Framed::connect(at);
    let welcome = silent.logs_in("silent", b"");
    assert_eq!(welcome.idle_timeout_ms, 1_000);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2_500) {
        pinging.is_heard();
        // Hearing something is no sign of life.
        if begun.elapsed() < Duration::from_millis(700) {
            pinging.send("silent", b"are you there?");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(silent.is_closed().0, CloseReason::IdleTimeout);
    // A classic client has no ping, and may be silent for as long as it likes.
    classic.send("pinging", b"still here");
    let text = pinging.hears_such(|event| match event {
        Event::Deliver(message) => Some(message.text()),
        _ => None,
    });
    assert_eq!(text, "still here");
    gateway.metrics_when("the time-out is counted", |metrics| {
        metrics.closed("idle-timeout") == 1
    });
}

#[test]
fn a_ping_is_answered_with_its_nonce_in_order() {
    let gateway = Gateway::serving(&[]);
    let mut client = Framed::login(gateway.address(), "pinging");
    let mut out = Vec::new();
    for nonce in 0..1_000 {
        encode::ping(&mut out, nonce);
    }
    client.say(&out);
    for nonce in 0..1_000 {
        assert_eq!(client.hears(), Event::Pong(nonce));
    }
    // A pong nobody asked for is a sign of life and no more.
    out.clear();
    encode::pong(&mut out, 7);
    client.say(&out);
    client.is_heard();
}

#[test]
fn with_a_secret_only_who_shows_it_gets_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "correct horse battery\n").expect("written");
    let secret = secret.to_str().expect("UTF-8");
    let gateway = Gateway::serving(&["--secret-file", secret]);
    let at = gateway.address();
    for wrong in [
        &b""[..],
        b"correct",
        b"correct horse battery\n",
        b"Correct horse battery",
    ] {
        let mut client = Framed::connect(at);
        client.asks_in("alice", wrong);
        assert_eq!(client.is_closed().0, CloseReason::BadCredential);
        assert_eq!(client.hears(), Event::End);
    }
    let mut classic = Classic::connect(at);
    classic.say(b"\x01alice");
    classic.sees_the_end();
    let mut alice = Framed::connect(at);
    alice.logs_in("alice", b"correct horse battery");
    let mut bob = Framed::connect(at);
    bob.logs_in("bob", b"correct horse battery");
    alice.send("bob", b"hello");
    assert_eq!(bob.takes().text(), "hello");
    gateway.metrics_when("refusals counted", |metrics| {
        metrics.closed("bad-credential") == 5 && metrics.sum("iris_sessions") == 2
    });
}

#[test]
fn the_welcome_tells_the_limits_in_force() {
    let gateway = Gateway::serving(&[
        "--payload-bytes-max",
        "2KiB",
        "--unanswered-sends-max",
        "11",
        "--unacked-deliveries-max",
        "12",
        "--follows-max",
        "13",
        "--idle-timeout",
        "14s",
    ]);
    let welcome = Framed::connect(gateway.address()).logs_in("alice", b"");
    assert_eq!(
        [
            welcome.payload_bytes_max,
            welcome.unanswered_sends_max,
            welcome.unacked_deliveries_max,
            welcome.follows_max,
            welcome.idle_timeout_ms,
        ],
        [2_048, 11, 12, 13, 14_000]
    );
    assert_eq!(welcome.inbox_messages, 0);
}
