//! Several cores on one cpu under full load: they sleep and rouse each other all the time, and none
//! of them sleeps on with work before it.

mod support;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use iris_protocol::Outcome;

use support::{Event, Framed, Gateway};

const PAIRS: usize = 12;
/// Messages that a sender has under way.
const WINDOW: u64 = 64;
const LOAD_TIME: Duration = Duration::from_secs(4);
/// Longer than this nobody may wait for anything, or somebody sleeps.
const STALL_MAX: Duration = Duration::from_secs(5);
const LAST: &[u8] = b"the last one";

/// Sends until the time is over, and gives how many messages were answered.
fn sends(at: SocketAddr, user: &str, target: &str) -> u64 {
    let mut client = Framed::login(at, user);
    let begun = Instant::now();
    let mut number = 0u64;
    while begun.elapsed() < LOAD_TIME {
        let mut open = WINDOW;
        for _ in 0..WINDOW {
            client.send(target, &number.to_be_bytes());
            number += 1;
        }
        while open > 0 {
            match client.hears_within(STALL_MAX) {
                Some(Event::Answer(answer)) => {
                    assert!(!matches!(answer.outcome, Outcome::Refused(_)), "{answer:?}");
                    open -= 1;
                }
                Some(other) => panic!("{user} heard {other:?}"),
                None => panic!("{user} has waited {STALL_MAX:?} for {open} answers of {number}"),
            }
        }
    }
    assert!(!matches!(client.sends(target, LAST), Outcome::Refused(_)));
    number
}

/// Takes everything, in order, and gives how many messages there were.
fn takes(mut client: Framed, user: &str) -> u64 {
    let mut number = 0u64;
    loop {
        match client.hears_within(STALL_MAX) {
            Some(Event::Deliver(message)) => {
                client.ack(message.delivery);
                if message.payload == LAST {
                    client.is_heard();
                    return number;
                }
                assert_eq!(message.payload, number.to_be_bytes(), "{user}: in order");
                number += 1;
            }
            Some(other) => panic!("{user} heard {other:?}"),
            None => panic!("{user} has waited {STALL_MAX:?} for message {number}"),
        }
    }
}

fn carries_a_full_load(cores: usize) {
    let gateway = Gateway::serving_on_one_cpu(cores);
    let at = gateway.address();
    let pairs: Vec<_> = (0..PAIRS)
        .map(|pair| {
            let (sender, reader) = (format!("sender-{pair}"), format!("reader-{pair}"));
            let client = Framed::login(at, &reader);
            let takes = thread::spawn({
                let reader = reader.clone();
                move || takes(client, &reader)
            });
            (thread::spawn(move || sends(at, &sender, &reader)), takes)
        })
        .collect();
    let mut messages = 0;
    for (sends, takes) in pairs {
        let sent = sends.join().expect("every message is answered in time");
        let taken = takes
            .join()
            .expect("every message comes in order and in time");
        assert_eq!(sent, taken);
        messages += sent;
    }
    let metrics = gateway.metrics();
    println!(
        "{cores} cores: {messages} messages, {} sleeps",
        metrics.sum("iris_parks_total")
    );
    assert!(metrics.sum("iris_lane_sent_total") > 0 && metrics.sum("iris_parks_total") > 0);
}

#[test]
fn two_cores_on_one_cpu() {
    carries_a_full_load(2);
}

#[test]
fn four_cores_on_one_cpu() {
    carries_a_full_load(4);
}
