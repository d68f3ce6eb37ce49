//! The answer to a classic login travels alone: old clients throw away whatever comes in the same read.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use iris_protocol::{Outcome, classic};

use crate::support::{Classic, Framed, Gateway, login_classic};

const USERS: usize = 100;
const MESSAGES: usize = 20;
const MESSAGE: &[u8] = b"a message of 32 bytes, as it is.";

/// The users of so many full inboxes.
fn full_inboxes(at: SocketAddr, prefix: &str) -> Vec<String> {
    let mut alice = Framed::login(at, "alice");
    let users: Vec<String> = (0..USERS).map(|user| format!("{prefix}{user}")).collect();
    for user in &users {
        let sends: Vec<u64> = (0..MESSAGES).map(|_| alice.send(user, MESSAGE)).collect();
        for send in sends {
            assert_eq!(alice.outcome(send), Outcome::Stored);
        }
    }
    users
}

/// Logs in as an old client does: one read is for the answer, whatever it brings.
fn logs_in_and_finds_all(mut stream: &TcpStream, user: &str) {
    let mut login = Vec::new();
    login_classic(&mut login, user);
    stream.write_all(&login).expect("written");
    let mut piece = vec![0; 64 << 10];
    let len = stream.read(&mut piece).expect("an answer");
    assert!(&piece[..len] == classic::LOGIN_OK, "{len} bytes for {user}");
    let mut inbox = vec![0; MESSAGES * MESSAGE.len()];
    stream.read_exact(&mut inbox).expect("the whole inbox");
    assert!(inbox.chunks(MESSAGE.len()).all(|one| one == MESSAGE));
}

#[test]
fn who_throws_away_what_comes_with_the_answer_loses_nothing() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let users = full_inboxes(at, "reader");
    thread::scope(|scope| {
        for some in users.chunks(USERS / 4) {
            scope.spawn(move || {
                for user in some {
                    let client = Classic::connect(at);
                    logs_in_and_finds_all(client.stream(), user);
                    client.leave();
                }
            });
        }
    });
    let metrics = gateway.metrics_when("all burned", |metrics| {
        metrics.sum("iris_store_live_messages") == 0
    });
    assert_eq!(metrics.sum("iris_messages_spilled_total"), 0);
}

#[test]
fn who_becomes_one_user_after_the_other_loses_nothing() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let users = full_inboxes(at, "again");
    let client = Classic::connect(at);
    for user in &users {
        logs_in_and_finds_all(client.stream(), user);
    }
    client.leave();
    gateway.metrics_when("all burned", |metrics| {
        metrics.sum("iris_store_live_messages") == 0
    });
}
