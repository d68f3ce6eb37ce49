//! The clients in `protocol/SPEC.md`, as they stand there, and `iris chat`, against the real gateway.
//!
//! Where there is no `python3`, the tests of its clients say so and pass: they are an example, not a
//! part.

#[path = "../../../protocol/tests/spec/mod.rs"]
mod spec;

use std::process::Command;

use crate::support;
use crate::support::{Chat, Gateway};

/// Runs a client of the text, its use there, and `more`; gives what they printed.
fn python(gateway: &Gateway, client: &str, more: &str) -> Option<String> {
    let python = Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|output| output.status.success()) {
        eprintln!("no python3 here: the client was not run");
        return None;
    }
    let blocks = spec::blocks("python");
    let usage = format!("{client}-use");
    let script = format!("{}\n{}\n{more}\n", blocks[client], blocks[usage.as_str()]);
    let script = script.replace("8085", &gateway.address().port().to_string());
    let output = support::run(Command::new("python3").args(["-c", &script]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_classic_client_in_python() {
    let gateway = Gateway::serving(&[]);
    let more = "\
send(alice, 'carol', b'for later')
alice.close()
import time
carol = login('carol')
print(carol.recv(65536))";
    if let Some(printed) = python(&gateway, "classic", more) {
        assert_eq!(printed, "b'hello'\nb'for later'\n");
    }
}

#[test]
fn the_framed_client_in_python() {
    let gateway = Gateway::serving(&[]);
    let more = "\
alice.send(2, 'carol', b'for later')
sequence, message_id, outcome, reason = alice.answers()[0]
print(sequence, outcome, reason)
carol = Iris('carol')
print(carol.welcome[5])
sender, delivered_id, payload = carol.deliver()
print(sender, payload, delivered_id == message_id.hex())
Iris('carol')
try:
    carol.read()
except ConnectionError as error:
    print(error)";
    if let Some(printed) = python(&gateway, "framed", more) {
        let lines: Vec<&str> = printed.lines().collect();
        let [delivered, answers, rest @ ..] = &lines[..] else {
            panic!("{printed}");
        };
        assert!(delivered.starts_with("('alice', '") && delivered.ends_with("', b'hello')"));
        // Behind a login a message may take the way through the inbox.
        let is_answered = answers.ends_with(", 1, 0)]") || answers.ends_with(", 2, 0)]");
        assert!(answers.starts_with("[(1, b") && is_answered, "{answers}");
        assert_eq!(
            rest,
            [
                "2 2 0",
                "1",
                "alice b'for later' True",
                "closed, reason 4: a newer login of the same user took over",
            ]
        );
    }
}

#[test]
fn two_chats_exchange_messages_and_one_finds_what_came_before_a_kill() {
    let mut gateway = Gateway::serving(&[]);
    let mut alice = Chat::start("alice", gateway.address());
    let mut bob = Chat::start("bob", gateway.address());
    assert!(
        alice
            .prints()
            .starts_with("logged in as alice, no messages waiting")
    );
    assert!(
        bob.prints()
            .starts_with("logged in as bob, no messages waiting")
    );
    alice.types("@bob hello");
    assert!(bob.prints().starts_with("alice: hello  (id "));
    let answer = alice.prints();
    assert!(
        answer.starts_with("@bob delivered") || answer.starts_with("@bob stored"),
        "{answer}"
    );
    bob.types("@alice hello yourself");
    assert!(alice.prints().starts_with("bob: hello yourself  (id "));
    bob.prints();
    bob.input_ends();
    assert_eq!(bob.ended(), (Some(0), String::new()));

    alice.types("@bob are you away?");
    let stored = alice.prints();
    assert!(stored.starts_with("@bob stored"), "{stored}");
    let address = gateway.address().to_string();
    gateway.kill();
    assert!(alice.prints().starts_with("connection lost ("));
    gateway.start_again_at(&address);
    let mut bob = Chat::start("bob", gateway.address());
    assert!(
        bob.prints()
            .starts_with("logged in as bob, 1 message waiting")
    );
    assert!(bob.prints().starts_with("alice: are you away?  (id "));

    // Alice comes back by herself, and everything goes on.
    let mut line = alice.prints();
    while line.starts_with("connection lost (") {
        line = alice.prints();
    }
    assert!(line.starts_with("logged in as alice"), "{line}");
    bob.types("@alice back again");
    assert!(alice.prints().starts_with("bob: back again  (id "));
    bob.prints();
    for mut chat in [alice, bob] {
        chat.input_ends();
        assert_eq!(chat.ended(), (Some(0), String::new()));
    }
    gateway.stop();
}
