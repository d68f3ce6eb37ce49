//! What is encoded decodes to the same, wherever the stream is cut, and nothing shorter than a frame
//! is taken for one.

use iris_protocol::classic::{self, Command};
use iris_protocol::framed::{
    self, Answer, DecodeLimits, Decoded, Frame, Presence, Welcome, encode,
};
use iris_protocol::{CloseReason, ErrorCode, MessageId, Name, Outcome, RefusalReason, check};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const LIMITS: DecodeLimits = DecodeLimits {
    payload_bytes_max: 4096,
};

/// A frame that owns what [`Frame`] borrows.
#[derive(Clone, Debug)]
enum Owned {
    Login(String, Vec<u8>),
    Welcome(Welcome),
    Send(u64, u32, Vec<u8>, Vec<u8>),
    Answers(Vec<Answer>),
    Deliver(u64, MessageId, u64, String, Vec<u8>),
    Ack(u64),
    Ping(u64),
    Pong(u64),
    PresenceAsk(Vec<u8>),
    Follow(Vec<u8>),
    Unfollow(Vec<u8>),
    Presence(String, Presence),
    Error(ErrorCode, Vec<u8>, String),
    Close(CloseReason, u32, String),
}

fn name(text: &str) -> Name<'_> {
    Name::parse(text.as_bytes()).expect("the strategy makes valid names")
}

impl Owned {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Owned::Login(user, credential) => encode::login(out, name(user), credential),
            Owned::Welcome(welcome) => encode::welcome(out, welcome),
            Owned::Send(sequence, ttl_seconds, target, payload) => {
                encode::send(out, *sequence, *ttl_seconds, target, payload);
            }
            Owned::Answers(answers) => {
                let start = out.len();
                encode::answers(out, answers);
                assert_eq!(out.len() - start, encode::answers_len(answers.len()));
            }
            Owned::Deliver(delivery, id, sent_at_ms, sender, payload) => {
                let start = out.len();
                encode::deliver(out, *delivery, *id, *sent_at_ms, sender, payload);
                let len = encode::deliver_len(sender.len(), payload.len());
                assert_eq!(out.len() - start, len);
            }
            Owned::Ack(delivery) => encode::ack(out, *delivery),
            Owned::Ping(nonce) => encode::ping(out, *nonce),
            Owned::Pong(nonce) => encode::pong(out, *nonce),
            Owned::PresenceAsk(user) => encode::presence_ask(out, user),
            Owned::Follow(user) => encode::follow(out, user),
            Owned::Unfollow(user) => encode::unfollow(out, user),
            Owned::Presence(user, state) => {
                let start = out.len();
                encode::presence(out, name(user), *state);
                assert_eq!(out.len() - start, encode::presence_len(user.len()));
            }
            Owned::Error(code, subject, text) => encode::error(out, *code, subject, text),
            Owned::Close(reason, retry_after_ms, text) => {
                encode::close(out, *reason, *retry_after_ms, text);
            }
        }
    }

    /// What was decoded, copied out of the input.
    fn copy(frame: Frame<'_>) -> Owned {
        match frame {
            Frame::Login { user, credential } => {
                Owned::Login(user.to_string(), credential.to_vec())
            }
            Frame::Welcome(welcome) => Owned::Welcome(welcome),
            Frame::Send {
                sequence,
                ttl_seconds,
                target,
                payload,
            } => Owned::Send(sequence, ttl_seconds, target.to_vec(), payload.to_vec()),
            Frame::Answers(answers) => Owned::Answers(answers.collect()),
            Frame::Deliver {
                delivery,
                id,
                sent_at_ms,
                sender,
                payload,
            } => Owned::Deliver(
                delivery,
                id,
                sent_at_ms,
                sender.to_string(),
                payload.to_vec(),
            ),
            Frame::Ack { delivery } => Owned::Ack(delivery),
            Frame::Ping { nonce } => Owned::Ping(nonce),
            Frame::Pong { nonce } => Owned::Pong(nonce),
            Frame::PresenceAsk { user } => Owned::PresenceAsk(user.to_vec()),
            Frame::Follow { user } => Owned::Follow(user.to_vec()),
            Frame::Unfollow { user } => Owned::Unfollow(user.to_vec()),
            Frame::Presence { user, state } => Owned::Presence(user.to_string(), state),
            Frame::Error {
                code,
                subject,
                text,
            } => Owned::Error(code, subject.to_vec(), text.to_owned()),
            Frame::Close {
                reason,
                retry_after_ms,
                text,
            } => Owned::Close(reason, retry_after_ms, text.to_owned()),
        }
    }
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[ -~]{1,20}",
        1 => "\\PC{1,60}",
        1 => Just("x".repeat(Name::LEN_MAX)),
    ]
    .prop_filter("control characters", |text| {
        Name::parse(text.as_bytes()).is_ok()
    })
}

