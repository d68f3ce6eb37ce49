//! The classic commands where they are awkward: no length, no end, no order to hold on to.

use iris_protocol::classic::{self, Command, PAYLOAD_BYTES_MAX};
use iris_protocol::{CloseReason, Name};

fn name(text: &str) -> Name<'_> {
    Name::parse(text.as_bytes()).expect("a valid name")
}

#[test]
fn login_ends_at_the_first_byte_below_20() {
    for end in 0..0x20 {
        let bytes = [&b"\x01Zo\xc3\xab "[..], &[end], b"bob"].concat();
        let decoded = classic::decode(&bytes);
        assert_eq!(decoded, Ok(Some((Command::Login(name("Zoë ")), 6))));
    }
}

#[test]
fn login_needs_a_name_and_a_byte_alone_waits_for_it() {
    assert_eq!(classic::decode(b""), Ok(None));
    assert_eq!(classic::decode(b"\x01"), Ok(None));
    assert_eq!(classic::decode(b"\x01\x01bob"), Err(CloseReason::BadName));
    assert_eq!(classic::decode(b"\x01\xff"), Err(CloseReason::BadName));
    assert_eq!(classic::decode(b"\x01bob\x7f"), Err(CloseReason::BadName));
}

#[test]
fn login_name_has_255_bytes_at_most_whatever_follows() {
    let mut bytes = vec![b'x'; 256];
    bytes[0] = 0x01;
    let longest = "x".repeat(255);
    let login = Command::Login(name(&longest));
    assert_eq!(classic::decode(&bytes), Ok(Some((login, 256))));
    let pipelined = [&bytes[..], &[0x02]].concat();
    assert_eq!(classic::decode(&pipelined), Ok(Some((login, 256))));
    bytes.extend_from_slice(&[b'x'; 100_000]);
    assert_eq!(classic::decode(&bytes[..257]), Err(CloseReason::BadName));
    assert_eq!(classic::decode(&bytes), Err(CloseReason::BadName));
}

#[test]
fn send_is_judged_as_soon_as_its_target_is_there() {
    assert_eq!(
        classic::decode(b"\x02\x00\x00"),
        Err(CloseReason::EmptyTarget)
    );
    assert_eq!(classic::decode(b"\x02\x01\x00"), Err(CloseReason::BadName));
    assert_eq!(classic::decode(b"\x02\x00\xff"), Ok(None));
    assert_eq!(classic::decode(b"\x02\x00\x02a"), Ok(None));
    assert_eq!(
        classic::decode(b"\x02\x00\x02a\n"),
        Err(CloseReason::BadName)
    );
}

#[test]
fn longest_and_shortest_sends_come_through() {
    for len in [0, 1, PAYLOAD_BYTES_MAX] {
        let payload = vec![0x01; len];
        let mut bytes = Vec::new();
        classic::encode_send(&mut bytes, name("b"), &payload);
        assert_eq!(classic::decode(&bytes[..bytes.len() - 1]), Ok(None));
        let target = name("b");
        let payload = &payload[..];
        let decoded = classic::decode(&bytes);
        let send = Command::Send { target, payload };
        assert_eq!(decoded, Ok(Some((send, bytes.len()))));
    }
}

#[test]
fn ack_takes_all_that_arrived() {
    for bytes in [&b"\x03"[..], b"\x03id", b"\x03\x02\x00\x01a\x00\x00"] {
        let decoded = classic::decode(bytes);
        assert_eq!(decoded, Ok(Some((Command::Ack, bytes.len()))));
    }
}

#[test]
fn other_commands_are_unknown() {
    for command in (0..=u8::MAX).filter(|command| !(1..=3).contains(command)) {
        let bytes = [command, 1, 2];
        assert_eq!(classic::decode(&bytes), Err(CloseReason::UnknownCommand));
    }
}

#[test]
#[should_panic(expected = "two-byte length")]
fn message_without_bytes_for_its_length_is_not_written() {
    classic::encode_send(&mut Vec::new(), name("b"), &[0; PAYLOAD_BYTES_MAX + 1]);
}
