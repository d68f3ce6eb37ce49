//! Classic connections that log in again and again between users with full inboxes: each login asks the store for a page
//! that nobody reads. Others' logins are answered, their inboxes told right and delivered, and the flood itself loses nothing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::{Classic, Framed, Gateway, login_classic};
use iris_protocol::{Outcome, classic};

const FLOODS: usize = 4;
/// More than the burst that a connection may have at once.
const LOGINS: usize = 1_200;
const STORED: usize = 300;
const AWAY: usize = 30;

fn fill(alice: &mut Framed, reader: &str, messages: usize) {
    let sequences: Vec<u64> = (0..messages)
        .map(|n| alice.send(reader, format!("<{n}>").as_bytes()))
        .collect();
    for sequence in sequences {
        assert_eq!(alice.outcome(sequence), Outcome::Stored);
    }
}

/// Logs in so often and then waits for all answers; says how many came.
fn floods(address: SocketAddr, number: usize) -> usize {
    let mut out = Vec::new();
    for n in 0..LOGINS {
        login_classic(&mut out, &format!("bait{}", 2 * number + n % 2));
    }
    let mut client = Classic::connect(address);
    client.say(&out);
    let (mut answers, mut seen) = (0, Vec::new());
    while answers < LOGINS {
        seen.extend(client.read(1));
        if seen.ends_with(classic::LOGIN_OK) {
            answers += 1;
            seen.clear();
        }
    }
    answers
}

#[test]
fn logins_of_others_are_answered_in_a_flood_of_logins() {
    let gateway = Gateway::serving(&[]);
    let address = gateway.address();
    let mut alice = Framed::login(address, "alice");
    for bait in 0..2 * FLOODS {
        fill(&mut alice, &format!("bait{bait}"), STORED);
    }
    for away in 0..AWAY {
        fill(&mut alice, &format!("away{away}"), 5);
    }
    let flooding = AtomicBool::new(true);
    thread::scope(|scope| {
        let floods: Vec<_> = (0..FLOODS)
            .map(|number| scope.spawn(move || floods(address, number)))
            .collect();
        let logins = scope.spawn(|| {
            for away in (0..AWAY).cycle() {
                if !flooding.load(Ordering::Relaxed) {
                    return;
                }
                let user = format!("away{away}");
                let (mut bob, depth) = Framed::login_depth(address, &user);
                assert_eq!(depth, 5, "{user}");
                for n in 0..5 {
                    let message = bob.receives();
                    assert_eq!(message.payload, format!("<{n}>").into_bytes());
                }
                // Nothing is acknowledged: they are there the next time.
                bob.leave();
            }
        });
        for flood in floods {
            assert_eq!(flood.join().expect("no panic"), LOGINS);
        }
        flooding.store(false, Ordering::Relaxed);
        logins.join().expect("no panic");
    });
    let metrics = gateway.metrics_when("counted", |metrics| {
        let unwanted = metrics.sum("iris_store_reads_cancelled_total")
            + metrics.sum("iris_reads_unused_total");
        metrics.sum("iris_relogins_delayed_total") > 0
            && unwanted > 0
            && metrics.sum("iris_store_queued_reads") == 0
    });
    for reason in ["full", "share"] {
        let refused = format!("iris_store_refused_total{{queue=\"reads\",reason=\"{reason}\"}}");
        assert_eq!(metrics.sum(&refused), 0);
    }
}
