//! What is too long is found from the header, what does not fit is a bad frame, and what the wire
//! has no bytes for is not written.

use iris_protocol::framed::{
    self, ANSWERS_MAX, Answer, CREDENTIAL_LEN_MAX, DecodeLimits, Decoded, FRAME_LEN_MAX, Frame,
    HEADER_LEN, OPTIONAL_LEN_MAX, OPTIONS_LEN_MAX, TEXT_LEN_MAX, encode, kind,
};
use iris_protocol::{CloseReason, ErrorCode, MessageId, Name, Outcome};

const LIMITS: DecodeLimits = DecodeLimits {
    payload_bytes_max: 1000,
};

fn header(length: usize, kind: u8, options_len: usize) -> Vec<u8> {
    let mut bytes = u32::try_from(length).expect("fits").to_be_bytes().to_vec();
    bytes.extend_from_slice(&[kind, 0]);
    bytes.extend_from_slice(&u16::try_from(options_len).expect("fits").to_be_bytes());
    bytes
}

fn with_body(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(body.len(), kind, 0);
    bytes.extend_from_slice(body);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Decoded<'_>, CloseReason> {
    framed::decode(bytes, &LIMITS)
}

#[test]
fn every_kind_has_its_longest_frame_known_from_the_header() {
    let name = 1 + Name::LEN_MAX;
    for (kind, fields_len_max) in [
        (kind::LOGIN, name + 2 + CREDENTIAL_LEN_MAX),
        (kind::WELCOME, 36),
        (kind::SEND, FRAME_LEN_MAX),
        (kind::ANSWERS, 26 * ANSWERS_MAX),
        (kind::DELIVER, 33 + 255 + 1000),
        (kind::ACK, 8),
        (kind::PING, 8),
        (kind::PONG, 8),
        (kind::PRESENCE_ASK, name),
        (kind::FOLLOW, name),
        (kind::UNFOLLOW, name),
        (kind::PRESENCE, name + 9),
        (kind::ERROR, 1 + name + TEXT_LEN_MAX),
        (kind::CLOSE, 5 + TEXT_LEN_MAX),
        (kind::FIRST_OPTIONAL, OPTIONAL_LEN_MAX),
        (0xff, OPTIONAL_LEN_MAX),
    ] {
        let longest = decode(&header(fields_len_max, kind, 0)).map(drop);
        assert_eq!(longest, Ok(()), "{kind:#04x}");
        let longer = decode(&header(fields_len_max + 1, kind, 0)).map(drop);
        assert_eq!(longer, Err(CloseReason::FrameTooLarge), "{kind:#04x}");
    }
    let longest = header(u32::MAX as usize, kind::SEND, 0);
    assert_eq!(decode(&longest), Err(CloseReason::FrameTooLarge));
}

#[test]
fn unknown_kinds_below_80_are_found_from_the_header() {
    let known = [0x01, 0x02, 0x10, 0x11, 0x12, 0x13, 0x20, 0x21];
    let known = [&known[..], &[0x30, 0x31, 0x32, 0x33, 0x40, 0x41]].concat();
    for kind in 0..=u8::MAX {
        let bytes = header(8, kind, 0);
        let verdict = decode(&bytes);
        if kind < kind::FIRST_OPTIONAL && !known.contains(&kind) {
            assert_eq!(verdict, Err(CloseReason::UnknownFrame), "{kind:#04x}");
        } else {
            assert_eq!(verdict, Ok(Decoded::Incomplete), "{kind:#04x}");
        }
    }
}

#[test]
fn oversized_send_is_told_by_its_fixed_fields_and_a_fitting_one_is_not() {
    let oversized = |payload_len: usize, target: &[u8]| {
        let mut bytes = Vec::new();
        encode::send(&mut bytes, 7, 0, target, &vec![b'x'; payload_len]);
        bytes
    };
    for target in [&b""[..], b"bob", &[b'x'; 255]] {
        let fits = oversized(1000, target);
        assert!(matches!(decode(&fits), Ok(Decoded::Frame(..))));
        for payload_len in [1001, 1255, 1256, 5000] {
            let bytes = oversized(payload_len, target);
            let told = Ok(Decoded::Oversized {
                sequence: 7,
                frame_len: bytes.len(),
            });
            let fixed = HEADER_LEN + 13;
            assert_eq!(decode(&bytes[..fixed - 1]), Ok(Decoded::Incomplete));
            assert_eq!(decode(&bytes[..fixed]), told);
            assert_eq!(decode(&bytes), told);
        }
    }
}

