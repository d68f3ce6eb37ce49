//! The Python clients in `SPEC.md` work as they stand there: their text is run against a server that
//! is built from this crate's decoders alone.
//!
//! Where there is no `python3`, the tests say so and pass: the clients are an example, not a part.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use iris_protocol::framed::{
    self, Answer, DecodeLimits, Decoded, Frame, PREFACE_LEN, Welcome, encode,
};
use iris_protocol::{MessageId, Outcome, Protocol, classic, sniff};

mod spec;

/// Where deliveries to a logged-in user go.
type Users = Arc<Mutex<HashMap<String, TcpStream>>>;

const SEQUENCE: u64 = 1;
const ID: MessageId = MessageId::from_bytes([0xa1; MessageId::LEN]);

fn serve(listener: TcpListener) {
    let users = Users::default();
    while let Ok((socket, _)) = listener.accept() {
        let users = Arc::clone(&users);
        thread::spawn(move || serve_one(socket, &users));
    }
}

/// Reads until the peer has gone; `handle` says how much of the bytes it took.
fn serve_one(mut socket: TcpStream, users: &Users) {
    let mut waiting = Vec::new();
    let mut piece = [0; 4096];
    let mut preface_read = false;
    while let Ok(len @ 1..) = socket.read(&mut piece) {
        waiting.extend_from_slice(&piece[..len]);
        let taken = match sniff(waiting[0]) {
            Some(Protocol::Framed) if !preface_read => {
                let known = framed::preface(&waiting).expect("a sound preface");
                preface_read = known.is_some();
                let taken = if preface_read { PREFACE_LEN } else { 0 };
                taken + serve_framed(&waiting[taken..], &mut socket, users)
            }
            _ if preface_read => serve_framed(&waiting, &mut socket, users),
            _ => serve_classic(&waiting, &mut socket, users),
        };
        waiting.drain(..taken);
    }
}

fn serve_classic(input: &[u8], socket: &mut TcpStream, users: &Users) -> usize {
    let mut at = 0;
    while let Some((command, consumed)) = classic::decode(&input[at..]).expect("sound commands") {
        at += consumed;
        match command {
            classic::Command::Login(user) => {
                let to_user = socket.try_clone().expect("a second handle");
                let mut users = users.lock().expect("no panic under the lock");
                users.insert(user.to_string(), to_user);
                socket.write_all(classic::LOGIN_OK).expect("a reader");
            }
            classic::Command::Send { target, payload } => {
                let mut users = users.lock().expect("no panic under the lock");
                let reader = users.get_mut(target.as_str()).expect("who logged in");
                reader.write_all(payload).expect("a reader");
            }
            classic::Command::Ack => {}
        }
    }
    at
}

fn serve_framed(input: &[u8], socket: &mut TcpStream, users: &Users) -> usize {
    let mut at = 0;
    let mut out = Vec::new();
    loop {
        match framed::decode(&input[at..], &DecodeLimits::READER).expect("sound frames") {
            Decoded::Frame(frame, consumed) => {
                at += consumed;
                out.clear();
                answer(frame, &mut out, socket, users);
                socket.write_all(&out).expect("a reader");
            }
            Decoded::Incomplete => return at,
            other => panic!("{other:?}"),
        }
    }
}

/// One message: delivered at once behind a PING, answered when its reader has acknowledged it.
fn answer(frame: Frame<'_>, out: &mut Vec<u8>, socket: &TcpStream, users: &Users) {
    let mut users = users.lock().expect("no panic under the lock");
    match frame {
        Frame::Login { user, credential } => {
            assert_eq!(credential, b"");
            users.insert(user.to_string(), socket.try_clone().expect("a handle"));
            let welcome = Welcome {
                payload_bytes_max: framed::PAYLOAD_BYTES_DEFAULT,
                unanswered_sends_max: 1024,
                unacked_deliveries_max: 4096,
                idle_timeout_ms: 300_000,
                follows_max: 128,
                inbox_messages: 0,
                server_time_ms: 1_790_000_000_000,
            };
            encode::welcome(out, &welcome);
        }
        Frame::Send {
            sequence,
            target,
            payload,
            ..
        } => {
            assert_eq!(sequence, SEQUENCE);
            let target = str::from_utf8(target).expect("a valid name");
            let mut delivery = Vec::new();
            encode::ping(&mut delivery, 42);
            encode::deliver(&mut delivery, 1, ID, 1_790_000_000_000, "alice", payload);
            let reader = users.get_mut(target).expect("who logged in");
            reader.write_all(&delivery).expect("a reader");
        }
        Frame::Pong { nonce } => assert_eq!(nonce, 42),
        Frame::Ack { delivery } => {
            assert_eq!(delivery, 1);
            let answer = Answer {
                sequence: SEQUENCE,
                id: ID,
                outcome: Outcome::Delivered,
            };
            let mut answers = Vec::new();
            encode::answers(&mut answers, [answer]);
            encode::close(&mut answers, iris_protocol::CloseReason::Draining, 0, "end");
            let sender = users.get_mut("alice").expect("who logged in");
            sender.write_all(&answers).expect("a reader");
        }
        other => panic!("{other:?}"),
    }
}

/// Runs a client of the text and its use, then `more`, and gives what they printed.
fn run(client: &str, more: &str) -> Option<String> {
    let python = Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|output| output.status.success()) {
        eprintln!("no python3 here: the client was not run");
        return None;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || serve(listener));
    let blocks = spec::blocks("python");
    let usage = format!("{client}-use");
    let script = format!("{}\n{}\n{more}\n", blocks[client], blocks[usage.as_str()]);
    assert!(script.contains("8085"), "the port of the text");
    let script = script.replace("8085", &port.to_string());
    let mut python = Command::new("python3");
    // A client that waits for what never comes must not hold up the tests.
    let script = format!("import signal\nsignal.alarm(20)\n{script}");
    let output = python
        .args(["-c", &script])
        .stdin(Stdio::null())
        .output()
        .expect("python3 is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn classic_client_works_as_it_stands() {
    if let Some(printed) = run("classic", "") {
        assert_eq!(printed, "b'hello'\n");
    }
    let lines = spec::blocks("python")["classic"].lines().count();
    assert!(lines <= 12, "ten lines of Python were promised");
}

#[test]
fn framed_client_works_as_it_stands() {
    let closed = "\
try:
    alice.read()
except ConnectionError as error:
    print(error)";
    if let Some(printed) = run("framed", closed) {
        let id = ID.to_string();
        let escaped = r"\xa1".repeat(MessageId::LEN);
        let expected = format!(
            "('alice', '{id}', b'hello')\n[(1, b'{escaped}', 1, 0)]\nclosed, reason 5: end\n"
        );
        assert_eq!(printed, expected);
    }
}
