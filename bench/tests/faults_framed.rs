//! A framed server that promises more than it keeps is found out: it answers `delivered` or
//! `stored` and loses, swaps or repeats messages.

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use iris_protocol::framed::{self, Answer, DecodeLimits, Decoded, Frame, Welcome, encode};
use iris_protocol::{MessageId, Outcome, RefusalReason};

use support::bench;

/// What becomes of every hundredth message.
#[derive(Clone, Copy, PartialEq)]
enum Conduct {
    Delivers,
    Loses,
    Repeats,
    KeepsBackForTheNext,
    Refuses,
}

/// A reader's socket, the number of its last delivery, and what was kept back.
struct Reader {
    socket: TcpStream,
    delivery: u64,
    kept: Option<Vec<u8>>,
}

type Readers = Mutex<HashMap<String, Reader>>;

/// A slow but simple router, which lives as long as the test process.
fn serve(conduct: Conduct) -> SocketAddr {
    support::serve(move |socket, readers: &Readers| serve_one(socket, readers, conduct))
}

fn serve_one(mut socket: TcpStream, readers: &Readers, conduct: Conduct) {
    let (mut input, mut buffer, mut count) = (Vec::new(), [0; 4096], 0u64);
    let mut preface = [0; framed::PREFACE_LEN];
    if socket.read_exact(&mut preface).is_err() {
        return;
    }
    while let Ok(len @ 1..) = socket.read(&mut buffer) {
        input.extend_from_slice(&buffer[..len]);
        let (mut at, mut out) = (0, Vec::new());
        while let Ok(Decoded::Frame(frame, used)) =
            framed::decode(&input[at..], &DecodeLimits::READER)
        {
            at += used;
            match frame {
                Frame::Login { user, .. } => {
                    let reader = Reader {
                        socket: socket.try_clone().expect("a socket"),
                        delivery: 0,
                        kept: None,
                    };
                    let mut readers = readers.lock().expect("no panic before");
                    readers.insert(user.as_str().to_owned(), reader);
                    encode::welcome(&mut out, &WELCOME);
                }
                Frame::Send {
                    sequence,
                    target,
                    payload,
                    ..
                } => {
                    count += 1;
                    let conduct = if count % 100 == 0 {
                        conduct
                    } else {
                        Conduct::Delivers
                    };
                    let target = String::from_utf8_lossy(target).into_owned();
                    let mut readers = readers.lock().expect("no panic before");
                    if let Some(reader) = readers.get_mut(&target) {
                        reader.deliver(payload, conduct);
                    }
                    let outcome = match conduct {
                        Conduct::Refuses => Outcome::Refused(RefusalReason::Overloaded),
                        _ => Outcome::Delivered,
                    };
                    let answer = Answer {
                        sequence,
                        id: ID,
                        outcome,
                    };
                    encode::answers(&mut out, [answer]);
                }
                _ => {}
            }
        }
        input.drain(..at);
        let _ = socket.write_all(&out);
    }
}

const ID: MessageId = MessageId::from_bytes([1; MessageId::LEN]);

const WELCOME: Welcome = Welcome {
    payload_bytes_max: 65_536,
    unanswered_sends_max: 1_024,
    unacked_deliveries_max: 4_096,
    idle_timeout_ms: 60_000,
    follows_max: 0,
    inbox_messages: 0,
    server_time_ms: 0,
};

impl Reader {
    fn deliver(&mut self, payload: &[u8], conduct: Conduct) {
        match conduct {
            Conduct::Loses | Conduct::Refuses => {}
            Conduct::KeepsBackForTheNext => self.kept = Some(payload.to_vec()),
            Conduct::Delivers => self.write(payload),
            Conduct::Repeats => {
                self.write(payload);
                self.write(payload);
            }
        }
        if conduct == Conduct::Delivers
            && let Some(kept) = self.kept.take()
        {
            self.write(&kept);
        }
    }

    fn write(&mut self, payload: &[u8]) {
        self.delivery += 1;
        let mut frame = Vec::new();
        encode::deliver(&mut frame, self.delivery, ID, 0, "someone", payload);
        let _ = self.socket.write_all(&frame);
    }
}

/// The exit code and the first line of a run against such a server.
fn drive(conduct: Conduct) -> (Option<i32>, String) {
    let address = serve(conduct).to_string();
    let output = bench(&[
        "mesh",
        "--connect",
        &address,
        "--connections",
        "4",
        "--in-flight",
        "8",
        "--rounds",
        "1",
        "--warm-up",
        "0.1",
        "--duration",
        "0.5",
    ]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = text.lines().next().unwrap_or_default().to_owned();
    (output.status.code(), first)
}

#[test]
fn an_honest_server_passes() {
    let (code, first) = drive(Conduct::Delivers);
    assert_eq!(code, Some(0), "{first}");
    assert!(first.starts_with("mesh: sound: "), "{first}");
}

#[test]
fn what_was_promised_and_did_not_come_is_blamed() {
    for (conduct, blame) in [
        (Conduct::Loses, " lost"),
        (Conduct::Repeats, " repeated"),
        (Conduct::KeepsBackForTheNext, " out of order"),
    ] {
        let (code, first) = drive(conduct);
        assert_eq!(code, Some(1), "{first}");
        assert!(first.starts_with("mesh: WRONG: "), "{first}");
        assert!(first.contains(blame), "{first}");
    }
}

#[test]
fn a_refusal_is_no_loss_but_is_told() {
    let (code, first) = drive(Conduct::Refuses);
    assert_eq!(code, Some(0), "{first}");
    assert!(first.contains(" refused"), "{first}");
}