#[test]
fn oversized_send_with_options_is_told_behind_them() {
    let mut bytes = header(6 + 13 + 3 + 1001, kind::SEND, 6);
    bytes.extend_from_slice(&[9, 4, 1, 2, 3, 4]);
    bytes.extend_from_slice(&42_u64.to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 0]);
    assert_eq!(decode(&bytes), Ok(Decoded::Incomplete));
    bytes.push(3);
    let told = Decoded::Oversized {
        sequence: 42,
        frame_len: HEADER_LEN + 6 + 13 + 3 + 1001,
    };
    assert_eq!(decode(&bytes), Ok(told));
}

#[test]
fn before_login_no_payload_is_held() {
    let mut bytes = Vec::new();
    encode::send(&mut bytes, 1, 0, b"bob", b"hello");
    let verdict = framed::decode(&bytes[..HEADER_LEN + 13], &DecodeLimits::BEFORE_LOGIN);
    assert!(matches!(verdict, Ok(Decoded::Oversized { .. })));
    bytes.clear();
    let alice = Name::parse(b"alice").expect("valid");
    encode::login(&mut bytes, alice, &[7; CREDENTIAL_LEN_MAX]);
    let verdict = framed::decode(&bytes, &DecodeLimits::BEFORE_LOGIN);
    assert!(matches!(
        verdict,
        Ok(Decoded::Frame(Frame::Login { .. }, _))
    ));
}

#[test]
fn delivery_over_the_limit_ends_the_connection_whatever_the_length_of_its_sender() {
    for sender in ["a".to_owned(), "a".repeat(255)] {
        for (payload_len, fits) in [(1000, true), (1001, false), (1254, false), (1255, false)] {
            let mut bytes = Vec::new();
            let id = MessageId::from_bytes([1; 16]);
            encode::deliver(&mut bytes, 1, id, 0, &sender, &vec![0; payload_len]);
            let verdict = decode(&bytes).map(drop);
            let expected = if fits {
                Ok(())
            } else {
                Err(CloseReason::FrameTooLarge)
            };
            assert_eq!(verdict, expected, "{payload_len}");
        }
    }
}

#[test]
fn fields_that_do_not_fill_the_body_are_a_bad_frame() {
    let bad = |kind: u8, body: &[u8]| {
        let bytes = with_body(kind, body);
        assert_eq!(decode(&bytes), Err(CloseReason::BadFrame), "{bytes:02x?}");
    };
    for kind in [kind::ACK, kind::PING, kind::PONG] {
        bad(kind, &[]);
        bad(kind, &[0; 7]);
    }
    for kind in [kind::PRESENCE_ASK, kind::FOLLOW, kind::UNFOLLOW] {
        bad(kind, &[]);
        bad(kind, b"\x03bo");
        bad(kind, b"\x03bob!");
    }
    bad(kind::LOGIN, b"\x01a\x00\x01");
    bad(kind::LOGIN, b"\x01a\x00\x00x");
    bad(kind::LOGIN, b"\x01a\x00");
    bad(kind::WELCOME, &[0; 35]);
    bad(kind::SEND, &[0; 12]);
    bad(kind::SEND, b"\0\0\0\0\0\0\0\x01\0\0\0\0\x03bo");
    bad(kind::DELIVER, &[0; 32]);
    bad(kind::PRESENCE, b"\x01a\x01\0\0\0\0\0\0\0");
}

#[test]
fn values_that_mean_nothing_are_a_bad_frame() {
    let bad = |kind: u8, body: &[u8]| {
        let bytes = with_body(kind, body);
        assert_eq!(decode(&bytes), Err(CloseReason::BadFrame), "{bytes:02x?}");
    };
    // States other than 0 and 1, and a time for who is online.
    bad(kind::PRESENCE, b"\x01a\x02\0\0\0\0\0\0\0\0");
    bad(kind::PRESENCE, b"\x01a\x01\0\0\0\0\0\0\0\x01");
    // Codes that are not in the lists.
    bad(kind::CLOSE, b"\0\0\0\0\0text");
    bad(kind::CLOSE, b"\xff\0\0\0\0text");
    bad(kind::ERROR, b"\0\0text");
    bad(kind::ERROR, b"\xff\0text");
    // Texts that are not UTF-8.
    bad(kind::CLOSE, b"\x01\0\0\0\0\xff");
    bad(kind::ERROR, b"\x01\0\xff");
    // No answer, half an answer, an answer with an outcome that means nothing behind a sound one.
    bad(kind::ANSWERS, &[]);
    let mut answers = vec![0; 26];
    bad(kind::ANSWERS, &answers);
    answers[24] = 1;
    assert!(decode(&with_body(kind::ANSWERS, &answers)).is_ok());
    bad(kind::ANSWERS, &[&answers[..], &[0; 25]].concat());
    bad(kind::ANSWERS, &[&answers[..], &[0; 26]].concat());
    for name in [&b"\x00"[..], b"\x01\x07", b"\x02\xc3\x28"] {
        let login = [name, b"\0\0"].concat();
        let verdict = framed::decode(&with_body(kind::LOGIN, &login), &LIMITS).map(drop);
        assert_eq!(verdict, Err(CloseReason::BadName));
    }
}

