//! The gateway is killed at any instant under full load, again and again, and a ledger is held
//! against what readers got: whatever was answered `delivered` or `stored` came to its reader, in
//! order for each pair, again only with the same id, and never after it was read and burned.
//!
//! `IRIS_KILL_ROUNDS` sets how many times; `IRIS_KILL_SEED` repeats a run as far as its schedule goes.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use iris_protocol::framed::encode;
use iris_protocol::{MessageId, Outcome};

use support::{Event, Framed, Gateway, Random};

const ROUNDS: u64 = 10;
/// Users who are online and send to all, and users who are away until the round's end.
const ONLINE: usize = 4;
const AWAY: usize = 3;
/// Sends of one user without an answer.
const WINDOW: usize = 128;
/// Nothing more is to come; waited for at each login.
const QUIET: Duration = Duration::from_millis(50);

type Pair = (usize, usize);

/// What is known of all messages, over all rounds. A message is its sender's number.
#[derive(Default)]
struct Ledger {
    /// Where each message was sent, in the order of sending.
    sent: BTreeMap<(usize, u64), usize>,
    /// Which were answered, and how.
    answered: HashMap<(usize, u64), Outcome>,
    /// First arrivals for each pair, in order.
    first: HashMap<Pair, Vec<u64>>,
    ids: HashMap<(usize, u64), MessageId>,
    received: BTreeSet<(usize, u64)>,
    repeats: u64,
}

impl Ledger {
    fn arrived(&mut self, reader: usize, sender: usize, number: u64, id: MessageId) {
        assert_eq!(
            self.sent.get(&(sender, number)),
            Some(&reader),
            "{sender}'s {number} was never sent to {reader}"
        );
        let known = self.ids.insert((sender, number), id);
        assert!(known.is_none_or(|known| known == id), "another id");
        if self.received.insert((sender, number)) {
            let pair = self.first.entry((sender, reader)).or_default();
            // A message that nobody answered for may be lost, but not overtaken.
            assert!(
                pair.last().is_none_or(|last| *last < number),
                "{sender} to {reader}: {number} after {:?}",
                pair.last()
            );
            pair.push(number);
        } else {
            self.repeats += 1;
        }
    }

    fn holds(&self) {
        for (key, outcome) in &self.answered {
            if !matches!(outcome, Outcome::Refused(_)) {
                assert!(
                    self.received.contains(key),
                    "{key:?} was {outcome:?} and is lost"
                );
            }
        }
    }
}

fn name(user: usize) -> String {
    format!("ledger-{user}")
}

fn user(name: &str) -> usize {
    let number = name
        .strip_prefix("ledger-")
        .and_then(|rest| rest.parse().ok());
    number.expect("one of ours")
}

/// One online user of a round: sends to everybody, takes and acknowledges what comes, until the
/// gateway is gone.
fn sends_and_reads(
    address: SocketAddr,
    me: usize,
    mut number: u64,
    seed: u64,
    ledger: &Mutex<Ledger>,
    killed: &AtomicBool,
) -> u64 {
    let mut random = Random(seed);
    let mut client = Framed::login(address, &name(me));
    let (mut open, mut last_delivery, mut acked) = (0, 0, 0);
    loop {
        let mut out = Vec::new();
        while open < WINDOW {
            let target = random.below((ONLINE + AWAY) as u64) as usize;
            number += 1;
            open += 1;
            let mut payload = number.to_be_bytes().to_vec();
            payload.resize(8 + random.below(200) as usize, b'.');
            encode::send(&mut out, number, 0, name(target).as_bytes(), &payload);
            // Before the gateway can know of it.
            lock(ledger).sent.insert((me, number), target);
        }
        // Readers that lag behind with their acks now and then are part of it.
        if last_delivery > acked && random.below(3) > 0 {
            encode::ack(&mut out, last_delivery);
            acked = last_delivery;
        }
        if client.try_say(&out).is_err() {
            return number;
        }
        let mut next = client.hears_within(Duration::from_millis(5));
        while let Some(event) = next {
            match event {
                Event::Answer(answer) => {
                    open -= 1;
                    assert!(
                        !matches!(answer.outcome, Outcome::Refused(_)),
                        "{:?} at this load",
                        answer.outcome
                    );
                    lock(ledger)
                        .answered
                        .insert((me, answer.sequence), answer.outcome);
                }
                Event::Deliver(message) => {
                    last_delivery = message.delivery;
                    takes(ledger, me, &message);
                }
                Event::End => {
                    assert!(killed.load(Ordering::SeqCst), "{me} was cut off");
                    return number;
                }
                other => panic!("{other:?}"),
            }
            next = client.hears_within(Duration::from_micros(1));
        }
    }
}

