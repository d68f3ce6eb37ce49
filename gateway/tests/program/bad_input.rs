//! Whatever a peer does wrong ends its own connection with a counted reason, or is refused, and
//! nobody else notices: a healthy pair exchanges messages all the time.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use iris_protocol::framed::{FRAME_LEN_MAX, PREFACE, encode, kind};
use iris_protocol::{CloseReason, Name, Outcome, RefusalReason};

use crate::support;
use crate::support::{Classic, Event, Framed, Gateway, HealthyPair};

fn name(text: &str) -> Name<'_> {
    Name::parse(text.as_bytes()).expect("a name")
}

fn bytes(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Preface and login.
fn hello() -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    encode::login(&mut out, name("clumsy"), b"");
    out
}

fn raw_frame(length: u32, kind: u8, options_len: u16, body: &[u8]) -> Vec<u8> {
    let mut out = length.to_be_bytes().to_vec();
    out.extend([kind, 0]);
    out.extend(options_len.to_be_bytes());
    out.extend(body);
    out
}

fn framed_with(more: &[u8]) -> Vec<u8> {
    [&hello(), more].concat()
}

fn preface_with(more: &[u8]) -> Vec<u8> {
    [&PREFACE[..], more].concat()
}

fn classic_with(more: &[u8]) -> Vec<u8> {
    [b"\x01clumsy", more].concat()
}

#[test]
fn every_fault_is_closed_for_its_own_reason() {
    use CloseReason as Because;
    let gateway = Gateway::serving(&[]);
    let pair = HealthyPair::start(&gateway);
    let at = gateway.address();
    let long = [b'n'; 300];
    let named = |kind: u8, name: &[u8]| {
        let body = [&[name.len() as u8], name, &[0, 0]].concat();
        raw_frame(body.len() as u32, kind, 0, &body)
    };
    let cases: Vec<(&str, Vec<u8>, CloseReason)> = vec![
        (
            "a first byte of nobody's",
            b"\xffgarbage".to_vec(),
            Because::UnknownProtocol,
        ),
        (
            "HTTP",
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            Because::UnknownProtocol,
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01".to_vec(),
            Because::UnknownProtocol,
        ),
        (
            "an ack before all else",
            b"\x03ack".to_vec(),
            Because::UnknownProtocol,
        ),
        (
            "nearly the magic",
            b"IRIX\x01\x00\x00\x00".to_vec(),
            Because::UnknownProtocol,
        ),
        (
            "version 2",
            b"IRIS\x02\x00\x00\x00".to_vec(),
            Because::UnsupportedVersion,
        ),
        (
            "classic: a command that is none",
            classic_with(b"\x04"),
            Because::UnknownCommand,
        ),
        (
            "classic: a name with a control character",
            b"\x01a\x7fb".to_vec(),
            Because::BadName,
        ),
        (
            "classic: a name that is no UTF-8",
            b"\x01\xc3\x28".to_vec(),
            Because::BadName,
        ),
        (
            "classic: a long name",
            [b"\x01", &long[..]].concat(),
            Because::BadName,
        ),
        (
            "classic: a bad target",
            classic_with(b"\x02\x00\x01\x07\x00\x00"),
            Because::BadName,
        ),
        (
            "classic: a long target",
            classic_with(b"\x02\x01\x00"),
            Because::BadName,
        ),
        (
            "classic: an empty target",
            classic_with(b"\x02\x00\x00"),
            Because::EmptyTarget,
        ),
        (
            "classic: a send before the login",
            b"\x02\x00\x01a\x00\x01b".to_vec(),
            Because::NotLoggedIn,
        ),
        (
            "framed: a send before the login",
            preface_with(&bytes(|out| encode::send(out, 1, 0, b"bob", b""))),
            Because::NotLoggedIn,
        ),
        (
            "framed: a ping before the login",
            preface_with(&bytes(|out| encode::ping(out, 1))),
            Because::NotLoggedIn,
        ),
        (
            "framed: a bad name",
            preface_with(&named(kind::LOGIN, b"a\x00b")),
            Because::BadName,
        ),
        (
            "framed: an empty name",
            preface_with(&named(kind::LOGIN, b"")),
            Because::BadName,
        ),
        (
            "framed: a second login",
            framed_with(&bytes(|out| encode::login(out, name("another"), b""))),
            Because::AlreadyLoggedIn,
        ),
        (
            "framed: an ack of nothing",
            framed_with(&bytes(|out| encode::ack(out, 1))),
            Because::BadAck,
        ),
        (
            "framed: an ack of everything",
            framed_with(&bytes(|out| encode::ack(out, u64::MAX))),
            Because::BadAck,
        ),
        (
            "framed: a kind of nobody's",
            framed_with(&raw_frame(0, 0x7f, 0, b"")),
            Because::UnknownFrame,
        ),
        (
            "framed: a server's frame",
            framed_with(&bytes(|out| {
                encode::error(out, iris_protocol::ErrorCode::BadName, b"", "")
            })),
            Because::UnknownFrame,
        ),
        (
            "framed: a short ack",
            framed_with(&raw_frame(7, kind::ACK, 0, &[0; 7])),
            Because::BadFrame,
        ),
        (
            "framed: options longer than the frame",
            framed_with(&raw_frame(8, kind::PING, 9, &[0; 8])),
            Because::BadFrame,
        ),
        (
            "framed: a ping as long as can be",
            framed_with(&raw_frame(u32::MAX, kind::PING, 0, b"")),
            Because::FrameTooLarge,
        ),
        (
            "framed: a send beyond refusing",
            framed_with(&raw_frame(
                FRAME_LEN_MAX as u32 + 1,
                kind::SEND,
                0,
                &[0; 13],
            )),
            Because::FrameTooLarge,
        ),
        (
            "framed: a login as long as can be",
            preface_with(&raw_frame(u32::MAX, kind::LOGIN, 0, b"")),
            Because::FrameTooLarge,
        ),
    ];
    let before = gateway.metrics();
    for (what, said, reason) in &cases {
        let mut client = Framed::connect(at);
        client.say(said);
        let is_framed = said.starts_with(b"IRIS");
        if is_framed {
            let told = client.hears_such(|event| match event {
                Event::Close(reason, _) => Some(*reason),
                _ => None,
            });
            assert_eq!(told, *reason, "{what}");
            while client.hears() != Event::End {}
        } else {
            // What may come is the answer to a login.
            let stream = client.stream().try_clone().expect("a handle");
            let rest = Classic::over(stream).reads_to_end();
            assert!(
                rest.is_empty() || rest == b"\x03LOGIN_OK",
                "{what}: {rest:?}"
            );
        }
    }
    for reason in CloseReason::ALL {
        let expected = cases.iter().filter(|(_, _, is)| is == reason).count() as u64;
        let label = reason.label();
        gateway.metrics_when(label, |now| {
            now.closed(label) == before.closed(label) + expected
        });
    }
    pair.end();
}

