//! Readers that stop reading for a while, and then go on: they have everything, in order, and meanwhile nobody else
//! notices and memory stays within its budget.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use iris_protocol::Outcome;

use crate::support::{Classic, Event, Framed, Gateway, HealthyPair, of_environment, send_classic};

/// They stop for so many seconds, unless `IRIS_STOPPED_SECONDS` says more.
const SECONDS: u64 = 5;
/// Every other one speaks classic.
const SENDERS: u32 = 4;
const PAYLOAD_BYTES: usize = 500;
/// Each sender writes so many to each reader at once, and so often.
const AT_ONCE: u32 = 60;
const EVERY: Duration = Duration::from_millis(50);
/// The budgets for input, output and store, the tables of the store, and what the allocator holds.
const MEMORY_MAX: u64 = 256 << 20;
const STALL: Duration = Duration::from_secs(5);

/// A message of a sender to a reader.
fn payload(sender: u32, reader: u32, number: u32) -> [u8; PAYLOAD_BYTES] {
    let mut payload = [b'.'; PAYLOAD_BYTES];
    for (at, part) in [sender, reader, number].into_iter().enumerate() {
        payload[4 * at..4 * at + 4].copy_from_slice(&part.to_be_bytes());
    }
    payload
}

/// What a reader has of each sender.
struct Received {
    reader: u32,
    next: [u32; SENDERS as usize],
}

impl Received {
    fn takes(&mut self, message: &[u8]) {
        let sender = u32::from_be_bytes(*message.first_chunk().expect("a sender"));
        let next = &mut self.next[sender as usize];
        let is_next = message == payload(sender, self.reader, *next);
        let head = &message[..12];
        assert!(
            is_next,
            "to {}: {head:?} instead of {next} of {sender}",
            self.reader
        );
        *next += 1;
    }
}

/// A session that is not read from at first.
enum Reader {
    Classic(Classic),
    Framed(Framed),
}

impl Reader {
    /// It goes on: so many messages come.
    fn goes_on(self, reader: u32, messages: u32) {
        let mut received = Received {
            reader,
            next: [0; SENDERS as usize],
        };
        let all = messages * SENDERS;
        match self {
            Reader::Classic(mut client) => {
                for _ in 0..all / SENDERS {
                    let bytes = client.read(SENDERS as usize * PAYLOAD_BYTES);
                    let (some, _) = bytes.as_chunks::<PAYLOAD_BYTES>();
                    some.iter().for_each(|message| received.takes(message));
                }
                client.leave();
            }
            Reader::Framed(mut client) => {
                for nth in 1..=all {
                    let message = client.receives();
                    received.takes(&message.payload);
                    if nth % 100 == 0 || nth == all {
                        client.ack(message.delivery);
                    }
                }
                client.leave();
            }
        }
        assert_eq!(received.next, [messages; SENDERS as usize]);
    }
}

/// Writes to all readers until the time is over.
fn sends(address: SocketAddr, sender: u32, readers: &[String], times: u32) {
    let name = format!("sender-{sender}");
    let began = Instant::now();
    let writes = |write: &mut dyn FnMut(u32, &str, &[u8])| {
        for time in 0..times {
            for (reader, target) in (0..).zip(readers) {
                for number in time * AT_ONCE..(time + 1) * AT_ONCE {
                    write(number, target, &payload(sender, reader, number));
                }
            }
            let next = EVERY * (time + 1);
            thread::sleep(next.saturating_sub(began.elapsed()));
        }
    };
    if sender.is_multiple_of(2) {
        let mut client = Classic::login(address, &name);
        let mut out = Vec::new();
        writes(&mut |number, target, message| {
            send_classic(&mut out, target, message);
            if (number + 1) % AT_ONCE == 0 {
                client.say(&out);
                out.clear();
            }
        });
        client.leave();
    } else {
        let mut client = Framed::login(address, &name);
        let (mut sent, mut answered) = (0u64, 0u64);
        writes(&mut |number, target, message| {
            client.send(target, message);
            sent += 1;
            // What has come, without waiting for more.
            while number % AT_ONCE == 0
                && let Some(event) = client.hears_within(Duration::from_micros(200))
            {
                is_taken(&event);
                answered += 1;
            }
        });
        while answered < sent {
            is_taken(&client.hears());
            answered += 1;
        }
    }
}

/// An answer, and no refusal.
fn is_taken(event: &Event) {
    match event {
        Event::Answer(answer) if !matches!(answer.outcome, Outcome::Refused(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn readers_that_stop_for_a_while_miss_nothing() {
    let pause = Duration::from_secs(of_environment("IRIS_STOPPED_SECONDS", SECONDS));
    let times = (pause.as_millis() / EVERY.as_millis()) as u32;
    let messages = times * AT_ONCE;
    let gateway = Gateway::serving_for(
        Duration::from_secs(120) + 4 * pause,
        &[
            "--input-bytes-max",
            "16MiB",
            "--output-bytes-max",
            "16MiB",
            "--unanswered-sends-max",
            "65536",
        ],
    );
    let address = gateway.address();
    // One of each protocol on each core.
    let names: Vec<String> = ["classic", "framed"]
        .iter()
        .flat_map(|stem| (0..2).flat_map(|core| gateway.users_of(core, stem, 1)))
        .collect();
    let readers: Vec<Reader> = names
        .iter()
        .map(|name| match name.starts_with("classic") {
            true => Reader::Classic(Classic::login(address, name)),
            false => Reader::Framed(Framed::login(address, name)),
        })
        .collect();
    let pair = HealthyPair::start(&gateway);
    let before = gateway.resident_bytes();
    let began = Instant::now();
    let sending: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let names = names.clone();
            thread::spawn(move || sends(address, sender, &names, times))
        })
        .collect();
    let mut most = 0;
    while began.elapsed() < pause {
        most = most.max(gateway.resident_bytes());
        let metrics = gateway.metrics();
        assert_eq!(metrics.refused_in_all(), 0, "{:?}", metrics.not_zero());
        for budget in ["input", "output"] {
            let bytes = metrics.sum(&format!("iris_budget_bytes{{budget=\"{budget}\"}}"));
            let max = metrics.sum(&format!("iris_budget_max_bytes{{budget=\"{budget}\"}}"));
            assert!(bytes <= max, "{budget}: {bytes} of {max}");
        }
        thread::sleep(EVERY);
    }
    let reading: Vec<_> = (0..)
        .zip(readers)
        .map(|(number, reader)| thread::spawn(move || reader.goes_on(number, messages)))
        .collect();
    for sender in sending {
        sender.join().expect("each send was answered");
    }
    for reader in reading {
        reader.join().expect("everything, in order");
    }
    let round_trips = pair.end();
    most = most.max(gateway.resident_bytes());
    eprintln!(
        "{messages} messages of each sender to each reader in {pause:?}; resident {} MiB, {} MiB before; beside it {round_trips}",
        most >> 20,
        before >> 20
    );
    assert_eq!(gateway.metrics().refused_in_all(), 0);
    assert!(most < before + MEMORY_MAX, "{most} bytes, {before} before");
    let slowest = round_trips.slowest();
    assert!(slowest < STALL, "{slowest:?}");
}