#[test]
fn options_must_add_up() {
    let ping = |options: &[u8]| {
        let mut bytes = header(options.len() + 8, kind::PING, options.len());
        bytes.extend_from_slice(options);
        bytes.extend_from_slice(&[0; 8]);
        framed::decode(&bytes, &LIMITS).map(drop)
    };
    assert_eq!(ping(&[1, 0]), Ok(()));
    assert_eq!(ping(&[1, 0, 2, 1, 9, 3, 0]), Ok(()));
    assert_eq!(ping(&[0xee; OPTIONS_LEN_MAX]), Err(CloseReason::BadFrame));
    assert_eq!(ping(&[1, 0].repeat(OPTIONS_LEN_MAX / 2)), Ok(()));
    assert_eq!(
        ping(&[1, 0].repeat(OPTIONS_LEN_MAX / 2 + 1)),
        Err(CloseReason::FrameTooLarge)
    );
    assert_eq!(ping(&[1]), Err(CloseReason::BadFrame));
    assert_eq!(ping(&[1, 1]), Err(CloseReason::BadFrame));
    assert_eq!(ping(&[1, 0, 2]), Err(CloseReason::BadFrame));
    // More options than body, known from the header.
    assert_eq!(
        decode(&header(3, kind::PING, 4)),
        Err(CloseReason::BadFrame)
    );
}

#[test]
fn many_answers_come_in_several_frames_and_none_in_none() {
    let answer = |sequence| Answer {
        sequence,
        id: MessageId::from_bytes([3; 16]),
        outcome: Outcome::Stored,
    };
    for count in [0, 1, ANSWERS_MAX, ANSWERS_MAX + 1, 2 * ANSWERS_MAX + 5] {
        let mut bytes = b"before".to_vec();
        encode::answers(&mut bytes, (0..count as u64).map(answer));
        assert_eq!(bytes.len(), 6 + encode::answers_len(count));
        let (mut at, mut seen) = (6, 0);
        while at < bytes.len() {
            let Ok(Decoded::Frame(Frame::Answers(answers), consumed)) = decode(&bytes[at..]) else {
                panic!("not answers");
            };
            let left: usize = count - seen;
            assert_eq!(answers.len(), left.min(ANSWERS_MAX));
            for found in answers {
                assert_eq!(found, answer(seen as u64));
                seen += 1;
            }
            at += consumed;
        }
        assert_eq!(seen, count);
    }
}

#[test]
fn long_texts_are_cut_between_characters() {
    // 511 bytes and then two-byte characters: the 512th byte is within one.
    let long = format!("{}{}", "x".repeat(TEXT_LEN_MAX - 1), "é".repeat(100));
    let mut bytes = Vec::new();
    encode::close(&mut bytes, CloseReason::Internal, 0, &long);
    let Ok(Decoded::Frame(Frame::Close { text, .. }, _)) = decode(&bytes) else {
        panic!("not a close");
    };
    assert_eq!(text, "x".repeat(TEXT_LEN_MAX - 1));
    bytes.clear();
    encode::error(&mut bytes, ErrorCode::BadName, b"", &long);
    assert!(
        matches!(decode(&bytes), Ok(Decoded::Frame(Frame::Error { text, .. }, _)) if text.len() == 511)
    );
    // A text that somebody else did not cut.
    let mut body = vec![CloseReason::Internal.code(), 0, 0, 0, 0];
    body.extend_from_slice(&[b'x'; TEXT_LEN_MAX]);
    assert!(decode(&with_body(kind::CLOSE, &body)).is_ok());
    let mut body = vec![ErrorCode::BadName.code(), 0];
    body.extend_from_slice(&[b'x'; TEXT_LEN_MAX + 1]);
    let bytes = with_body(kind::ERROR, &body);
    assert_eq!(decode(&bytes), Err(CloseReason::FrameTooLarge));
}

#[test]
fn credential_over_its_limit_is_too_large_even_behind_a_short_name() {
    let len = CREDENTIAL_LEN_MAX + 1;
    let mut body = b"\x01a".to_vec();
    body.extend_from_slice(&u16::try_from(len).expect("fits").to_be_bytes());
    body.extend(vec![7; len]);
    let bytes = with_body(kind::LOGIN, &body);
    assert_eq!(decode(&bytes), Err(CloseReason::FrameTooLarge));
}

#[test]
fn frame_is_small_enough_to_hand_over_by_value() {
    assert!(size_of::<Frame<'_>>() <= 72);
}
