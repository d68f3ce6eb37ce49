//! Scenarios of users who leave and come back, of readers that do not read, and of searches and
//! projections, against the real gateway.

mod support;

use support::{bench, figure, sound};

const SHORT: [&str; 6] = ["--rounds", "1", "--warm-up", "0.2", "--duration", "1"];

#[test]
fn users_who_consume_and_come_again_find_nothing() {
    let text = sound(&[
        "burn",
        "--users",
        "120",
        "--messages",
        "5",
        "--at-once",
        "20",
        "--rounds",
        "2",
    ]);
    let (_, verified) = text.split_once("verified empty").expect("the second case");
    // Rounded up to whole senders.
    assert!(figure(verified, "verified", "users") >= 120.0, "{text}");
    assert_eq!(figure(verified, "left over", "messages"), 0.0, "{text}");
    assert!(text.contains("logins all were taken"), "{text}");
}

#[test]
fn readers_that_do_not_read_get_everything_in_the_end() {
    let slow = [
        "slow",
        "--healthy",
        "10",
        "--slow",
        "10",
        "--rate",
        "4000",
        "--bytes",
        "2000",
    ];
    let text = sound(&[&slow[..], &SHORT].concat());
    let (_, caught_up) = text.split_once("they read again").expect("a case");
    let waited = figure(caught_up, "waited for them", "messages");
    assert!(waited > 1_000.0, "{text}");
    assert!(text.contains("with slow readers over without"), "{text}");
}

#[test]
fn a_day_of_coming_going_and_writing_loses_nothing() {
    let mixed = [
        "mixed",
        "--users",
        "200",
        "--rate",
        "2000",
        "--changes",
        "100",
    ];
    let text = sound(&[&mixed[..], &SHORT].concat());
    assert!(figure(&text, "delivered", "msg/s") > 500.0, "{text}");
    assert!(
        figure(&text, "of these from the inbox", "msg/s") > 0.0,
        "{text}"
    );
    assert!(figure(&text, "logins", "each s") > 5.0, "{text}");
    assert!(figure(&text, "presence told", "each s") > 5.0, "{text}");
}

#[test]
fn a_sweep_finds_a_rate_that_keeps_the_bound() {
    let sweep = [
        "sweep",
        "--connections",
        "20",
        "--bound",
        "200",
        "--rounds",
        "2",
    ];
    let timing = ["--warm-up", "0.1", "--duration", "0.3"];
    let text = sound(&[&sweep[..], &timing].concat());
    let headline = text.lines().nth(1).expect("a second line");
    assert!(
        headline.contains("msg/s is the highest rate with p99 under 200ms"),
        "{text}"
    );
    let (_, found) = text.split_once("\nhighest rate").expect("a case");
    let (rate, p99) = (
        figure(found, "rate", "msg/s"),
        figure(found, "latency, p99", "us"),
    );
    assert!(rate > 10.0 && p99 <= 200_000.0, "{text}");
}

#[test]
fn a_projection_names_the_machines_and_what_binds() {
    let project = ["project", "--users", "1e9", "--idle-users", "2500"];
    let text = sound(&[&project[..], &SHORT].concat());
    let headline = text.lines().nth(1).expect("a second line");
    assert!(
        headline.starts_with("1,000,000,000 users need ") && headline.ends_with(" binds"),
        "{text}"
    );
    for resource in ["CPU", "memory", "network", "disk writes", "disk space"] {
        let (_, machines) = text.split_once("machines, by resource").expect("a case");
        assert!(figure(machines, resource, "machines") >= 0.0, "{text}");
    }
    let nobody = bench(&["project", "--users", "0"]);
    assert_eq!(nobody.status.code(), Some(2));
}
