//! A ledger over a gateway that ends badly again and again: users send to each other at full load, something ends
//! the gateway, everybody drains their inbox, and what was answered is held against what was received.
//!
//! What it holds: whatever was answered `delivered` or `stored` came to its reader; first arrivals of a pair are in
//! the order of sending (but for refused sends, which may yet come up); what comes again has the same id; and what a
//! reader acknowledged and was told to be gone from its inbox never comes again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use iris_protocol::framed::encode;
use iris_protocol::{MessageId, Outcome, RefusalReason};

use super::{Event, Framed, Message, PATIENCE, Random};

/// Users who are online and send to all, and users who are away until the gateway has ended.
pub const ONLINE: usize = 4;
const AWAY: usize = 3;
/// Sends of one user without an answer.
const WINDOW: usize = 128;
/// Nothing more is to come; waited for at each login.
const QUIET: Duration = Duration::from_millis(50);

/// A message is its sender and the sender's number.
type Key = (usize, u64);

#[derive(Default)]
struct Book {
    /// Where each message was sent.
    sent: HashMap<Key, usize>,
    answered: HashMap<Key, Outcome>,
    /// First arrivals of each pair of sender and reader, in order.
    first: BTreeMap<(usize, usize), Vec<u64>>,
    ids: HashMap<Key, MessageId>,
    /// Acknowledged by the reader, who was then told of an empty inbox.
    gone: HashSet<Key>,
    repeats: u64,
}

/// What is known of all messages so far.
pub struct Ledger {
    book: Mutex<Book>,
    /// Refusals as `storage` are expected; others never are, at this load.
    storage_may_fail: bool,
    numbers: [u64; ONLINE],
}

impl Ledger {
    pub fn new(storage_may_fail: bool) -> Ledger {
        Ledger {
            book: Mutex::default(),
            storage_may_fail,
            numbers: [0; ONLINE],
        }
    }

    /// Full load for as long as `meanwhile` takes; then `end` ends the gateway under it.
    pub fn load(
        &mut self,
        address: SocketAddr,
        random: &mut Random,
        meanwhile: impl FnOnce(),
        end: impl FnOnce(),
    ) {
        let ended = AtomicBool::new(false);
        let this = &*self;
        let numbers = thread::scope(|scope| {
            let users: Vec<_> = (0..ONLINE)
                .map(|me| {
                    let (ended, random) = (&ended, Random(random.number()));
                    scope.spawn(move || this.sends_and_reads(address, me, random, ended))
                })
                .collect();
            meanwhile();
            ended.store(true, Ordering::SeqCst);
            end();
            let join =
                |user: thread::ScopedJoinHandle<'_, u64>| user.join().expect("a sound round");
            users.into_iter().map(join).collect::<Vec<_>>()
        });
        self.numbers.copy_from_slice(&numbers);
    }

    /// Everybody logs in, takes what waits and acknowledges it, and sees that it is gone. Says how much it was.
    pub fn drain(&self, address: SocketAddr) -> u64 {
        let drain = |reader| {
            let drained = self.drain_one(address, reader);
            Framed::inbox_becomes(address, &name(reader), 0);
            let mut book = self.book();
            let book = &mut *book;
            let of_reader = book.first.iter().filter(|((_, of), _)| *of == reader);
            for ((sender, _), numbers) in of_reader {
                book.gone
                    .extend(numbers.iter().map(|number| (*sender, *number)));
            }
            drained
        };
        thread::scope(|scope| {
            let readers: Vec<_> = (0..ONLINE + AWAY)
                .map(|reader| scope.spawn(move || drain(reader)))
                .collect();
            let join =
                |reader: thread::ScopedJoinHandle<'_, u64>| reader.join().expect("a sound drain");
            readers.into_iter().map(join).sum()
        })
    }

