//! `iris chat` against a gateway that follows a script: what it prints, when it acknowledges, and
//! what it does when the connection is lost.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use iris_protocol::framed::{
    self, Answer, DecodeLimits, Decoded, Frame, PREFACE, PREFACE_LEN, Presence, Welcome, encode,
};
use iris_protocol::{CloseReason, MessageId, Name, Outcome};

use crate::support::{Chat, PATIENCE};

const ID: MessageId = MessageId::from_bytes([1; MessageId::LEN]);

fn name(text: &str) -> Name<'_> {
    Name::parse(text.as_bytes()).expect("a name")
}

fn chat_with(server: &TcpListener) -> Chat {
    Chat::start("alice", server.local_addr().expect("bound"))
}

/// The gateway's side of one connection.
struct Side {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Side {
    /// Takes a connection, checks preface and login, and lets it in.
    fn accept(server: &TcpListener, inbox_messages: u64) -> Side {
        Side::accept_with(server, inbox_messages, 300_000)
    }

    fn accept_with(server: &TcpListener, inbox_messages: u64, idle_timeout_ms: u32) -> Side {
        let (stream, _) = server.accept().expect("a client");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut side = Side {
            stream,
            bytes: Vec::new(),
        };
        let mut preface = [0; PREFACE_LEN];
        side.stream.read_exact(&mut preface).expect("a preface");
        assert_eq!(preface, PREFACE);
        assert_eq!(side.hears(), "login alice");
        side.says(|out| {
            let welcome = Welcome {
                payload_bytes_max: 65_536,
                unanswered_sends_max: 10,
                unacked_deliveries_max: 10,
                idle_timeout_ms,
                follows_max: 10,
                inbox_messages,
                server_time_ms: 0,
            };
            encode::welcome(out, &welcome);
        });
        side
    }

    fn says(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        self.stream.write_all(&out).expect("it reads");
    }

    /// The next frame, in words. A send is `send <sequence> <target> <text>`.
    fn hears(&mut self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        loop {
            let limits = DecodeLimits {
                payload_bytes_max: 65_536,
            };
            if let Decoded::Frame(frame, len) =
                framed::decode(&self.bytes, &limits).expect("a frame")
            {
                let words = match frame {
                    Frame::Login { user, .. } => format!("login {}", user.as_str()),
                    Frame::Send {
                        sequence,
                        target,
                        payload,
                        ..
                    } => {
                        format!("send {sequence} {} {}", text(target), text(payload))
                    }
                    Frame::Ack { delivery } => format!("ack {delivery}"),
                    Frame::Ping { nonce } => format!("ping {nonce}"),
                    Frame::PresenceAsk { user } => format!("who {}", text(user)),
                    Frame::Close { reason, .. } => format!("close {reason}"),
                    other => format!("{other:?}"),
                };
                self.bytes.drain(..len);
                return words;
            }
            let mut buffer = [0; 4096];
            let len = self.stream.read(&mut buffer).expect("bytes");
            assert!(len > 0, "the client is gone");
            self.bytes.extend_from_slice(&buffer[..len]);
        }
    }

    /// The sequence number of the next send, which must be `rest`.
    fn hears_send(&mut self, rest: &str) -> u64 {
        let words = self.hears();
        let (sequence, heard) = words
            .strip_prefix("send ")
            .and_then(|words| words.split_once(' '))
            .unwrap_or_else(|| panic!("{words}"));
        assert_eq!(heard, rest);
        sequence.parse().expect("a number")
    }

    fn answers(&mut self, sequence: u64, outcome: Outcome) {
        self.says(|out| {
            encode::answers(
                out,
                [Answer {
                    sequence,
                    id: ID,
                    outcome,
                }],
            )
        });
    }
}

fn listening() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a port")
}

#[test]
fn messages_go_out_and_come_in() {
    let server = listening();
    let mut chat = chat_with(&server);
    let mut side = Side::accept(&server, 0);
    assert!(
        chat.prints()
            .starts_with("logged in as alice, no messages waiting")
    );

    chat.types("@bob hello there");
    let sequence = side.hears_send("bob hello there");
    side.answers(sequence, Outcome::Stored);
    assert_eq!(
        chat.prints(),
        "@bob stored  (id 01010101010101010101010101010101)"
    );

    side.says(|out| encode::deliver(out, 1, ID, 1_000, "bob", b"hi alice"));
    assert_eq!(
        chat.prints(),
        "bob: hi alice  (id 01010101010101010101010101010101, 1970-01-01 00:00:01Z)"
    );
    assert_eq!(side.hears(), "ack 1");

    chat.types("/who bob");
    assert_eq!(side.hears(), "who bob");
    side.says(|out| encode::presence(out, name("bob"), Presence::Online));
    assert_eq!(chat.prints(), "bob is online");

    chat.types("hello");
    assert!(chat.prints().starts_with("to whom?"));

    chat.types("/quit");
    assert_eq!(side.hears(), "close logged-out");
    assert_eq!(chat.ended(), (Some(0), String::new()));
}