fn takes(ledger: &Mutex<Ledger>, reader: usize, message: &support::Message) {
    let (number, _) = message.payload.split_first_chunk().expect("a number");
    let number = u64::from_be_bytes(*number);
    assert_eq!(
        message.id.number, number,
        "the id holds the sender's number"
    );
    lock(ledger).arrived(reader, user(&message.sender), number, message.id);
}

fn lock(ledger: &Mutex<Ledger>) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().expect("no panic elsewhere")
}

/// Everybody logs in, takes what waits and acknowledges it.
fn drain(gateway: &Gateway, ledger: &Mutex<Ledger>) -> u64 {
    let mut drained = 0;
    for reader in 0..ONLINE + AWAY {
        let (mut client, depth) = Framed::login_depth(gateway.address(), &name(reader));
        let before = drained;
        loop {
            let due = drained - before < depth;
            let patience = if due { support::PATIENCE } else { QUIET };
            match client.hears_within(patience) {
                Some(Event::Deliver(message)) => {
                    takes(ledger, reader, &message);
                    drained += 1;
                    if message.delivery % 100 == 0 || message.delivery == depth {
                        client.ack(message.delivery);
                    }
                }
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
        assert_eq!(drained - before, depth, "the inbox of {reader}");
        client.leave();
    }
    drained
}

#[test]
fn what_was_answered_is_received_whenever_it_is_killed() {
    let of_environment = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let rounds = of_environment("IRIS_KILL_ROUNDS").unwrap_or(ROUNDS);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let clock = clock.expect("after 1970").as_nanos() as u64;
    let seed = of_environment("IRIS_KILL_SEED").unwrap_or(clock);
    eprintln!("IRIS_KILL_SEED={seed}");
    let mut random = Random(seed);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut gateway = Gateway::serving(&["--ack-timeout", "100ms"]);
    let mut numbers = [0; ONLINE];
    for round in 0..rounds {
        let killed = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..ONLINE)
            .map(|me| {
                let (ledger, killed) = (Arc::clone(&ledger), Arc::clone(&killed));
                let (address, number, seed) = (gateway.address(), numbers[me], random.number());
                thread::spawn(move || sends_and_reads(address, me, number, seed, &ledger, &killed))
            })
            .collect();
        thread::sleep(Duration::from_micros(random.below(800_000)));
        killed.store(true, Ordering::SeqCst);
        gateway.kill();
        for (me, sender) in senders.into_iter().enumerate() {
            numbers[me] = sender.join().expect("a sound round");
        }
        gateway.start_again();
        let drained = drain(&gateway, &ledger);
        lock(&ledger).holds();
        if round % 3 == 2 {
            // What is read and burned does not come again after a clean restart.
            gateway.stop();
            gateway.start_again();
            assert_eq!(drain(&gateway, &ledger), 0, "round {round}");
        }
        let ledger = lock(&ledger);
        eprintln!(
            "round {round}: {} sent, {} answered, {} received, {} repeats, {drained} at login",
            ledger.sent.len(),
            ledger.answered.len(),
            ledger.received.len(),
            ledger.repeats,
        );
    }
    let ledger = lock(&ledger);
    let answered = |wanted: Outcome| ledger.answered.values().filter(|is| **is == wanted).count();
    assert!(answered(Outcome::Delivered) > 0 && answered(Outcome::Stored) > 0);
    // Somebody was killed with something open: the rounds were not idle.
    assert!(ledger.answered.len() < ledger.sent.len());
}