    /// Holds the answers against the arrivals, after a drain.
    pub fn holds(&self) {
        let book = self.book();
        let is_refused = |key: &Key| matches!(book.answered.get(key), Some(Outcome::Refused(_)));
        for (key, outcome) in &book.answered {
            assert!(
                is_refused(key) || book.ids.contains_key(key),
                "{key:?} was {outcome:?} and is lost"
            );
        }
        for ((sender, reader), numbers) in &book.first {
            let kept: Vec<u64> = numbers
                .iter()
                .copied()
                .filter(|number| !is_refused(&(*sender, *number)))
                .collect();
            // A message that nobody answered for may be lost, but not overtaken.
            if let Some(pair) = kept.windows(2).find(|pair| pair[0] >= pair[1]) {
                panic!("{sender} to {reader}: {} came before {}", pair[0], pair[1]);
            }
        }
    }

    /// The rounds were not idle: each answer came, and somebody was cut off with something open.
    pub fn was_busy(&self) {
        let book = self.book();
        let answers: Vec<_> = book.answered.values().collect();
        assert!(answers.contains(&&Outcome::Delivered) && answers.contains(&&Outcome::Stored));
        assert!(book.answered.len() < book.sent.len());
    }

    /// For people.
    pub fn tells(&self) -> String {
        let book = self.book();
        let refused = |outcome: &&Outcome| matches!(outcome, Outcome::Refused(_));
        format!(
            "{} sent, {} answered ({} refused), {} received, {} repeats",
            book.sent.len(),
            book.answered.len(),
            book.answered.values().filter(refused).count(),
            book.ids.len(),
            book.repeats
        )
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Whoever panicked says why; the others only end.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One online user: sends to everybody, takes and acknowledges what comes, until the gateway is gone. Gives back
    /// the last number it used.
    fn sends_and_reads(
        &self,
        address: SocketAddr,
        me: usize,
        mut random: Random,
        ended: &AtomicBool,
    ) -> u64 {
        let mut number = self.numbers[me];
        let Some(mut client) = Framed::try_login(address, &name(me)) else {
            assert!(ended.load(Ordering::SeqCst), "{me} cannot log in");
            return number;
        };
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
                self.book().sent.insert((me, number), target);
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
                        self.answered((me, answer.sequence), answer.outcome);
                    }
                    Event::Deliver(message) => {
                        last_delivery = message.delivery;
                        self.arrived(me, &message);
                    }
                    Event::End => {
                        assert!(ended.load(Ordering::SeqCst), "{me} was cut off");
                        return number;
                    }
                    other => panic!("{other:?}"),
                }
                next = client.hears_within(Duration::from_micros(1));
            }
        }
    }

    fn drain_one(&self, address: SocketAddr, reader: usize) -> u64 {
        let (mut client, depth) = Framed::login_depth(address, &name(reader));
        let mut drained = 0;
        loop {
            let patience = if drained < depth { PATIENCE } else { QUIET };
            match client.hears_within(patience) {
                Some(Event::Deliver(message)) => {
                    self.arrived(reader, &message);
                    drained += 1;
                    if message.delivery % 100 == 0 || message.delivery == depth {
                        client.ack(message.delivery);
                    }
                }
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
        assert_eq!(drained, depth, "the inbox of {reader}");
        client.leave();
        drained
    }

    fn answered(&self, key: Key, outcome: Outcome) {
        let is_expected = match outcome {
            Outcome::Refused(reason) => self.storage_may_fail && reason == RefusalReason::Storage,
            Outcome::Delivered | Outcome::Stored => true,
        };
        assert!(is_expected, "{outcome:?} at this load");
        self.book().answered.insert(key, outcome);
    }

    fn arrived(&self, reader: usize, message: &Message) {
        let (number, _) = message.payload.split_first_chunk().expect("a number");
        let number = u64::from_be_bytes(*number);
        let sender = message
            .sender
            .strip_prefix(STEM)
            .and_then(|rest| rest.parse().ok());
        let key: Key = (sender.expect("one of ours"), number);
        let mut book = self.book();
        assert_eq!(
            book.sent.get(&key),
            Some(&reader),
            "{key:?} came to {reader}"
        );
        assert!(
            !book.gone.contains(&key),
            "{key:?} was burned and came again"
        );
        match book.ids.insert(key, message.id) {
            None => book.first.entry((key.0, reader)).or_default().push(number),
            Some(known) => {
                assert_eq!(known, message.id, "another id");
                book.repeats += 1;
            }
        }
    }
}

const STEM: &str = "ledger-";

fn name(user: usize) -> String {
    format!("{STEM}{user}")
}
