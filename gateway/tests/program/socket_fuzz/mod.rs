//! Conversations at the socket of the real gateway: valid ones of both protocols, mutated, cut at
//! any point, and ended in every way a socket can end, on several cores. Afterwards nothing is
//! left: no connection, no session, no memory, no work; and the store is sound.
//!
//! Two minutes with the tests. `IRIS_FUZZ_SECONDS=3600` makes it an hour; a failing run names its
//! seed, and `IRIS_FUZZ_SEED` begins with it. (Threads share the cpus as they will, so a seed gives
//! the same conversations and not the same schedule.)

mod conversation;
mod peer;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{self, Framed, Gateway, HealthyPair, Random, of_environment, seed_of};

const SECONDS: u64 = 120;
const THREADS: u64 = 6;
/// Beyond what it held after a quarter of the time: what the store and the pools may still grow by.
const GROWTH_MAX: u64 = 96 << 20;

#[test]
fn nothing_is_left_of_any_conversation() {
    let time = Duration::from_secs(of_environment("IRIS_FUZZ_SECONDS", SECONDS));
    let seed = seed_of("IRIS_FUZZ_SEED");
    let mut gateway = Gateway::serving_for(
        time + Duration::from_secs(120),
        &["--login-timeout", "2s", "--idle-timeout", "5s"],
    );
    let at = gateway.address();
    let pair = HealthyPair::start(&gateway);
    let (over, conversations) = (AtomicBool::new(false), AtomicU64::new(0));
    let resident = thread::scope(|scope| {
        for thread in 0..THREADS {
            let (over, conversations) = (&over, &conversations);
            scope.spawn(move || {
                let mut random = Random(seed.wrapping_mul(THREADS).wrapping_add(thread));
                while !over.load(Ordering::SeqCst) {
                    let conversation = conversation::make(&mut random);
                    peer::holds(at, &conversation, &mut random);
                    conversations.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        thread::sleep(time / 4);
        let resident = gateway.resident_bytes();
        thread::sleep(time - time / 4);
        over.store(true, Ordering::SeqCst);
        resident
    });
    pair.end();
    let metrics = gateway.metrics_when("all are gone", |metrics| {
        [
            "iris_connections",
            "iris_sessions",
            "iris_partial_bytes",
            "iris_outbox_bytes",
            "iris_store_pending_bytes",
        ]
        .iter()
        .all(|gauge| metrics.sum(gauge) == 0)
    });
    let conversations = conversations.into_inner();
    println!("{conversations} conversations");
    assert!(conversations > 10 * time.as_secs(), "they hardly spoke");
    assert_eq!(
        metrics.closed_in_all(),
        metrics.sum("iris_accepted_total"),
        "every connection has an end, and only one"
    );
    for fault in ["iris_socket_faults_total", "iris_messages_lost_total"] {
        assert_eq!(metrics.sum(fault), 0, "{fault}");
    }
    assert_eq!(metrics.closed("internal"), 0);
    let grown = gateway.resident_bytes().saturating_sub(resident);
    assert!(
        grown < GROWTH_MAX,
        "{grown} bytes more than after a quarter"
    );
    // Nobody is there, so nothing is to be done.
    let (busy, began) = (gateway.cpu_time(), Instant::now());
    thread::sleep(Duration::from_secs(2));
    let share = (gateway.cpu_time() - busy).as_secs_f64() / began.elapsed().as_secs_f64();
    assert!(share < 0.5, "{share} of a cpu for nothing");
    Framed::login(at, "newcomer").is_heard();
    gateway.stop();
    let mut check = support::iris();
    let checked = support::run(check.args(["store", "check"]).arg(gateway.data()));
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
}
