//! The scenarios of users who come, go and are away, against the real gateway.

mod support;

use support::{bench, figure, gateway, sound};

#[test]
fn users_who_come_and_go_at_a_rate_are_all_let_in() {
    for protocol in ["classic", "framed"] {
        let text = sound(&[
            "connect",
            "--protocol",
            protocol,
            "--rate",
            "500",
            "--rounds",
            "2",
            "--warm-up",
            "0.2",
            "--duration",
            "1",
        ]);
        let rate = figure(&text, "logins", "each s");
        assert!((300.0..600.0).contains(&rate), "{text}");
        assert!(text.contains("logins all were taken"), "{text}");
    }
}

#[test]
fn everybody_gets_in_at_once_and_comes_back_at_once() {
    let text = sound(&["storm", "--users", "1500", "--rounds", "2"]);
    assert!(
        text.starts_with("storm: sound: of 12,000 logins all were taken"),
        "{text}"
    );
    assert_eq!(figure(&text, "logged in", "users"), 1_500.0);
    for how in ["", ", gateway killed", ", gateway drained"] {
        assert!(text.contains(&format!("reconnect storm{how}")), "{text}");
    }
    // Nobody was in again before the gateway was.
    let ready = figure(&text, "until the gateway was ready", "ms");
    assert!(ready > 1.0, "{text}");
}

#[test]
fn what_was_stored_is_drained() {
    let text = sound(&[
        "offline",
        "--senders",
        "20",
        "--readers-each",
        "5",
        "--messages",
        "3000",
        "--rounds",
        "2",
    ]);
    assert!(
        text.starts_with("offline: sound: of 6,000 messages"),
        "{text}"
    );
    assert!(figure(&text, "stored", "msg/s") > 100.0, "{text}");
    assert!(figure(&text, "drained", "msg/s") > 100.0, "{text}");
}

#[test]
fn a_hot_inbox_is_filled_drained_and_both_at_once() {
    let text = sound(&[
        "hot",
        "--senders",
        "20",
        "--messages",
        "20000",
        "--rounds",
        "1",
    ]);
    assert!(text.starts_with("hot: sound: of 40,000 messages"), "{text}");
    for case in [
        "filled while away",
        "drained by one reader",
        "drained and filled at once",
    ] {
        assert!(text.lines().any(|line| line.starts_with(case)), "{text}");
    }
}

#[test]
fn a_protocol_without_answers_is_refused_where_they_are_what_it_is_about() {
    gateway();
    let output = bench(&["offline", "--protocol", "classic"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("answers sends"), "{text}");
}
