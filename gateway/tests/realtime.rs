//! A core that has a cpu of its own comes before all other threads, as long as it leaves them time.

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use iris_protocol::Outcome;
use iris_ring::Scheduling;
use rustix::thread::{CpuSet, sched_getaffinity};

use support::{Event, Framed, Gateway, eventually};

/// Messages that a sender has under way.
const WINDOW: usize = 64;

/// Whether this machine grants a real-time priority to those who ask.
fn is_allowed() -> bool {
    // On a thread of its own, which ends with what it was granted.
    let asked = thread::spawn(|| {
        let scheduling = Scheduling::of_this_thread().expect("known");
        scheduling.is_some_and(|scheduling| scheduling.take_realtime().is_ok())
    });
    asked.join().expect("no panic")
}

/// The real-time priorities of its threads, but for those that have none. Only cores may be among them.
fn priorities(gateway: &Gateway) -> Vec<u32> {
    let threads = gateway.realtime_priorities();
    let first: Vec<_> = threads.iter().filter(|(_, of)| *of > 0).collect();
    let cores_only = first.iter().all(|(name, _)| name.starts_with("iris-core"));
    assert!(cores_only, "{threads:?}");
    first.iter().map(|(_, priority)| *priority).collect()
}

/// The first cpu this test may run on, as a list of cores.
fn one_cpu() -> String {
    let allowed = sched_getaffinity(None).expect("known");
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu));
    format!("{},", first.expect("one"))
}

#[test]
fn a_core_comes_before_all_other_threads() {
    let gateway = Gateway::serving_on_cores(&one_cpu());
    let expected = if is_allowed() { vec![1] } else { Vec::new() };
    assert_eq!(priorities(&gateway), expected);
    let told = expected.len() as u64;
    gateway.metrics_when("it tells", |metrics| metrics.sum("iris_realtime") == told);
}

#[test]
fn cores_that_share_a_cpu_are_like_all_others() {
    let gateway = Gateway::serving_on_one_cpu(2);
    assert!(priorities(&gateway).is_empty());
}

#[test]
fn no_core_comes_first_where_that_is_switched_off() {
    let gateway = Gateway::serving(&["--realtime", "off"]);
    assert!(priorities(&gateway).is_empty());
    assert_eq!(gateway.metrics().sum("iris_realtime"), 0);
}

/// Sends to itself as much as there is room for.
fn floods(at: SocketAddr, user: &str, ended: &AtomicBool) {
    let mut client = Framed::login(at, user);
    while !ended.load(Ordering::Relaxed) {
        for _ in 0..WINDOW {
            client.send(user, b"again");
        }
        let mut open = WINDOW;
        while open > 0 {
            match client.hears() {
                Event::Answer(_) => open -= 1,
                Event::Deliver(message) => client.ack(message.delivery),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Ends the flood, also when a test fails: its threads are waited for.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_busy_core_gives_way_and_comes_first_again_when_it_is_not() {
    let cpus = sched_getaffinity(None).expect("known").count();
    if !is_allowed() || cpus < 2 {
        println!("no real-time priority is allowed here, or no cpu is left for those who send");
        return;
    }
    let gateway = Gateway::serving_on_cores(&one_cpu());
    let (at, ended) = (gateway.address(), AtomicBool::new(false));
    let becomes = |what: &str, expected: &[u32]| {
        eventually(what, || (priorities(&gateway) == expected).then_some(()));
    };
    becomes("it comes first", &[1]);
    thread::scope(|scope| {
        let ended = &ended;
        let ends = Ends(ended);
        for number in 0..4 {
            scope.spawn(move || floods(at, &format!("flood-{number}"), ended));
        }
        becomes("it gives way", &[]);
        // What it gives way to gets on.
        let mut client = Framed::login(at, "ann");
        assert_eq!(client.sends("bob", b"for later"), Outcome::Stored);
        drop(ends);
    });
    becomes("it comes first again", &[1]);
    gateway.metrics_when("it tells", |metrics| metrics.sum("iris_realtime") == 1);
}
