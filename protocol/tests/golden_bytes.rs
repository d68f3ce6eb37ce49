//! The bytes in `SPEC.md` are the bytes of the code, both ways: what the text shows decodes to what
//! it says, and that encodes to what the text shows.

use std::collections::BTreeSet;

use iris_protocol::classic::{self, Command};
use iris_protocol::framed::{
    self, Answer, DecodeLimits, Decoded, Frame, PREFACE, Preface, Presence, Welcome, encode, kind,
};
use iris_protocol::{CloseReason, ErrorCode, MessageId, Name, Outcome, RefusalReason};

mod spec;

const LIMITS: DecodeLimits = DecodeLimits::READER;

fn name(text: &str) -> Name<'_> {
    Name::parse(text.as_bytes()).expect("a valid name")
}

const FIRST: u128 = 0x9d41_07e6_b358_2cfa_601f_8ed5_34a9_72cb;
const SECOND: u128 = 0x27f8_5b90_0ec4_61ad_d93a_8612_7cef_43b5;

fn id(bytes: u128) -> MessageId {
    MessageId::from_bytes(bytes.to_be_bytes())
}

/// What the text says of each framed block, but for those in [`APART`].
fn framed_examples() -> Vec<(&'static str, Frame<'static>)> {
    let (alice, bob) = (name("alice"), name("bob"));
    vec![
        (
            "framed.login",
            Frame::Login {
                user: alice,
                credential: b"secret",
            },
        ),
        (
            "framed.welcome",
            Frame::Welcome(Welcome {
                payload_bytes_max: 65_536,
                unanswered_sends_max: 1024,
                unacked_deliveries_max: 4096,
                idle_timeout_ms: 300_000,
                follows_max: 128,
                inbox_messages: 2,
                server_time_ms: 1_790_000_000_000,
            }),
        ),
        (
            "framed.send",
            Frame::Send {
                sequence: 1,
                ttl_seconds: 3600,
                target: b"bob",
                payload: b"hello",
            },
        ),
        (
            "framed.deliver",
            Frame::Deliver {
                delivery: 1,
                id: id(FIRST),
                sent_at_ms: 1_790_000_000_123,
                sender: alice,
                payload: b"hello",
            },
        ),
        ("framed.ack", Frame::Ack { delivery: 1 }),
        ("framed.ping", Frame::Ping { nonce: 42 }),
        ("framed.pong", Frame::Pong { nonce: 42 }),
        ("framed.presence-ask", Frame::PresenceAsk { user: b"bob" }),
        ("framed.follow", Frame::Follow { user: b"bob" }),
        ("framed.unfollow", Frame::Unfollow { user: b"bob" }),
        (
            "framed.presence-online",
            Frame::Presence {
                user: bob,
                state: Presence::Online,
            },
        ),
        (
            "framed.presence-away",
            Frame::Presence {
                user: bob,
                state: Presence::Away {
                    last_seen_ms: 1_790_000_000_000,
                },
            },
        ),
        (
            "framed.error",
            Frame::Error {
                code: ErrorCode::FollowLimit,
                subject: b"bob",
                text: "too many",
            },
        ),
        (
            "framed.close",
            Frame::Close {
                reason: CloseReason::Draining,
                retry_after_ms: 5000,
                text: "restart",
            },
        ),
    ]
}

/// Blocks that have a test of their own below.
const APART: [&str; 8] = [
    "classic.ack",
    "classic.login",
    "classic.login-ok",
    "classic.send",
    "framed.answers",
    "framed.optional-kind",
    "framed.options",
    "framed.preface",
];

#[test]
fn every_block_is_tested_and_every_kind_has_one() {
    let shown: BTreeSet<&str> = spec::golden_bytes().into_keys().collect();
    let examples = framed_examples().into_iter().map(|(name, _)| name);
    let tested: BTreeSet<&str> = examples.chain(APART).collect();
    assert_eq!(shown, tested);

    let kinds: BTreeSet<u8> = spec::golden_bytes()
        .iter()
        .filter(|(name, _)| name.starts_with("framed.") && **name != "framed.preface")
        .map(|(_, bytes)| bytes[4])
        .collect();
    let mut listed = BTreeSet::from(kinds_in_table());
    listed.insert(kind::FIRST_OPTIONAL);
    assert_eq!(kinds, listed);
}

