//! Messages of all sizes, from none at all to the longest there may be, in bursts from many senders of both protocols:
//! each comes whole and in order, and none takes the way through the inbox while its reader keeps up.
//!
//! What a sender says to a reader follows from their numbers, so a reader of the classic protocol, which has no frames,
//! knows where the messages in its bytes begin: the first byte of each is its sender.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use iris_protocol::Outcome;
use iris_protocol::framed::encode;

use crate::support::{
    Classic, Event, Framed, Gateway, Metrics, PATIENCE, Random, of_environment, seed_of,
    send_classic,
};

/// Every other one speaks classic.
const USERS: usize = 12;
/// Of each user to each other, unless `IRIS_MIXED_MESSAGES` says more.
const MESSAGES: u64 = 150;
const CLASSIC_BYTES_MAX: usize = 65_535;
const FRAMED_BYTES_MAX: usize = 65_536;
/// Sends in one write, at most.
const BURST_MAX: u64 = 24;
/// Messages of all users together that are on their way when one begins a burst: readers would fall behind on a busy
/// machine, were more written than they are let run for.
const ON_THE_WAY_MAX: u64 = 100;
/// Below what a framed user may have without an answer.
const UNANSWERED_MAX: u64 = 1_000;

fn is_classic(user: usize) -> bool {
    user.is_multiple_of(2)
}

fn name(user: usize) -> String {
    format!("mixed-{user}")
}

/// Everything that is said, in pairs.
struct Script {
    seed: u64,
    /// Random bytes, twice the longest message.
    text: Vec<u8>,
    messages: u64,
    /// Messages of any length but 0 that were written and not read.
    on_the_way: AtomicU64,
}

impl Script {
    fn new(seed: u64, messages: u64) -> Script {
        let mut random = Random(seed);
        let words = 2 * FRAMED_BYTES_MAX / 8;
        let text = (0..words).flat_map(|_| random.number().to_le_bytes());
        let text = text.collect();
        Script {
            seed,
            text,
            messages,
            on_the_way: AtomicU64::new(0),
        }
    }

    /// Length of message `number` of a pair: mostly short ones, and the shortest and the longest now and then.
    fn len(&self, sender: usize, reader: usize, number: u64) -> usize {
        let pair = (sender * USERS + reader) as u64;
        let mut random = Random(self.seed ^ (pair << 40) ^ number.wrapping_mul(0x9e37_79b9));
        let len_max = if is_classic(sender) {
            CLASSIC_BYTES_MAX
        } else {
            FRAMED_BYTES_MAX
        };
        match random.below(40) {
            0 => 0,
            1 => 1,
            2 => len_max,
            3 => len_max - 1,
            _ => {
                let bits = random.below(17);
                (random.below(1 << bits) as usize).min(len_max)
            }
        }
    }

    /// The bytes of a message, behind the first, which is the sender's number.
    fn tail(&self, reader: usize, number: u64, len: usize) -> &[u8] {
        let from = (number as usize * 7_919 + reader * 104_729) % FRAMED_BYTES_MAX;
        &self.text[from..from + len.saturating_sub(1)]
    }

    fn write(&self, out: &mut Vec<u8>, sender: usize, reader: usize, number: u64) {
        let len = self.len(sender, reader, number);
        if len > 0 {
            out.push(sender as u8);
            out.extend_from_slice(self.tail(reader, number, len));
        }
    }
}

/// What one reader has been told, by all senders.
struct Reading<'a> {
    script: &'a Script,
    reader: usize,
    /// The next message of each sender.
    next: [u64; USERS],
}

