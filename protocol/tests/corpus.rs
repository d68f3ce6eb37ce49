//! Replays the corpus through the function the fuzz targets call, and holds each stream to the
//! verdict its name gives. Then damages the streams, one byte at a time.

use std::collections::BTreeSet;
use std::path::Path;

use iris_protocol::framed::{self, DecodeLimits, Decoded, PREFACE_LEN};
use iris_protocol::{CloseReason, check, classic};

/// The streams of one protocol with the verdict in their names.
fn streams(protocol: &str) -> Vec<(String, String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(protocol);
    let mut streams = Vec::new();
    for entry in folder.read_dir().expect("the corpus is part of the crate") {
        let path = entry.expect("a readable folder").path();
        let name = path
            .file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        let (verdict, _) = name.split_once('.').expect("a verdict and a dot");
        let bytes = std::fs::read(&path).expect("a readable file");
        streams.push((name.clone(), verdict.to_owned(), bytes));
    }
    assert!(
        streams.len() >= 25,
        "the corpus of {protocol} is incomplete"
    );
    streams
}

fn classic_verdict(stream: &[u8]) -> String {
    let mut at = 0;
    loop {
        match classic::decode(&stream[at..]) {
            Ok(Some((_, consumed))) => at += consumed,
            Ok(None) if at > 0 && at == stream.len() => return "commands".to_owned(),
            Ok(None) => return "incomplete".to_owned(),
            Err(reason) => return reason.label().to_owned(),
        }
    }
}

fn framed_verdict(stream: &[u8]) -> String {
    let limits = DecodeLimits {
        payload_bytes_max: 16,
    };
    let mut at = match framed::preface(stream) {
        Ok(Some(_)) => PREFACE_LEN,
        Err(CloseReason::UnknownProtocol) => 0,
        Ok(None) => return "incomplete".to_owned(),
        Err(reason) => return reason.label().to_owned(),
    };
    let (mut frames, mut oversized) = (0, false);
    while at < stream.len() {
        frames += 1;
        match framed::decode(&stream[at..], &limits) {
            Ok(Decoded::Frame(_, consumed) | Decoded::Skipped(consumed)) => at += consumed,
            Ok(Decoded::Oversized { frame_len, .. }) => {
                oversized = true;
                at += frame_len;
            }
            Ok(Decoded::Incomplete) => return "incomplete".to_owned(),
            Err(reason) => return reason.label().to_owned(),
        }
    }
    let verdict = match (frames, oversized) {
        (0, _) => "incomplete",
        (_, true) => "oversized",
        (_, false) => "frames",
    };
    verdict.to_owned()
}

#[test]
fn classic_streams_end_as_their_names_say() {
    for (name, verdict, stream) in streams("classic") {
        check::classic(&stream);
        assert_eq!(classic_verdict(&stream), verdict, "{name}");
    }
}

#[test]
fn framed_streams_end_as_their_names_say() {
    for (name, verdict, stream) in streams("framed") {
        check::framed(&stream);
        assert_eq!(framed_verdict(&stream), verdict, "{name}");
    }
}

#[test]
fn every_reason_a_decoder_gives_has_a_stream() {
    let covered: BTreeSet<String> = ["classic", "framed"]
        .into_iter()
        .flat_map(streams)
        .map(|(_, verdict, _)| verdict)
        .collect();
    // UnknownProtocol is the preface's own: in `framed/preface.rs`.
    for reason in [
        CloseReason::UnknownCommand,
        CloseReason::EmptyTarget,
        CloseReason::BadName,
        CloseReason::BadFrame,
        CloseReason::FrameTooLarge,
        CloseReason::UnknownFrame,
        CloseReason::UnsupportedVersion,
    ] {
        assert!(covered.contains(reason.label()), "{reason}");
    }
}

#[test]
fn streams_with_one_byte_damaged_break_no_invariant() {
    for protocol in ["classic", "framed"] {
        for (_, _, mut stream) in streams(protocol) {
            // The long ones are long for their middle, which is all alike.
            for at in 0..stream.len().min(200) {
                let sound = stream[at];
                for damaged in [0, 1, 0x7f, 0x80, 0xff, sound ^ 1, sound ^ 0x40] {
                    stream[at] = damaged;
                    check::classic(&stream);
                    check::framed(&stream);
                }
                stream[at] = sound;
            }
        }
    }
}
