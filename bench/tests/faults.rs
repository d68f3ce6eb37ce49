//! The load generator counts what a server does wrong, and says so in its first line and with its
//! exit code.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Output;
use std::sync::Mutex;

mod support;

use support::bench;

use iris_protocol::classic::{self, Command as Said, LOGIN_OK};

/// What a server does with its messages.
#[derive(Clone, Copy)]
enum Conduct {
    Honest,
    SwallowsOneInAHundred,
    Doubles,
    GivesThemBackToTheSender,
    SwapsNeighbours,
    FlipsABit,
    HangsUpAfterAHundred,
}

type Users = Mutex<HashMap<String, TcpStream>>;

/// A slow but simple router of the classic protocol, which lives as long as the test process.
fn serve(conduct: Conduct) -> SocketAddr {
    support::serve(move |socket, users: &Users| serve_one(socket, users, conduct))
}

fn serve_one(mut socket: TcpStream, users: &Users, conduct: Conduct) {
    let (mut input, mut buffer) = (Vec::new(), [0; 4096]);
    let (mut count, mut kept) = (0, None);
    while let Ok(len @ 1..) = socket.read(&mut buffer) {
        input.extend_from_slice(&buffer[..len]);
        let mut at = 0;
        while let Ok(Some((said, used))) = classic::decode(&input[at..]) {
            at += used;
            let mut users = users.lock().expect("no panic before");
            match said {
                Said::Login(name) => {
                    users.insert(
                        name.as_str().to_owned(),
                        socket.try_clone().expect("a socket"),
                    );
                    let _ = socket.write_all(LOGIN_OK);
                }
                Said::Send { target, payload } => {
                    count += 1;
                    let Some(reader) = users.get_mut(target.as_str()) else {
                        continue;
                    };
                    let _ = match conduct {
                        Conduct::SwallowsOneInAHundred if count % 100 == 0 => Ok(()),
                        Conduct::HangsUpAfterAHundred if count == 100 => {
                            socket.shutdown(Shutdown::Both)
                        }
                        Conduct::Doubles => reader.write_all(&payload.repeat(2)),
                        Conduct::FlipsABit if count == 100 => {
                            let mut payload = payload.to_vec();
                            payload[0] ^= 1;
                            reader.write_all(&payload)
                        }
                        Conduct::GivesThemBackToTheSender => socket.write_all(payload),
                        Conduct::SwapsNeighbours if count % 100 == 0 => {
                            kept = Some((target.as_str().to_owned(), payload.to_vec()));
                            Ok(())
                        }
                        _ => reader.write_all(payload),
                    };
                    // What was kept follows the next one to the same reader.
                    if kept
                        .as_ref()
                        .is_some_and(|(name, late)| name == target.as_str() && late != payload)
                        && let (Some((_, late)), Some(reader)) =
                            (kept.take(), users.get_mut(target.as_str()))
                    {
                        let _ = reader.write_all(&late);
                    }
                }
                Said::Ack => {}
            }
        }
        input.drain(..at);
    }
}

fn drive(conduct: Conduct) -> Output {
    let address = serve(conduct).to_string();
    bench(&[
        "mesh",
        "--protocol",
        "classic",
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
    ])
}

/// The number in front of `what` in the first line of the report, which must be a bad one.
fn blamed(conduct: Conduct, what: &str) -> u64 {
    let output = drive(conduct);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = text.lines().next().expect("a first line");
    assert!(first.starts_with("mesh: WRONG: of "), "{first}");
    let (before, _) = first
        .split_once(what)
        .unwrap_or_else(|| panic!("no {what:?} in {first:?}"));
    let number = before.trim_end().rsplit(' ').next().expect("a word");
    number
        .parse()
        .unwrap_or_else(|_| panic!("no number before {what:?} in {first:?}"))
}

#[test]
fn an_honest_server_passes() {
    let output = drive(Conduct::Honest);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = text.lines().next().expect("a first line");
    let (before, after) = first.split_once(" messages ").expect(first);
    let messages = before
        .rsplit(' ')
        .next()
        .expect("a number")
        .replace(',', "");
    assert!(messages.parse::<u64>().expect(first) > 100, "{first}");
    assert!(before.starts_with("mesh: sound: of "), "{first}");
    assert_eq!(after, "none was lost, none out of order");
}

#[test]
fn lost_messages_are_counted() {
    assert!(blamed(Conduct::SwallowsOneInAHundred, "lost") > 0);
}

#[test]
fn repeated_messages_are_counted() {
    assert!(blamed(Conduct::Doubles, "repeated") > 100);
}

#[test]
fn messages_that_change_places_are_counted() {
    assert!(blamed(Conduct::SwapsNeighbours, "out of order") > 0);
}

#[test]
fn messages_to_the_wrong_reader_are_counted() {
    assert!(blamed(Conduct::GivesThemBackToTheSender, "astray") > 0);
}

#[test]
fn bytes_that_are_no_message_are_counted() {
    assert!(blamed(Conduct::FlipsABit, "astray") > 0);
}

#[test]
fn a_server_that_hangs_up_is_blamed() {
    assert!(blamed(Conduct::HangsUpAfterAHundred, "connections ended") > 0);
}
