//! A framed sender that the store holds up: it is slowed down and not refused, its pings are answered, and what others
//! send it goes on arriving.

use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use iris_protocol::Outcome;
use iris_protocol::framed::encode;

use crate::support::{Disk, Event, Fault, Framed, Gateway, PATIENCE, of_environment};

/// How long a sync takes.
const SYNC_MS: u32 = 100;
/// What it sends to users who are away, unless `IRIS_HELD_UP_MESSAGES` says more.
const MESSAGES: u64 = 16_000;
const PAYLOAD_BYTES: usize = 4_000;
const AWAY: u64 = 20;
/// Sends between two pings.
const PING_EVERY: u64 = 50;
/// Far above what a slow sync makes of anything, and what a busy machine does.
const STALL: Duration = Duration::from_secs(15);

/// What the two halves of the sender tell each other.
#[derive(Default)]
struct Between {
    /// The last delivery that it has; acknowledged with the next bytes it writes.
    delivery: AtomicU64,
    /// When each ping was written that is not answered.
    pinged: Mutex<VecDeque<Instant>>,
}

/// Writes all of it, as fast as it is read. Says how long the longest write took.
fn writes(mut stream: TcpStream, messages: u64, between: &Between) -> Duration {
    let payload = vec![b'.'; PAYLOAD_BYTES];
    let (mut longest, mut acked) = (Duration::ZERO, 0);
    for first in (1..=messages).step_by(PING_EVERY as usize) {
        let mut out = Vec::new();
        let delivery = between.delivery.load(Ordering::SeqCst);
        if delivery > acked {
            encode::ack(&mut out, delivery);
            acked = delivery;
        }
        for sequence in first..(first + PING_EVERY).min(messages + 1) {
            let target = format!("away-{}", sequence % AWAY);
            encode::send(&mut out, sequence, 0, target.as_bytes(), &payload);
        }
        encode::ping(&mut out, first);
        let began = Instant::now();
        between
            .pinged
            .lock()
            .expect("nobody panicked")
            .push_back(began);
        stream.write_all(&out).expect("read in time");
        longest = longest.max(began.elapsed());
    }
    longest
}

/// What the sender saw.
#[derive(Debug, Default)]
struct Saw {
    pings: u64,
    slowest_pong: Duration,
    received: u64,
    /// Between two messages of a friend who never stops.
    longest_silence: Duration,
}

/// Reads until all is answered.
fn reads(client: &mut Framed, messages: u64, between: &Between) -> Saw {
    let mut saw = Saw::default();
    let mut answered = 0;
    let mut heard_of_friend = Instant::now();
    while answered < messages {
        match client.hears() {
            Event::Answer(answer) => {
                assert_eq!(
                    answer.outcome,
                    Outcome::Stored,
                    "answer {answered} of {messages}"
                );
                answered += 1;
            }
            Event::Pong(_) => {
                let pinged = between.pinged.lock().expect("nobody panicked").pop_front();
                saw.slowest_pong = saw.slowest_pong.max(pinged.expect("pinged").elapsed());
                saw.pings += 1;
            }
            Event::Deliver(message) => {
                assert_eq!(message.payload, saw.received.to_be_bytes());
                saw.received += 1;
                saw.longest_silence = saw.longest_silence.max(heard_of_friend.elapsed());
                heard_of_friend = Instant::now();
                between.delivery.store(message.delivery, Ordering::SeqCst);
            }
            other => panic!("{other:?}"),
        }
    }
    saw.longest_silence = saw.longest_silence.max(heard_of_friend.elapsed());
    saw
}

/// A friend writes to it all the time, numbered, and is answered; says how many.
fn writes_to(friend: &mut Framed, reader: &str, ended: &AtomicBool) -> u64 {
    let (mut sent, mut answered) = (0u64, 0u64);
    let mut takes = |friend: &mut Framed, time| {
        while let Some(event) = friend.hears_within(time) {
            match event {
                Event::Answer(answer) if !matches!(answer.outcome, Outcome::Refused(_)) => {}
                other => panic!("{other:?}"),
            }
            answered += 1;
        }
        answered
    };
    while !ended.load(Ordering::SeqCst) {
        friend.send(reader, &sent.to_be_bytes());
        sent += 1;
        takes(friend, Duration::from_millis(5));
    }
    let until = Instant::now() + PATIENCE;
    while takes(friend, Duration::from_millis(50)) < sent {
        assert!(Instant::now() < until, "{sent} were sent");
    }
    sent
}

fn is_held_up(cores: usize) {
    let Some(disk) = Disk::new(false) else {
        return;
    };
    let messages = of_environment("IRIS_HELD_UP_MESSAGES", MESSAGES);
    let lifetime = Duration::from_secs(120 + messages / 500);
    let cores = cores.to_string();
    let arguments = ["--cores", &cores, "--unanswered-sends-max", "65536"];
    let gateway = Gateway::serving_on_for(&disk, Some(lifetime), &arguments);
    let address = gateway.address();
    let mut sender = Framed::login(address, "sender");
    let mut friend = Framed::login(address, "friend");
    friend.warms_up("sender", || drop(sender.takes()));
    disk.becomes(Fault::Slow(SYNC_MS));
    let began = Instant::now();
    let (between, ended) = (Between::default(), AtomicBool::new(false));
    let stream = sender.stream().try_clone().expect("a second handle");
    thread::scope(|scope| {
        let writing = scope.spawn(|| writes(stream, messages, &between));
        let friendship = scope.spawn(|| writes_to(&mut friend, "sender", &ended));
        let reading = scope.spawn(|| {
            let mut sender = sender;
            (reads(&mut sender, messages, &between), sender)
        });
        let saw = reading.join();
        let took = began.elapsed();
        // However it went: the friend goes on until it is told.
        ended.store(true, Ordering::SeqCst);
        let (saw, mut sender) = saw.expect("each was answered as stored");
        let longest_write = writing.join().expect("all written");
        eprintln!(
            "{cores} cores: {messages} messages in {took:?}, the longest write {longest_write:?}; {saw:?}"
        );
        // What is still under way, so that the friend is answered.
        let mut received = saw.received;
        let mut unanswered = between.pinged.lock().expect("nobody panicked").len();
        while let Some(event) = sender.hears_within(Duration::from_millis(500)) {
            match event {
                Event::Deliver(message) => {
                    assert_eq!(message.payload, received.to_be_bytes());
                    received += 1;
                    sender.ack(message.delivery);
                }
                Event::Pong(_) => unanswered -= 1,
                other => panic!("{other:?}"),
            }
        }
        let sent = friendship.join().expect("the friend was answered");
        assert_eq!(received, sent, "all of the friend's");
        assert_eq!(unanswered, 0, "pings");
        assert!(saw.received > 0, "{saw:?}");
        assert!(saw.slowest_pong < STALL, "{saw:?}");
        assert!(saw.longest_silence < STALL, "{saw:?}");
    });
    assert_eq!(gateway.metrics().refused_in_all(), 0);
}

#[test]
fn a_framed_sender_is_held_up_and_goes_on_hearing_on_one_core() {
    is_held_up(1);
}

#[test]
fn a_framed_sender_is_held_up_and_goes_on_hearing_on_two_cores() {
    is_held_up(2);
}
