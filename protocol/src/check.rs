//! What must hold for any bytes whatever: the one function the fuzzer, the corpus replay and the
//! property tests share.
//!
//! Owner: tests. Not part of the public interface; it panics where an invariant does not hold.
//!
//! Invariants checked: decoding never panics; it consumes at least one byte and never more than the
//! input; every shorter input asks for more or gives the same verdict; what was decoded encodes to
//! the same bytes again.

use crate::classic::{self, Command};
use crate::framed::{self, DecodeLimits, Decoded, HEADER_LEN, PREFACE_LEN, encode};
use crate::{CloseReason, sniff};

/// Where a verdict is compared for shorter inputs: every cut near the ends, so that the cost stays
/// linear for long inputs.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    let edge = 600;
    (0..len.min(edge)).chain(len.saturating_sub(edge).max(edge)..len)
}

/// Holds a whole classic stream to the invariants.
pub fn classic(stream: &[u8]) {
    if let Some(&first) = stream.first() {
        let _ = sniff(first);
    }
    let mut at = 0;
    let mut encoded = Vec::new();
    while let Some(rest) = stream.get(at..) {
        let verdict = classic::decode(rest);
        // A login and an ack are what arrived with them: only there does the cut matter.
        if !matches!(rest.first(), Some(&(classic::LOGIN | classic::ACK))) {
            check_cuts(
                rest,
                |cut| classic::decode(cut).transpose(),
                verdict.transpose(),
            );
        }
        let Ok(Some((command, consumed))) = verdict else {
            return;
        };
        assert!(consumed > 0 && consumed <= rest.len());
        encoded.clear();
        match command {
            Command::Login(user) => classic::encode_login(&mut encoded, user),
            Command::Send { target, payload } => {
                classic::encode_send(&mut encoded, target, payload);
            }
            Command::Ack => encoded.extend_from_slice(rest),
        }
        assert_eq!(encoded, rest[..consumed]);
        at += consumed;
    }
}

/// Holds a whole framed stream, with or without its preface, to the invariants.
pub fn framed(stream: &[u8]) {
    check_cuts(
        stream,
        |cut| framed::preface(cut).transpose(),
        framed::preface(stream).transpose(),
    );
    let frames = match framed::preface(stream) {
        Ok(Some(_)) => &stream[PREFACE_LEN..],
        Ok(None) | Err(_) => stream,
    };
    for payload_bytes_max in [0, 16, framed::PAYLOAD_BYTES_DEFAULT] {
        frames_within(frames, &DecodeLimits { payload_bytes_max });
    }
}

fn frames_within(stream: &[u8], limits: &DecodeLimits) {
    let mut at = 0;
    while let Some(rest) = stream.get(at..) {
        let decode = |input| match framed::decode(input, limits) {
            Ok(Decoded::Incomplete) => None,
            Ok(decoded) => Some(Ok(decoded)),
            Err(reason) => Some(Err(reason)),
        };
        let verdict = decode(rest);
        check_cuts(rest, decode, verdict);
        match verdict {
            None | Some(Err(_) | Ok(Decoded::Incomplete)) => return,
            Some(Ok(Decoded::Skipped(consumed))) => {
                assert!(consumed >= HEADER_LEN && consumed <= rest.len());
                at += consumed;
            }
            // The caller skips it, as far as it has arrived.
            Some(Ok(Decoded::Oversized { frame_len, .. })) => {
                assert!(frame_len > HEADER_LEN + limits.payload_bytes_max as usize);
                at += frame_len;
            }
            Some(Ok(Decoded::Frame(frame, consumed))) => {
                assert!(consumed >= HEADER_LEN && consumed <= rest.len());
                let mut encoded = Vec::new();
                encode::frame(&mut encoded, &frame);
                // Flags and options are not kept: only a frame without them comes back to the byte.
                if rest[5..HEADER_LEN] == [0; 3] {
                    assert_eq!(encoded, rest[..consumed]);
                }
                let again = framed::decode(&encoded, limits);
                assert_eq!(again, Ok(Decoded::Frame(frame, encoded.len())));
                at += consumed;
            }
        }
    }
}

/// Every shorter input gives no verdict or the same one, and none after one was given.
fn check_cuts<'a, T: Copy + PartialEq + std::fmt::Debug>(
    input: &'a [u8],
    decode: impl Fn(&'a [u8]) -> Option<Result<T, CloseReason>>,
    verdict: Option<Result<T, CloseReason>>,
) {
    let mut given = false;
    for cut in cuts(input.len()) {
        let early = decode(&input[..cut]);
        assert!(
            !given || early.is_some(),
            "a verdict was taken back at {cut}"
        );
        given = early.is_some();
        if given {
            assert_eq!(early, verdict, "another verdict at {cut}");
        }
    }
}