fn bytes(len_max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=len_max)
}

fn ids() -> impl Strategy<Value = MessageId> {
    any::<[u8; MessageId::LEN]>().prop_map(MessageId::from_bytes)
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Delivered),
        Just(Outcome::Stored),
        select(RefusalReason::ALL).prop_map(Outcome::Refused),
    ]
}

fn answers() -> impl Strategy<Value = Answer> {
    (any::<u64>(), ids(), outcomes()).prop_map(|(sequence, id, outcome)| Answer {
        sequence,
        id,
        outcome,
    })
}

fn welcomes() -> impl Strategy<Value = Welcome> {
    any::<([u32; 5], [u64; 2])>().prop_map(|(limits, [inbox_messages, server_time_ms])| {
        let [
            payload_bytes_max,
            unanswered_sends_max,
            unacked_deliveries_max,
            idle_timeout_ms,
            follows_max,
        ] = limits;
        Welcome {
            payload_bytes_max,
            unanswered_sends_max,
            unacked_deliveries_max,
            idle_timeout_ms,
            follows_max,
            inbox_messages,
            server_time_ms,
        }
    })
}

fn presences() -> impl Strategy<Value = Presence> {
    prop_oneof![
        Just(Presence::Online),
        any::<u64>().prop_map(|last_seen_ms| Presence::Away { last_seen_ms }),
    ]
}

fn frames() -> impl Strategy<Value = Owned> {
    let texts = || "\\PC{0,128}";
    prop_oneof![
        (names(), bytes(300)).prop_map(|(user, credential)| Owned::Login(user, credential)),
        welcomes().prop_map(Owned::Welcome),
        (any::<u64>(), any::<u32>(), bytes(255), bytes(400)).prop_map(
            |(sequence, ttl, target, payload)| Owned::Send(sequence, ttl, target, payload)
        ),
        vec(answers(), 1..40).prop_map(Owned::Answers),
        (any::<u64>(), ids(), any::<u64>(), names(), bytes(400)).prop_map(
            |(number, id, at, sender, payload)| Owned::Deliver(number, id, at, sender, payload)
        ),
        any::<u64>().prop_map(Owned::Ack),
        any::<u64>().prop_map(Owned::Ping),
        any::<u64>().prop_map(Owned::Pong),
        bytes(255).prop_map(Owned::PresenceAsk),
        bytes(255).prop_map(Owned::Follow),
        bytes(255).prop_map(Owned::Unfollow),
        (names(), presences()).prop_map(|(user, state)| Owned::Presence(user, state)),
        (select(ErrorCode::ALL), bytes(255), texts())
            .prop_map(|(code, subject, text)| Owned::Error(code, subject, text)),
        (select(CloseReason::ALL), any::<u32>(), texts())
            .prop_map(|(reason, wait, text)| Owned::Close(reason, wait, text)),
    ]
}