#[test]
fn half_a_greeting_and_silence_is_a_login_timeout() {
    let gateway = Gateway::serving(&["--login-timeout", "700ms"]);
    let pair = HealthyPair::start(&gateway);
    let greeting = hello();
    let mut silent: Vec<Framed> = (0..greeting.len())
        .map(|len| {
            let mut client = Framed::connect(gateway.address());
            client.say(&greeting[..len]);
            client
        })
        .collect();
    let classic = [&b"\x01"[..], b"\x02", b"\x02\x00\x03bo"].map(|half| {
        let mut client = Classic::connect(gateway.address());
        client.say(half);
        client
    });
    let expected = silent.len() + classic.len();
    for client in &mut silent {
        loop {
            match client.hears() {
                Event::End => break,
                Event::Close(reason, _) => assert_eq!(reason, CloseReason::LoginTimeout),
                other => panic!("{other:?}"),
            }
        }
    }
    classic.into_iter().for_each(Classic::sees_the_end);
    gateway.metrics_when("all timed out", |metrics| {
        metrics.closed("login-timeout") == expected as u64
    });
    pair.end();
}

#[test]
fn what_is_refused_leaves_the_connection_alive() {
    let gateway = Gateway::serving(&["--payload-bytes-max", "2KiB"]);
    let pair = HealthyPair::start(&gateway);
    let mut client = Framed::login(gateway.address(), "clumsy");
    let refused = |client: &mut Framed, sequence: u64, target: &[u8], payload: &[u8]| {
        let mut out = Vec::new();
        encode::send(&mut out, sequence, 0, target, payload);
        client.say(&out);
        client.outcome(sequence)
    };
    for (sequence, target, payload, reason) in [
        (
            1,
            &b"bob"[..],
            &[0; 2049][..],
            RefusalReason::PayloadTooLarge,
        ),
        (2, b"bob", &[0; 3 << 20], RefusalReason::PayloadTooLarge),
        (3, b"", b"x", RefusalReason::BadTarget),
        (4, b"a\nb", b"x", RefusalReason::BadTarget),
        (5, b"\xff", b"x", RefusalReason::BadTarget),
        (0, b"bob", b"x", RefusalReason::BadSequence),
        (1 << 63, b"bob", b"x", RefusalReason::BadSequence),
    ] {
        let outcome = refused(&mut client, sequence, target, payload);
        assert_eq!(outcome, Outcome::Refused(reason));
    }
    // Kinds and options that nobody knows yet are passed over.
    client.say(&raw_frame(3, 0x80, 0, b"new"));
    client.say(&raw_frame(
        12,
        kind::PING,
        4,
        b"\x7f\x02\xaa\xbb\0\0\0\0\0\0\0\x07",
    ));
    client.hears_such(|event| (*event == Event::Pong(7)).then_some(()));
    assert_eq!(refused(&mut client, 6, b"bob", &[1; 2048]), Outcome::Stored);

    // A classic sender is not told; its message is dropped and counted.
    let mut classic = Classic::login(gateway.address(), "old");
    classic.send("old", &[b'x'; 2049]);
    classic.send("old", b"small enough");
    classic.reads_exactly(b"small enough");
    gateway.metrics_when("refusals counted", |metrics| {
        metrics.refused("payload-too-large") == 3
            && metrics.refused("bad-target") == 3
            && metrics.refused("bad-sequence") == 2
    });
    pair.end();
}

