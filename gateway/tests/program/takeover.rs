//! The newest login of a user gets the deliveries; a classic connection may log in again and again.

use std::time::Duration;

use iris_protocol::framed::{PREFACE, encode};
use iris_protocol::{CloseReason, Name, Outcome, classic};

use crate::support;
use crate::support::{Classic, Framed, Gateway};

const SOON: Duration = Duration::from_millis(150);

#[test]
fn an_older_framed_session_is_told_and_closed() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let mut sender = Framed::login(at, "sender");
    for user in [0, 1].map(|core| gateway.users_of(core, "twice", 1).remove(0)) {
        let mut older = Framed::login(at, &user);
        let sequence = sender.send(&user, b"not acknowledged");
        let before = older.receives();
        let mut newer = Framed::login(at, &user);
        assert_eq!(older.is_closed(), (CloseReason::Replaced, 0));
        // What the older one had not acknowledged comes to the newer one, with the same id.
        let message = newer.takes();
        assert_eq!((message.id, message.text()), (before.id, before.text()));
        assert!(!matches!(sender.outcome(sequence), Outcome::Refused(_)));
        let sequence = sender.send(&user, b"new");
        assert_eq!(newer.takes().text(), "new");
        assert!(!matches!(sender.outcome(sequence), Outcome::Refused(_)));
        newer.leave();
    }
    gateway.metrics_when("two replaced", |metrics| {
        metrics.closed("replaced") == 2 && metrics.sum("iris_takeovers_total") == 2
    });
}

#[test]
fn an_older_classic_connection_stays_without_a_user_and_may_log_in_again() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let mut sender = Framed::login(at, "sender");
    for user in [0, 1].map(|core| gateway.users_of(core, "twice", 1).remove(0)) {
        let mut older = Classic::login(at, &user);
        sender.gets_through(&user, b"to the older");
        older.reads_exactly(b"to the older");
        let mut newer = Classic::login(at, &user);
        sender.gets_through(&user, b"to the newer");
        newer.reads_exactly(b"to the newer");
        older.reads_nothing_for(SOON);
        // It takes the user back, and then becomes another.
        older.become_user(&user);
        sender.gets_through(&user, b"back");
        older.reads_exactly(b"back");
        newer.reads_nothing_for(SOON);
        newer.become_user("somebody else");
        newer.send(&user, b"from somebody else");
        older.reads_exactly(b"from somebody else");
        newer.leave();
        older.leave();
    }
}

#[test]
fn the_protocols_take_over_from_each_other() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let mut sender = Framed::login(at, "sender");
    for user in [0, 1].map(|core| gateway.users_of(core, "both", 1).remove(0)) {
        let mut older = Classic::login(at, &user);
        let mut framed = Framed::login(at, &user);
        let sequence = sender.send(&user, b"to the framed one");
        assert_eq!(framed.takes().text(), "to the framed one");
        assert!(!matches!(sender.outcome(sequence), Outcome::Refused(_)));
        older.reads_nothing_for(SOON);
        let mut classic = Classic::login(at, &user);
        assert_eq!(framed.is_closed().0, CloseReason::Replaced);
        sender.gets_through(&user, b"to the classic one");
        classic.reads_exactly(b"to the classic one");
        older.leave();
        classic.leave();
    }
}

#[test]
fn one_socket_becomes_hundreds_of_users_over_all_homes() {
    const ROUNDS: usize = 600;
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let mut sender = Framed::login(at, "sender");
    for round in 0..ROUNDS {
        let user = format!("reborn-{round}");
        let message = format!("for {user}");
        assert_eq!(sender.sends(&user, message.as_bytes()), Outcome::Stored);
    }
    let mut socket = Classic::connect(at);
    for round in 0..ROUNDS {
        let user = format!("reborn-{round}");
        socket.become_user(&user);
        socket.reads_exactly(format!("for {user}").as_bytes());
    }
    // Verified as the old test clients do: everything was consumed.
    for round in 0..ROUNDS {
        socket.become_user(&format!("reborn-{round}"));
    }
    socket.become_user("last");
    sender.gets_through("last", b"alive");
    socket.reads_exactly(b"alive");
    socket.leave();
    let logins = 2 * ROUNDS as u64 + 2;
    let metrics = gateway.metrics_when("all left", |metrics| {
        metrics.closed_in_all() == 1
            && metrics.sum("iris_connections") == 1
            && metrics.sum("iris_logins_total") >= logins
    });
    assert_eq!(metrics.sum("iris_logins_total"), logins);
    assert!(metrics.sum("iris_handed_over_total") > ROUNDS as u64 / 2);
    for round in [0, ROUNDS - 1] {
        Framed::inbox_becomes(at, &format!("reborn-{round}"), 0);
    }
}