/// The kinds in the table of frames, each named as in the code.
fn kinds_in_table() -> [u8; 14] {
    let known = [
        ("LOGIN", kind::LOGIN, "client"),
        ("WELCOME", kind::WELCOME, "server"),
        ("SEND", kind::SEND, "client"),
        ("ANSWERS", kind::ANSWERS, "server"),
        ("DELIVER", kind::DELIVER, "server"),
        ("ACK", kind::ACK, "client"),
        ("PING", kind::PING, "both"),
        ("PONG", kind::PONG, "both"),
        ("PRESENCE_ASK", kind::PRESENCE_ASK, "client"),
        ("FOLLOW", kind::FOLLOW, "client"),
        ("UNFOLLOW", kind::UNFOLLOW, "client"),
        ("PRESENCE", kind::PRESENCE, "server"),
        ("ERROR", kind::ERROR, "server"),
        ("CLOSE", kind::CLOSE, "both"),
    ];
    for (name, kind, side) in known {
        let row = format!("| `{kind:02x}` | [{name}](");
        let row = spec::TEXT.lines().find(|line| line.starts_with(&row));
        let row = row.unwrap_or_else(|| panic!("no row for {name}"));
        assert!(row.contains(&format!("| {side} |")), "{row}");
    }
    known.map(|(_, kind, _)| kind)
}

#[test]
fn framed_blocks_decode_and_encode() {
    let golden = spec::golden_bytes();
    for (name, frame) in framed_examples() {
        let bytes = &golden[name];
        assert_eq!(
            framed::decode(bytes, &LIMITS),
            Ok(Decoded::Frame(frame, bytes.len())),
            "{name}"
        );
        let mut encoded = Vec::new();
        encode::frame(&mut encoded, &frame);
        assert_eq!(&encoded, bytes, "{name}");
    }
}

#[test]
fn answers_decode_and_encode() {
    let bytes = &spec::golden_bytes()["framed.answers"];
    let expected = [
        Answer {
            sequence: 1,
            id: id(FIRST),
            outcome: Outcome::Delivered,
        },
        Answer {
            sequence: 2,
            id: id(SECOND),
            outcome: Outcome::Refused(RefusalReason::InboxFull),
        },
    ];
    let Ok(Decoded::Frame(Frame::Answers(answers), consumed)) = framed::decode(bytes, &LIMITS)
    else {
        panic!("not answers");
    };
    assert_eq!(consumed, bytes.len());
    assert_eq!(answers.len(), 2);
    assert!(answers.eq(expected));
    let mut encoded = Vec::new();
    encode::answers(&mut encoded, expected);
    assert_eq!(&encoded, bytes);
    assert_eq!(encode::answers_len(2), bytes.len());
}

#[test]
fn options_and_optional_kinds_are_skipped() {
    let golden = spec::golden_bytes();
    let bytes = &golden["framed.options"];
    assert_eq!(
        framed::decode(bytes, &LIMITS),
        Ok(Decoded::Frame(Frame::Ping { nonce: 7 }, bytes.len()))
    );
    let bytes = &golden["framed.optional-kind"];
    assert_eq!(
        framed::decode(bytes, &LIMITS),
        Ok(Decoded::Skipped(bytes.len()))
    );
}

#[test]
fn preface_is_the_constant() {
    assert_eq!(spec::golden_bytes()["framed.preface"], PREFACE);
    assert_eq!(
        framed::preface(&PREFACE),
        Ok(Some(Preface { major: 1, minor: 0 }))
    );
}

#[test]
fn classic_blocks_decode_and_encode() {
    let golden = spec::golden_bytes();
    assert_eq!(golden["classic.login-ok"], classic::LOGIN_OK);

    let (user, target, payload) = (name("alice"), name("bob"), &b"hello"[..]);
    let login = &golden["classic.login"];
    let decoded = Ok(Some((Command::Login(user), login.len())));
    assert_eq!(classic::decode(login), decoded);
    let mut encoded = Vec::new();
    classic::encode_login(&mut encoded, user);
    assert_eq!(&encoded, login);

    let send = &golden["classic.send"];
    let decoded = Ok(Some((Command::Send { target, payload }, send.len())));
    assert_eq!(classic::decode(send), decoded);
    let mut encoded = Vec::new();
    classic::encode_send(&mut encoded, target, payload);
    assert_eq!(&encoded, send);

    let ack = &golden["classic.ack"];
    assert_eq!(classic::decode(ack), Ok(Some((Command::Ack, ack.len()))));
}