#[test]
fn floods_of_logins() {
    const ROUNDS: usize = 40;
    /// A login ends where what arrived with it ends, so they must arrive together.
    const AT_ONCE: usize = 50;
    let gateway = Gateway::serving(&[]);
    let pair = HealthyPair::start(&gateway);
    let at = gateway.address();
    // One socket that does not wait for its answers.
    let mut classic = Classic::connect(at);
    for round in 0..ROUNDS {
        let mut out = Vec::new();
        for login in 0..AT_ONCE {
            support::login_classic(&mut out, &format!("flood-{}", (round + login) % 60));
        }
        classic.say(&out);
        for _ in 0..AT_ONCE {
            classic.reads_exactly(iris_protocol::classic::LOGIN_OK);
        }
    }
    // Many sockets that fight for one user.
    let fighters: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(move || {
                for round in 0..50 {
                    if round % 2 == 0 {
                        Classic::login(at, "contested").leave();
                    } else {
                        let mut client = Framed::connect(at);
                        client.asks_in("contested", b"");
                        let first = client.hears();
                        assert!(
                            matches!(
                                first,
                                Event::Welcome(_) | Event::Close(CloseReason::Replaced, _)
                            ),
                            "{first:?}"
                        );
                    }
                }
            })
        })
        .collect();
    for fighter in fighters {
        fighter.join().expect("each login was answered");
    }
    classic.leave();
    gateway.metrics_when("all gone but the pair", |metrics| {
        metrics.sum("iris_connections") == 2 && metrics.sum("iris_sessions") == 2
    });
    pair.end();
}

/// Connects, says so much, and goes.
fn says_and_goes(at: SocketAddr, said: &[u8], resets: bool) {
    let mut stream = TcpStream::connect(at).expect("connected");
    stream.write_all(said).expect("written");
    if resets {
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).expect("set");
    }
}

#[test]
fn connections_that_end_at_any_byte_of_the_handshake() {
    let gateway = Gateway::serving(&[]);
    let pair = HealthyPair::start(&gateway);
    let framed = framed_with(&bytes(|out| encode::send(out, 1, 0, b"nobody", b"hello")));
    let mut classic = Vec::new();
    support::login_classic(&mut classic, "clumsy");
    support::send_classic(&mut classic, "nobody", b"hello");
    let mut opened = 2;
    for said in [framed, classic] {
        for len in 0..=said.len() {
            for resets in [false, true] {
                for _ in 0..3 {
                    says_and_goes(gateway.address(), &said[..len], resets);
                    opened += 1;
                }
            }
        }
    }
    gateway.metrics_when("all gone but the pair", |metrics| {
        metrics.sum("iris_connections") == 2
            && metrics.sum("iris_sessions") == 2
            && metrics.closed_in_all() == opened - 2
            && metrics.sum("iris_partial_bytes") == 0
    });
    pair.end();
}

#[test]
fn a_full_server_refuses_and_counts() {
    let gateway = Gateway::serving(&["--max-connections", "8"]);
    let mut clients: Vec<Classic> = (0..8)
        .map(|number| Classic::login(gateway.address(), &format!("guest-{number}")))
        .collect();
    for _ in 0..5 {
        Classic::connect(gateway.address()).sees_the_end();
    }
    gateway.metrics_when("refused", |metrics| {
        metrics.closed("server-full") == 5 && metrics.sum("iris_connections") == 8
    });
    clients.pop().expect("eight").leave();
    support::eventually("a free place", || {
        let mut client = Framed::connect(gateway.address());
        client.asks_in("late", b"");
        matches!(client.hears(), Event::Welcome(_)).then_some(())
    });
    clients[0].send("guest-1", b"as ever");
    clients[1].reads_exactly(b"as ever");
}