#[test]
fn what_is_said_right_behind_a_login_moves_along() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let mut reader = Classic::login(at, "reader");
    let homes = [0, 1].map(|core| gateway.users_of(core, "mover", 1).remove(0));
    let mut socket = Classic::connect(at);
    for round in 0..200 {
        let mut out = Vec::new();
        support::login_classic(&mut out, &homes[round % 2]);
        socket.say(&out);
        // In segments of their own, some of which come while the socket moves.
        for number in 0..10 {
            socket.send("reader", format!("{round:03}-{number} ").as_bytes());
        }
        for number in 0..10 {
            reader.reads_exactly(format!("{round:03}-{number} ").as_bytes());
        }
        socket.reads_exactly(classic::LOGIN_OK);
    }
}

#[test]
fn two_sockets_take_the_same_user_from_each_other() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let mut sender = Classic::login(at, "sender");
    let (mut one, mut other) = (Classic::connect(at), Classic::connect(at));
    for round in 0..200 {
        let (newer, older) = if round % 2 == 0 {
            (&mut one, &mut other)
        } else {
            (&mut other, &mut one)
        };
        newer.become_user("contested");
        let message = format!("{round:08}");
        sender.send("contested", message.as_bytes());
        newer.reads_exactly(message.as_bytes());
        if round == 199 {
            older.reads_nothing_for(SOON);
        }
    }
}

#[test]
fn a_login_and_sends_may_share_a_segment_and_sends_may_be_split_anywhere() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    for reader in [0, 1].map(|core| gateway.users_of(core, "reader", 1).remove(0)) {
        let mut bob = Classic::login(at, &reader);
        for core in 0..2 {
            let sender = gateway.users_of(core, "sender", 1).remove(0);
            let mut together = Vec::new();
            support::login_classic(&mut together, &sender);
            support::send_classic(&mut together, &reader, b"first");
            support::send_classic(&mut together, &reader, b"second");
            let mut alice = Classic::connect(at);
            alice.say(&together);
            alice.reads_exactly(classic::LOGIN_OK);
            bob.reads_exactly(b"firstsecond");

            let mut two = Vec::new();
            support::send_classic(&mut two, &reader, b"[split]");
            support::send_classic(&mut two, &reader, b"[again]");
            for cut in 1..two.len() {
                alice.say(&two[..cut]);
                // Long enough that the parts arrive apart, mostly.
                std::thread::sleep(Duration::from_millis(1));
                alice.say(&two[cut..]);
                bob.reads_exactly(b"[split][again]");
            }
            for byte in &two {
                alice.say(&[*byte]);
            }
            bob.reads_exactly(b"[split][again]");
            alice.leave();
        }
    }
}

#[test]
fn a_framed_login_may_be_split_anywhere() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let hello = |user: &str| {
        let mut out = PREFACE.to_vec();
        let name = Name::parse(user.as_bytes()).expect("a name");
        encode::login(&mut out, name, b"");
        encode::send(&mut out, 1, 0, user.as_bytes(), b"to me");
        out
    };
    for cut in 1..hello("splitter-00").len() {
        // A user of its own each time: the number of a send is never used again.
        let whole = hello(&format!("splitter-{cut:02}"));
        let mut client = Framed::connect(at);
        client.say(&whole[..cut]);
        std::thread::sleep(Duration::from_millis(1));
        client.say(&whole[cut..]);
        assert_eq!(client.takes().text(), "to me", "cut at {cut}");
        assert!(!matches!(client.outcome(1), Outcome::Refused(_)));
        client.leave();
    }
}