/// Feeds a stream in pieces, as a connection does: what is left over waits for the next piece.
fn decode_in_pieces(stream: &[u8], piece_len: usize) -> Vec<Owned> {
    let mut waiting = Vec::new();
    let mut frames = Vec::new();
    for piece in stream.chunks(piece_len) {
        waiting.extend_from_slice(piece);
        let mut at = 0;
        loop {
            match framed::decode(&waiting[at..], &LIMITS) {
                Ok(Decoded::Frame(frame, consumed)) => {
                    frames.push(Owned::copy(frame));
                    at += consumed;
                }
                Ok(Decoded::Incomplete) => break,
                other => panic!("{other:?}"),
            }
        }
        waiting.drain(..at);
    }
    assert!(waiting.is_empty());
    frames
}

proptest! {
    #[test]
    fn frame_decodes_to_what_was_encoded_and_no_prefix_does(frame in frames()) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        for cut in 0..bytes.len() {
            prop_assert_eq!(framed::decode(&bytes[..cut], &LIMITS), Ok(Decoded::Incomplete));
        }
        let len = bytes.len();
        // What follows a frame is not its business.
        bytes.extend_from_slice(b"\xff\xff\xff\xff");
        let Ok(Decoded::Frame(decoded, consumed)) = framed::decode(&bytes, &LIMITS) else {
            return Err(TestCaseError::fail("not a frame"));
        };
        prop_assert_eq!(consumed, len);
        prop_assert_eq!(format!("{:?}", Owned::copy(decoded)), format!("{frame:?}"));
        let mut again = Vec::new();
        encode::frame(&mut again, &decoded);
        prop_assert_eq!(&again, &bytes[..len]);
    }

    #[test]
    fn frames_come_through_any_split(frames in vec(frames(), 1..8), piece_len in 1_usize..700) {
        let mut stream = Vec::new();
        for frame in &frames {
            frame.encode(&mut stream);
        }
        let decoded = decode_in_pieces(&stream, piece_len);
        prop_assert_eq!(format!("{decoded:?}"), format!("{frames:?}"));
    }

    #[test]
    fn classic_sends_come_through_any_split(
        sends in vec((names(), bytes(300)), 1..8),
        piece_len in 1_usize..400,
    ) {
        let mut stream = Vec::new();
        for (target, payload) in &sends {
            classic::encode_send(&mut stream, name(target), payload);
        }
        let mut waiting = Vec::new();
        let mut decoded = Vec::new();
        for piece in stream.chunks(piece_len) {
            waiting.extend_from_slice(piece);
            let mut at = 0;
            while let Some((command, consumed)) = classic::decode(&waiting[at..]).expect("sound") {
                let Command::Send { target, payload } = command else {
                    return Err(TestCaseError::fail("not a send"));
                };
                decoded.push((target.to_string(), payload.to_vec()));
                at += consumed;
            }
            waiting.drain(..at);
        }
        prop_assert_eq!(decoded, sends);
        prop_assert!(waiting.is_empty());
    }

    #[test]
    fn classic_login_takes_its_name_and_leaves_the_sends_behind_it(
        user in names(),
        target in names(),
        payload in bytes(100),
    ) {
        let mut bytes = Vec::new();
        classic::encode_login(&mut bytes, name(&user));
        let login_len = bytes.len();
        classic::encode_send(&mut bytes, name(&target), &payload);
        let decoded = classic::decode(&bytes);
        prop_assert_eq!(decoded, Ok(Some((Command::Login(name(&user)), login_len))));
        let send = Command::Send { target: name(&target), payload: &payload };
        let decoded = classic::decode(&bytes[login_len..]);
        prop_assert_eq!(decoded, Ok(Some((send, bytes.len() - login_len))));
    }

    #[test]
    fn arbitrary_bytes_break_no_invariant(bytes in bytes(400)) {
        check::classic(&bytes);
        check::framed(&bytes);
    }

    #[test]
    fn damaged_frames_break_no_invariant(
        frames in vec(frames(), 1..4),
        damages in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut stream = Vec::new();
        for frame in &frames {
            frame.encode(&mut stream);
        }
        for (at, byte) in damages {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        check::framed(&stream);
    }
}
