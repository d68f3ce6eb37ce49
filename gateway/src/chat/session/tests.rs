//! The session against frames as a gateway would send them.

use super::*;
use crate::chat::line;
use iris_protocol::RefusalReason;
use iris_protocol::framed::{Answer, DecodeLimits, Decoded, PREFACE_LEN, decode};

const ID: MessageId = id(0xab << 64 | 7);

const fn id(bytes: u128) -> MessageId {
    MessageId::from_bytes(bytes.to_be_bytes())
}

fn welcome(window: u32, inbox: u64) -> Frame<'static> {
    Frame::Welcome(Welcome {
        payload_bytes_max: 65_536,
        unanswered_sends_max: window,
        unacked_deliveries_max: 10,
        idle_timeout_ms: 300_000,
        follows_max: 10,
        inbox_messages: inbox,
        server_time_ms: 0,
    })
}

fn deliver(delivery: u64, id: MessageId, payload: &[u8]) -> Frame<'_> {
    let sender = Name::parse(b"bob").expect("a name");
    Frame::Deliver {
        delivery,
        id,
        sent_at_ms: 0,
        sender,
        payload,
    }
}

fn logged_in(window: u32, inbox: u64) -> Session {
    let mut session = Session::new("alice".to_owned(), b"secret".to_vec());
    session.connected();
    session.received(&welcome(window, inbox)).expect("let in");
    session.out.clear();
    session.lines.clear();
    session
}

fn type_line(session: &mut Session, text: &str) {
    session.typed(&line::parse(text).expect("a line"));
}

/// What the session wrote, shown one frame a line, and forgets it.
fn written(session: &mut Session) -> Vec<String> {
    let bytes = std::mem::take(&mut session.out);
    let mut rest = bytes.strip_prefix(&PREFACE[..]).unwrap_or(&bytes);
    let mut shown = Vec::new();
    while let Ok(Decoded::Frame(frame, len)) = decode(
        rest,
        &DecodeLimits {
            payload_bytes_max: 65_536,
        },
    ) {
        shown.push(match frame {
            Frame::Send {
                sequence,
                target,
                payload,
                ..
            } => {
                format!(
                    "{sequence} @{} {}",
                    String::from_utf8_lossy(target),
                    String::from_utf8_lossy(payload)
                )
            }
            other => format!("{other:?}"),
        });
        rest = &rest[len..];
    }
    assert!(rest.is_empty(), "{rest:?}");
    shown
}

fn sequences(session: &mut Session) -> Vec<u64> {
    written(session)
        .iter()
        .map(|line| {
            line.split(' ')
                .next()
                .expect("a word")
                .parse()
                .expect("a number")
        })
        .collect()
}

