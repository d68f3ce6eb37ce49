//! Memory is bounded for the process: half commands take what is in them, input over its budget ends
//! whoever holds most of it, and readers that never read leave room for those that do.

use std::io::Write;
use std::net::TcpStream;

use iris_protocol::framed::{PREFACE, encode};
use iris_protocol::{Name, Outcome};

use crate::support::{Framed, Gateway, HealthyPair, Metrics, narrow};

const MIB: u64 = 1 << 20;

fn hello(user: &str) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    let user = Name::parse(user.as_bytes()).expect("a name");
    encode::login(&mut out, user, b"");
    out
}

/// A send of 64 KiB that is refused, since there is no such target.
fn long_send(sequence: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode::send(&mut out, sequence, 0, b"", &[b'x'; 64 << 10]);
    out
}

fn connected(gateway: &Gateway, said: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address()).expect("connected");
    stream.write_all(said).expect("said");
    stream
}

fn budget(metrics: &Metrics, name: &str) -> u64 {
    let bytes = metrics.sum(&format!("iris_budget_bytes{{budget=\"{name}\"}}"));
    let bytes_max = metrics.sum(&format!("iris_budget_max_bytes{{budget=\"{name}\"}}"));
    // What comes while a connection is being ended is held as well.
    let on_its_way = bytes_max / 16;
    assert!(
        bytes <= bytes_max + on_its_way,
        "{name}: {bytes} of {bytes_max}"
    );
    bytes
}

#[test]
fn half_commands_take_what_is_in_them() {
    const HELPERS: usize = 128;
    let gateway = Gateway::serving(&[]);
    let mut helpers: Vec<Framed> = (0..HELPERS)
        .map(|n| Framed::login(gateway.address(), &format!("helper-{n}")))
        .collect();
    let mut quiet = Vec::new();
    let before = gateway.resident_bytes();
    for round in 0..8u64 {
        let sequence = 1 + round;
        let long = long_send(sequence);
        let (first, rest) = long.split_at(long.len() - 20);
        helpers.iter_mut().for_each(|helper| helper.say(first));
        gateway.metrics_when("all halves arrived", |metrics| {
            metrics.sum("iris_partial_bytes") >= (HELPERS * first.len()) as u64
        });
        for helper in &mut helpers {
            helper.say(rest);
            assert!(matches!(helper.outcome(sequence), Outcome::Refused(_)));
        }
        // The buffers are free now, and somebody says the first byte of a frame.
        for n in 0..HELPERS {
            let mut said = hello(&format!("quiet-{round}-{n}"));
            said.push(0);
            quiet.push(connected(&gateway, &said));
        }
    }
    let metrics = gateway.metrics_when("all are there", |metrics| {
        metrics.sum("iris_sessions") == (HELPERS + quiet.len()) as u64
            && metrics.sum("iris_partial_bytes") == 64 * quiet.len() as u64
    });
    assert!(budget(&metrics, "input") < 8 * MIB);
    let taken = gateway.resident_bytes().saturating_sub(before);
    assert!(taken < 48 * MIB, "{} MiB", taken / MIB);
}

#[test]
fn input_over_its_budget_ends_those_who_hold_most_on_whatever_core() {
    let gateway = Gateway::serving(&["--input-bytes-max", "4MiB"]);
    let pair = HealthyPair::start(&gateway);
    let half = &long_send(1)[..60_000];
    let held: Vec<Framed> = (0..200)
        .map(|n| {
            let mut client = Framed::login(gateway.address(), &format!("holder-{n}"));
            // It may be closed while it says it.
            let _ = client.try_say(half);
            budget(&gateway.metrics(), "input");
            client
        })
        .collect();
    // Those that wait and say no more are closed a moment after the others.
    let metrics = gateway.metrics_when("most are closed, and their memory is free", |metrics| {
        metrics.closed("overloaded") >= 150 && budget(metrics, "input") <= 3 * MIB
    });
    assert!(budget(&metrics, "input") <= 3 * MIB);
    drop(held);
    pair.end();
}

#[test]
fn readers_that_never_read_leave_room_for_those_that_do() {
    const READERS: usize = 100;
    const MESSAGES: u32 = 150;
    // However much the kernel takes of it, what is not acknowledged is kept.
    let gateway = Gateway::serving(&[
        "--output-bytes-max",
        "8MiB",
        "--unanswered-sends-max",
        "65536",
        "--ack-timeout",
        "60s",
    ]);
    let pair = HealthyPair::start(&gateway);
    let names: Vec<String> = (0..READERS).map(|n| format!("reader-{n}")).collect();
    let mut readers: Vec<Framed> = names
        .iter()
        .map(|name| {
            let mut reader = Framed::over(narrow(&gateway));
            reader.logs_in(name, b"");
            reader
        })
        .collect();
    let mut sender = Framed::login(gateway.address(), "sender");
    for number in 0..MESSAGES {
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(8_000, b'.');
        for name in &names {
            sender.send(name, &payload);
        }
        sender.is_heard();
        budget(&gateway.metrics(), "output");
    }
    let metrics = gateway.metrics_when("some have more than their share", |metrics| {
        metrics.sum("iris_output_spills_total") > 0
    });
    assert_eq!(metrics.closed("slow-reader"), 0);
    pair.end();
    // Nothing is lost, and the order holds.
    for number in 0..MESSAGES {
        let message = readers[7].takes();
        assert_eq!(message.payload[..4], number.to_be_bytes());
    }
}
