//! A store that is slower than those who write to users who are away: the senders wait, nothing is refused or lost,
//! and users who are online go on.
//!
//! Classic senders get no answer, so a gateway that cannot take more can only read them later.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Classic, Disk, Fault, Framed, Gateway, HealthyPair, PATIENCE, of_environment, send_classic,
};

/// How long a sync takes.
const SYNC_MS: u32 = 30;
const SENDERS: u32 = 30;
/// Those who are away. Half of them speak classic.
const READERS: u32 = 60;
/// All senders together, unless `IRIS_SLOW_STORE_MESSAGES` says more.
const MESSAGES: u64 = 300_000;
const PAYLOAD_BYTES: usize = 12;
/// Nobody who is online may wait for so long: far above what a busy machine takes.
const STALL: Duration = Duration::from_secs(5);

fn reader_name(reader: u32) -> String {
    format!("away-{reader}")
}

/// Message `number` of a sender.
fn payload(sender: u32, number: u32) -> [u8; PAYLOAD_BYTES] {
    let mut payload = [b'.'; PAYLOAD_BYTES];
    payload[..4].copy_from_slice(&sender.to_be_bytes());
    payload[4..8].copy_from_slice(&number.to_be_bytes());
    payload
}

/// Who reads it.
fn reader_of(sender: u32, number: u32) -> u32 {
    (sender * 7 + number) % READERS
}

/// Writes as fast as it is read, each reader in turn.
fn streams(address: SocketAddr, sender: u32, messages: u32) -> Duration {
    const AT_ONCE: u32 = 600;
    let mut client = Classic::login(address, &format!("sender-{sender}"));
    let began = Instant::now();
    let mut out = Vec::new();
    for number in 0..messages {
        let reader = reader_name(reader_of(sender, number));
        send_classic(&mut out, &reader, &payload(sender, number));
        if (number + 1) % AT_ONCE == 0 {
            client.say(&out);
            out.clear();
        }
    }
    client.say(&out);
    let took = began.elapsed();
    client.leave();
    took
}

/// All of it is in the store in the end; what is stored must only go on growing.
fn all_is_stored(gateway: &Gateway, messages: u64) {
    let (mut before, mut since) = (0, Instant::now());
    loop {
        let metrics = gateway.metrics();
        let (stored, refused) = (
            metrics.sum("iris_messages_stored_total"),
            metrics.refused_in_all(),
        );
        assert_eq!(refused, 0, "refused; {stored} of {messages} are stored");
        if stored >= messages {
            return;
        }
        if stored > before {
            (before, since) = (stored, Instant::now());
        }
        let stands = since.elapsed();
        assert!(stands < PATIENCE, "{stored} of {messages} are stored");
        thread::sleep(Duration::from_millis(100));
    }
}

/// What a reader has of each sender.
struct Received {
    reader: u32,
    next: Vec<u32>,
}

impl Received {
    fn new(reader: u32) -> Received {
        let first = |sender| (0..).find(|number| reader_of(sender, *number) == reader);
        let next = (0..SENDERS).map(|sender| first(sender).expect("each reader in turn"));
        let next = next.collect();
        Received { reader, next }
    }

    fn takes(&mut self, message: &[u8]) {
        let sender = u32::from_be_bytes(*message.first_chunk().expect("a sender"));
        let next = &mut self.next[sender as usize];
        assert_eq!(
            message,
            payload(sender, *next),
            "to {} of {sender}, of whom {next} is next",
            self.reader
        );
        *next += READERS;
    }

    /// It has all that each sender sent it.
    fn is_whole(&self, messages: u32) {
        let is_whole = |next: &u32| (messages..messages + READERS).contains(next);
        assert!(
            self.next.iter().all(is_whole),
            "{}: {:?}",
            self.reader,
            self.next
        );
    }
}

/// Logs in and gets all of it, in order.
fn reads(address: SocketAddr, reader: u32, messages: u32) {
    let mut received = Received::new(reader);
    let count = (messages / READERS * SENDERS) as usize;
    let name = reader_name(reader);
    if reader.is_multiple_of(2) {
        let mut client = Classic::login(address, &name);
        let bytes = client.read(count * PAYLOAD_BYTES);
        let (all, _) = bytes.as_chunks::<PAYLOAD_BYTES>();
        all.iter().for_each(|message| received.takes(message));
        client.leave();
    } else {
        let mut client = Framed::login(address, &name);
        for nth in 1..=count {
            let message = client.receives();
            received.takes(&message.payload);
            if nth % 500 == 0 || nth == count {
                client.ack(message.delivery);
            }
        }
        client.leave();
    }
    received.is_whole(messages);
}

fn classic_senders_wait(cores: usize) {
    let Some(disk) = Disk::new(false) else {
        return;
    };
    let all = of_environment("IRIS_SLOW_STORE_MESSAGES", MESSAGES);
    // Of each sender the same to each reader.
    let messages = all.div_ceil(u64::from(SENDERS * READERS)) as u32 * READERS;
    let all = u64::from(messages * SENDERS);
    let lifetime = Duration::from_secs(120 + all / 5_000);
    let text = cores.to_string();
    let gateway = Gateway::serving_on_for(&disk, Some(lifetime), &["--cores", &text]);
    let address = gateway.address();
    let pair = HealthyPair::start_on(&gateway, [0, cores - 1]);
    disk.becomes(Fault::Slow(SYNC_MS));
    let began = Instant::now();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| thread::spawn(move || streams(address, sender, messages)))
        .collect();
    all_is_stored(&gateway, all);
    let stored = began.elapsed();
    let wrote = senders.into_iter().map(|sender| sender.join());
    let wrote = wrote.map(|time| time.expect("it was read to its end"));
    let written = wrote.max().expect("some");
    let round_trips = pair.end();
    let readers: Vec<_> = (0..READERS)
        .map(|reader| thread::spawn(move || reads(address, reader, messages)))
        .collect();
    for reader in readers {
        reader.join().expect("everything, in order");
    }
    eprintln!(
        "{cores} cores: {all} messages stored in {stored:?}, written in {written:?}; beside it {round_trips}"
    );
    assert_eq!(gateway.metrics().refused_in_all(), 0);
    let slowest = round_trips.slowest();
    assert!(slowest < STALL, "{slowest:?}");
}

#[test]
fn classic_senders_wait_for_the_store_beside_one_core() {
    classic_senders_wait(1);
}

#[test]
fn classic_senders_wait_for_the_store_beside_two_cores() {
    classic_senders_wait(2);
}