#[test]
fn an_unanswered_send_is_repeated_with_its_number_after_a_reconnect() {
    let server = listening();
    let mut chat = chat_with(&server);
    let mut side = Side::accept(&server, 0);
    chat.prints();
    chat.types("@bob one");
    let first = side.hears_send("bob one");
    chat.types("@bob two");
    let second = side.hears_send("bob two");
    side.answers(first, Outcome::Delivered);
    assert!(chat.prints().starts_with("@bob delivered"));
    drop(side);
    let lost = chat.prints();
    assert!(
        lost.starts_with("connection lost (") && lost.contains("trying again in"),
        "{lost}"
    );

    let mut side = Side::accept(&server, 0);
    assert!(chat.prints().starts_with("logged in as alice"));
    assert_eq!(
        side.hears_send("bob two"),
        second,
        "the same number, and only what is unanswered"
    );
    side.answers(second, Outcome::Delivered);
    assert!(chat.prints().starts_with("@bob delivered"));
    chat.input_ends();
    assert_eq!(side.hears(), "close logged-out");
    assert_eq!(chat.ended().0, Some(0));
}

#[test]
fn at_the_end_of_the_input_it_waits_for_answers_and_the_inbox() {
    let server = listening();
    let mut chat = chat_with(&server);
    chat.types("@bob last words");
    chat.input_ends();
    let mut side = Side::accept(&server, 2);
    let sequence = side.hears_send("bob last words");
    side.says(|out| encode::deliver(out, 1, ID, 0, "bob", b"one"));
    side.answers(sequence, Outcome::Stored);
    assert_eq!(side.hears(), "ack 1");
    // Had it left already, this would find no reader.
    side.says(|out| {
        encode::deliver(
            out,
            2,
            MessageId::from_bytes([3; MessageId::LEN]),
            0,
            "bob",
            b"two",
        )
    });
    assert_eq!(side.hears(), "ack 2");
    assert_eq!(side.hears(), "close logged-out");
    assert_eq!(chat.ended().0, Some(0));
}

#[test]
fn at_the_end_of_the_input_it_does_not_wait_for_ever_for_what_does_not_come() {
    let server = listening();
    let mut chat = chat_with(&server);
    chat.input_ends();
    let mut side = Side::accept_with(&server, 2, 3_000);
    side.says(|out| encode::deliver(out, 1, ID, 0, "bob", b"one"));
    assert_eq!(side.hears(), "ack 1");
    // The connection is alive all the time, and the second message never comes.
    loop {
        let words = side.hears();
        match words.strip_prefix("ping ") {
            Some(nonce) => side.says(|out| encode::pong(out, nonce.parse().expect("a number"))),
            None => {
                assert_eq!(words, "close logged-out");
                break;
            }
        }
    }
    let (code, line) = chat.ended();
    assert_eq!(code, Some(1));
    assert!(line.contains("left before the inbox was read"), "{line}");
}

#[test]
fn a_takeover_ends_it() {
    let server = listening();
    let mut chat = chat_with(&server);
    let mut side = Side::accept(&server, 0);
    chat.types("@bob hello");
    side.hears_send("bob hello");
    side.says(|out| encode::close(out, CloseReason::Replaced, 0, ""));
    let (code, line) = chat.ended();
    assert_eq!(code, Some(1));
    assert!(
        line.starts_with("iris: replaced: ") && line.contains("1 send has no answer"),
        "{line}"
    );
}

#[test]
fn a_draining_gateway_is_come_back_to() {
    let server = listening();
    let mut chat = chat_with(&server);
    let mut side = Side::accept(&server, 0);
    chat.prints();
    side.says(|out| encode::close(out, CloseReason::Draining, 100, ""));
    drop(side);
    assert!(chat.prints().starts_with("connection lost (draining: "));
    let mut side = Side::accept(&server, 0);
    assert!(chat.prints().starts_with("logged in as alice"));
    chat.input_ends();
    assert_eq!(side.hears(), "close logged-out");
    assert_eq!(chat.ended().0, Some(0));
}