/// Answers one send, by way of the bytes, as `Answers` can only be decoded.
fn answer(session: &mut Session, sequence: u64, outcome: Outcome) {
    let mut bytes = Vec::new();
    encode::answers(
        &mut bytes,
        [Answer {
            sequence,
            id: ID,
            outcome,
        }],
    );
    match decode(
        &bytes,
        &DecodeLimits {
            payload_bytes_max: 65_536,
        },
    ) {
        Ok(Decoded::Frame(frame, _)) => session.received(&frame).expect("alive"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn login_comes_first_and_sends_wait_for_the_welcome() {
    let mut session = Session::new("alice".to_owned(), b"secret".to_vec());
    session.connected();
    type_line(&mut session, "@bob early");
    assert_eq!(
        session.out.len(),
        PREFACE_LEN + framed::HEADER_LEN + 1 + 5 + 2 + 6,
        "preface and login only"
    );
    assert!(written(&mut session)[0].starts_with("Login"));
    session.received(&welcome(10, 0)).expect("let in");
    assert!(written(&mut session)[0].ends_with("@bob early"));
}

#[test]
fn each_send_gets_its_outcome() {
    let mut session = logged_in(10, 0);
    for text in ["@bob a", "@bob b", "@bob c"] {
        type_line(&mut session, text);
    }
    let numbers = sequences(&mut session);
    assert!(
        numbers[0] > 1_600_000_000_000_000,
        "microseconds since 1970"
    );
    assert_eq!(numbers, [numbers[0], numbers[0] + 1, numbers[0] + 2]);
    answer(&mut session, numbers[1], Outcome::Stored);
    answer(&mut session, numbers[0], Outcome::Delivered);
    assert!(!session.is_finished());
    answer(
        &mut session,
        numbers[2],
        Outcome::Refused(RefusalReason::InboxFull),
    );
    assert!(session.is_finished());
    let id = "(id 00000000000000ab0000000000000007)";
    assert_eq!(session.lines[0], format!("@bob stored  {id}"));
    assert_eq!(session.lines[1], format!("@bob delivered  {id}"));
    assert!(
        session.lines[2].starts_with("@bob refused: inbox-full, "),
        "{}",
        session.lines[2]
    );
    // An answer that was not asked for says nothing.
    answer(&mut session, 5, Outcome::Delivered);
    assert_eq!(session.lines.len(), 3);
}

#[test]
fn unanswered_sends_go_out_again_in_order_with_their_numbers() {
    let mut session = logged_in(2, 0);
    for text in ["@bob a", "@bob b", "@bob c"] {
        type_line(&mut session, text);
    }
    let first = sequences(&mut session);
    assert_eq!(first.len(), 2, "the gateway takes two at once");
    answer(&mut session, first[0], Outcome::Delivered);
    let third = sequences(&mut session);
    assert_eq!(third, [first[0] + 2]);
    session.disconnected();
    type_line(&mut session, "@bob d");
    session.connected();
    session.out.clear();
    session.received(&welcome(2, 0)).expect("let in");
    assert_eq!(
        sequences(&mut session),
        [first[1], third[0]],
        "the answered one is not repeated"
    );
    answer(&mut session, first[1], Outcome::Delivered);
    assert_eq!(sequences(&mut session), [first[0] + 3]);
}

#[test]
fn a_delivery_is_acknowledged_after_it_was_printed() {
    let mut session = logged_in(10, 2);
    session
        .received(&deliver(1, ID, b"hello\x1b[2J"))
        .expect("alive");
    assert!(
        written(&mut session).is_empty(),
        "acknowledged before it was printed"
    );
    assert_eq!(
        std::mem::take(&mut session.lines),
        ["bob: hello\\u{1b}[2J  (id 00000000000000ab0000000000000007, 1970-01-01 00:00:00Z)"]
    );
    session
        .received(&deliver(2, id(8), b"more"))
        .expect("alive");
    session.printed();
    assert_eq!(
        written(&mut session),
        ["Ack { delivery: 2 }"],
        "one ack for both"
    );
    session.printed();
    assert!(written(&mut session).is_empty());
    assert!(session.is_finished());
}

#[test]
fn a_repeat_is_acknowledged_but_not_printed() {
    let mut session = logged_in(10, 0);
    session.received(&deliver(1, ID, b"once")).expect("alive");
    session.disconnected();
    session.connected();
    session.out.clear();
    session.received(&welcome(10, 1)).expect("let in");
    session.lines.clear();
    session.received(&deliver(1, ID, b"once")).expect("alive");
    assert!(session.lines.is_empty(), "{:?}", session.lines);
    session.printed();
    assert_eq!(written(&mut session), ["Ack { delivery: 1 }"]);
}

#[test]
fn memory_of_ids_is_bounded() {
    let mut session = logged_in(10, 0);
    for number in 0..10_000 {
        session.remember(id(number));
    }
    assert_eq!(
        (session.seen.len(), session.seen_order.len()),
        (REMEMBERED_IDS, REMEMBERED_IDS)
    );
    assert!(!session.remember(id(9_999)));
    assert!(session.remember(id(0)));
}

#[test]
fn follows_are_renewed_and_presence_is_shown() {
    let mut session = logged_in(10, 0);
    type_line(&mut session, "/follow bob");
    type_line(&mut session, "/follow eve");
    type_line(&mut session, "/unfollow eve");
    assert_eq!(written(&mut session).len(), 3);
    session.disconnected();
    type_line(&mut session, "/who bob");
    assert_eq!(
        std::mem::take(&mut session.lines),
        ["not connected; ask again later"]
    );
    session.connected();
    session.out.clear();
    session.received(&welcome(10, 0)).expect("let in");
    assert_eq!(written(&mut session).len(), 1, "bob only");
    session.lines.clear();
    let user = Name::parse(b"bob").expect("a name");
    for state in [
        Presence::Online,
        Presence::Away { last_seen_ms: 0 },
        Presence::Away { last_seen_ms: 1000 },
    ] {
        session
            .received(&Frame::Presence { user, state })
            .expect("alive");
    }
    let lines = [
        "bob is online",
        "bob is away, never seen",
        "bob is away, last seen 1970-01-01 00:00:01Z",
    ];
    assert_eq!(session.lines, lines);
}

#[test]
fn pings_are_answered() {
    let mut session = logged_in(10, 0);
    session.received(&Frame::Ping { nonce: 9 }).expect("alive");
    assert_eq!(written(&mut session), ["Pong { nonce: 9 }"]);
    assert_eq!(session.ping_interval(), Duration::from_secs(60));
}

#[test]
fn a_close_says_whether_to_come_back() {
    let mut session = logged_in(10, 0);
    let mut close = |reason| {
        session
            .received(&Frame::Close {
                reason,
                retry_after_ms: 1500,
                text: "",
            })
            .expect_err("the end")
    };
    assert!(
        matches!(close(CloseReason::Draining), End::Retry { after, .. } if after.as_millis() == 1500)
    );
    for reason in [
        CloseReason::Replaced,
        CloseReason::BadCredential,
        CloseReason::UnsupportedVersion,
    ] {
        assert!(matches!(close(reason), End::Final(why) if why.starts_with(reason.label())));
    }
    assert!(matches!(
        session.received(&Frame::Ack { delivery: 1 }),
        Err(End::Final(_))
    ));
}