impl<'a> Reading<'a> {
    fn new(script: &'a Script, reader: usize) -> Reading<'a> {
        let mut next = [0; USERS];
        // Nobody writes to itself.
        next[reader] = script.messages;
        let mut reading = Reading {
            script,
            reader,
            next,
        };
        if is_classic(reader) {
            (0..USERS).for_each(|sender| reading.passes_empty(sender));
        }
        reading
    }

    /// A classic reader is shown nothing of an empty message.
    fn passes_empty(&mut self, sender: usize) {
        let next = &mut self.next[sender];
        while *next < self.script.messages && self.script.len(sender, self.reader, *next) == 0 {
            *next += 1;
        }
    }

    /// How long the message is that begins with this byte.
    fn len(&self, first: u8) -> usize {
        let sender = usize::from(first);
        assert!(sender < USERS, "{}: {first} is no sender", self.reader);
        let next = self.next[sender];
        assert!(next < self.script.messages, "more than {sender} sent");
        self.script.len(sender, self.reader, next)
    }

    /// A whole message of a sender.
    fn takes(&mut self, sender: usize, message: &[u8]) {
        let number = self.next[sender];
        let (reader, script) = (self.reader, self.script);
        assert!(number < script.messages, "more than {sender} sent {reader}");
        let len = script.len(sender, reader, number);
        assert_eq!(message.len(), len, "{number} of {sender} to {reader}");
        if let Some((&first, tail)) = message.split_first() {
            let is_sound = usize::from(first) == sender && tail == script.tail(reader, number, len);
            script.on_the_way.fetch_sub(1, Ordering::SeqCst);
            assert!(
                is_sound,
                "{number} of {sender} to {reader}, {len} bytes, is not what was sent"
            );
        }
        self.next[sender] += 1;
    }

    fn is_whole(&self) -> bool {
        self.next.iter().all(|next| *next == self.script.messages)
    }
}

/// The order in which a sender writes to its readers, in bursts of which each is one write.
fn bursts(script: &Script, sender: usize, mut write: impl FnMut(&[(usize, u64)])) {
    let mut random = Random(script.seed.wrapping_add(sender as u64));
    let mut next = [0; USERS];
    next[sender] = script.messages;
    let mut left: Vec<usize> = (0..USERS).filter(|reader| *reader != sender).collect();
    while !left.is_empty() {
        let mut burst = Vec::new();
        for _ in 0..=random.below(BURST_MAX) {
            let Some(reader) = left.get(random.below(left.len().max(1) as u64) as usize) else {
                break;
            };
            burst.push((*reader, next[*reader]));
            next[*reader] += 1;
            left.retain(|reader| next[*reader] < script.messages);
        }
        while script.on_the_way.load(Ordering::SeqCst) > ON_THE_WAY_MAX {
            thread::sleep(Duration::from_millis(1));
        }
        let shown = |(reader, number): &&(usize, u64)| script.len(sender, *reader, *number) > 0;
        let count = burst.iter().filter(shown).count() as u64;
        script.on_the_way.fetch_add(count, Ordering::SeqCst);
        write(&burst);
        if random.below(4) == 0 {
            thread::sleep(Duration::from_millis(random.below(5)));
        }
    }
}

fn writes_classic(script: &Script, sender: usize, mut stream: &TcpStream) {
    bursts(script, sender, |burst| {
        let (mut out, mut message) = (Vec::new(), Vec::new());
        for (reader, number) in burst {
            message.clear();
            script.write(&mut message, sender, *reader, *number);
            send_classic(&mut out, &name(*reader), &message);
        }
        stream.write_all(&out).expect("read in time");
    });
}

fn reads_classic(script: &Script, reader: usize, mut stream: &TcpStream) {
    let mut reading = Reading::new(script, reader);
    let (mut input, mut piece) = (Vec::new(), vec![0; 256 << 10]);
    while !reading.is_whole() {
        let read = stream.read(&mut piece).expect("something in time");
        assert!(read > 0, "it ended");
        input.extend_from_slice(&piece[..read]);
        let mut at = 0;
        while let Some(&first) = input.get(at) {
            let Some(message) = input.get(at..at + reading.len(first)) else {
                break;
            };
            at += message.len();
            let sender = usize::from(first);
            reading.takes(sender, message);
            reading.passes_empty(sender);
        }
        input.drain(..at);
    }
    assert!(input.is_empty(), "more behind the last message");
}

/// What a framed user's two halves tell each other.
#[derive(Default)]
struct Between {
    answered: AtomicU64,
    /// The last delivery that was read.
    delivery: AtomicU64,
    whole: AtomicU64,
}

/// Writes its own messages, and acknowledges what was read.
fn writes_framed(script: &Script, sender: usize, mut stream: TcpStream, between: &Between) {
    let (mut sent, mut acked) = (0, 0);
    let mut acknowledges = |out: &mut Vec<u8>| {
        let delivery = between.delivery.load(Ordering::SeqCst);
        if delivery > acked {
            encode::ack(out, delivery);
            acked = delivery;
        }
    };
    bursts(script, sender, |burst| {
        let (mut out, mut message) = (Vec::new(), Vec::new());
        for (reader, number) in burst {
            message.clear();
            script.write(&mut message, sender, *reader, *number);
            sent += 1;
            encode::send(&mut out, sent, 0, name(*reader).as_bytes(), &message);
        }
        acknowledges(&mut out);
        stream.write_all(&out).expect("read in time");
        while sent - between.answered.load(Ordering::SeqCst) > UNANSWERED_MAX - BURST_MAX {
            thread::sleep(Duration::from_millis(1));
            let mut out = Vec::new();
            acknowledges(&mut out);
            stream.write_all(&out).expect("read in time");
        }
    });
    // Others wait for what it reads.
    loop {
        let is_whole = between.whole.load(Ordering::SeqCst) > 0;
        let mut out = Vec::new();
        acknowledges(&mut out);
        stream.write_all(&out).expect("read in time");
        if is_whole {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn reads_framed(script: &Script, reader: usize, client: &mut Framed, between: &Between) {
    let mut reading = Reading::new(script, reader);
    let all = (USERS as u64 - 1) * script.messages;
    let number = |name: &str| name.strip_prefix("mixed-")?.parse::<usize>().ok();
    while !reading.is_whole() || between.answered.load(Ordering::SeqCst) < all {
        match client.hears() {
            Event::Deliver(message) => {
                let sender = number(&message.sender).expect("one of ours");
                reading.takes(sender, &message.payload);
                between.delivery.store(message.delivery, Ordering::SeqCst);
            }
            Event::Answer(answer) => {
                let outcome = answer.outcome;
                assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
                between.answered.fetch_add(1, Ordering::SeqCst);
            }
            other => panic!("{other:?}"),
        }
    }
    between.whole.store(1, Ordering::SeqCst);
}

/// A user of either protocol, whom messages reach directly.
enum User {
    Classic(Classic),
    Framed(Framed),
}

/// Logs in, and counts what it was sent on the way there.
fn logs_in(address: SocketAddr, user: usize, warmer: &mut Framed, warm: &mut u64) -> User {
    let name = name(user);
    if is_classic(user) {
        let mut client = Classic::login(address, &name);
        warmer.warms_up(&name, || {
            client.reads_exactly(b"warm");
            *warm += 1;
        });
        User::Classic(client)
    } else {
        let mut client = Framed::login(address, &name);
        warmer.warms_up(&name, || {
            client.takes();
            *warm += 1;
        });
        User::Framed(client)
    }
}

#[test]
fn messages_of_all_sizes_come_whole_and_directly() {
    let seed = seed_of("IRIS_MIXED_SEED");
    let messages = of_environment("IRIS_MIXED_MESSAGES", MESSAGES);
    let lifetime = PATIENCE * 4 + Duration::from_millis(100 * messages);
    // An acknowledgement that comes late on a busy machine is not what this is about.
    let gateway = Gateway::serving_for(lifetime, &["--ack-timeout", "1min"]);
    let mut warmer = Framed::login(gateway.address(), "warmer");
    let mut warm = 0;
    let users: Vec<User> = (0..USERS)
        .map(|user| logs_in(gateway.address(), user, &mut warmer, &mut warm))
        .collect();
    let arrived = |metrics: &Metrics| metrics.sum("iris_messages_delivered_total");
    let before = gateway.metrics_when("all are warm", |metrics| arrived(metrics) >= warm);
    let script = Arc::new(Script::new(seed, messages));
    // A classic reader has seen all before the empty messages behind it are even sent: it stays until they are counted.
    let mut classic = Vec::new();
    let halves = users.into_iter().enumerate().flat_map(|(user, client)| {
        let (writing, reading) = (Arc::clone(&script), Arc::clone(&script));
        match client {
            User::Classic(client) => {
                let client = Arc::new(client);
                let second = Arc::clone(&client);
                classic.push(Arc::clone(&client));
                [
                    thread::spawn(move || writes_classic(&writing, user, client.stream())),
                    thread::spawn(move || reads_classic(&reading, user, second.stream())),
                ]
            }
            User::Framed(mut client) => {
                let between = Arc::new(Between::default());
                let second = Arc::clone(&between);
                let stream = client.stream().try_clone().expect("a second handle");
                [
                    thread::spawn(move || writes_framed(&writing, user, stream, &between)),
                    thread::spawn(move || reads_framed(&reading, user, &mut client, &second)),
                ]
            }
        }
    });
    let halves: Vec<_> = halves.collect();
    for half in halves {
        half.join().expect("sound");
    }
    let all = (USERS * (USERS - 1)) as u64 * messages;
    let metrics = gateway.metrics_when("all are counted", |metrics| arrived(metrics) >= warm + all);
    assert_eq!(metrics.refused_in_all(), 0);
    for counter in ["iris_messages_spilled_total", "iris_messages_stored_total"] {
        assert_eq!(metrics.sum(counter), before.sum(counter), "{counter}");
    }
    drop(classic);
}
