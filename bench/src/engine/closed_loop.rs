//! The closed loop: each sender keeps a fixed number of messages in flight, and sends its next one
//! when one of them is delivered.
//!
//! Owner: the engine's thread. Both ends of every message are here, so a delivery frees the window
//! of its sender at once, and what was sent and not delivered is known exactly. Latency is from
//! the moment a message was due, which in a closed loop is the moment it was made, to the moment
//! its bytes were taken from the reader's ring.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use iris_protocol::{Name, classic};

use super::clients::name_of;
use super::message::{MESSAGE_BYTES, Message};
use super::random::Random;
use super::{Clients, Handler, Outboxes};
use crate::BenchError;

/// Up to so many connections, order is checked for each pair; beyond, the table would be larger
/// than the caches by far and would slow the load.
const PAIRS_OF_MAX: u32 = 2_000;
/// How long the last messages in flight may take at the end.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// Latencies beyond this are counted as this.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// Who sends to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Every connection sends to a random other one.
    Random,
    /// Connection 0 sends to connection 1.
    Pair,
}

/// What was counted since the last [`ClosedLoop::begin`].
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Messages taken by their readers.
    pub(crate) delivered: u64,
    /// Messages that came after a later one of the same sender. `None`: not tracked.
    pub(crate) reordered: Option<u64>,
    /// Bytes that were no message, or one for somebody else.
    pub(crate) strays: u64,
    /// Connections that ended.
    pub(crate) ended: u64,
    /// Nanoseconds from due to delivered.
    pub(crate) latency_ns: Histogram<u64>,
}

/// The loop, over clients it owns.
pub(crate) struct ClosedLoop {
    clients: Clients,
    state: State,
}

/// What is not the clients', so that these may call it.
struct State {
    began: Instant,
    /// How each reader's name looks on the wire.
    names: Vec<String>,
    pattern: Pattern,
    random: Random,
    /// The last number of each sender.
    numbers: Vec<u64>,
    /// The last number each reader saw of each sender: `reader * n + sender`.
    seen: Vec<u64>,
    in_flight: u64,
    stopped: bool,
    tally: Tally,
}

impl ClosedLoop {
    /// Prepares a loop; nothing is sent yet.
    pub(crate) fn new(clients: Clients, pattern: Pattern) -> Result<Self, BenchError> {
        let count = clients.count();
        let tracked = count <= PAIRS_OF_MAX;
        let pairs = if tracked {
            count as usize * count as usize
        } else {
            0
        };
        let latency_ns = Histogram::new_with_bounds(1_000, LATENCY_MAX_NS, 3)
            .map_err(|_| BenchError::Unanswered("building a histogram"))?;
        let state = State {
            began: Instant::now(),
            names: (0..count).map(name_of).collect(),
            pattern,
            random: Random::seeded(count.into()),
            numbers: vec![0; count as usize],
            seen: vec![0; pairs],
            in_flight: 0,
            stopped: false,
            tally: Tally {
                delivered: 0,
                reordered: tracked.then_some(0),
                strays: 0,
                ended: 0,
                latency_ns,
            },
        };
        Ok(Self { clients, state })
    }

    /// Puts `window` messages of each sender in flight.
    pub(crate) fn fill(&mut self, window: u32) {
        let senders = match self.state.pattern {
            Pattern::Random => self.clients.count(),
            Pattern::Pair => 1,
        };
        for sender in 0..senders {
            for _ in 0..window {
                self.state.send(sender, self.clients.outboxes());
            }
        }
    }

    /// Runs for `time`.
    pub(crate) fn run(&mut self, time: Duration) -> Result<(), BenchError> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.clients.turn(left, &mut self.state)?;
        }
    }

    /// Begins to count afresh, after the warm-up.
    pub(crate) fn begin(&mut self) {
        let tally = &mut self.state.tally;
        tally.delivered = 0;
        tally.latency_ns.reset();
    }

    /// What was counted so far. Disorder, strays and ends count from the very start.
    pub(crate) fn tally(&self) -> Tally {
        self.state.tally.clone()
    }

    /// Sends no more, awaits what is in flight, and answers how much of it never came.
    pub(crate) fn finish(&mut self) -> Result<u64, BenchError> {
        self.state.stopped = true;
        let deadline = Instant::now() + DRAIN_MAX;
        while self.state.in_flight > 0 && Instant::now() < deadline {
            self.clients
                .turn(Duration::from_millis(50), &mut self.state)?;
        }
        Ok(self.state.in_flight)
    }
}

impl State {
    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Makes the next message of a sender.
    fn send(&mut self, sender: u32, outboxes: &mut Outboxes) {
        let reader = match self.pattern {
            Pattern::Pair => 1,
            Pattern::Random => {
                let other = self.random.below(self.names.len() as u32 - 1);
                if other >= sender { other + 1 } else { other }
            }
        };
        self.numbers[sender as usize] += 1;
        let message = Message {
            due_ns: self.now_ns(),
            number: self.numbers[sender as usize],
            sender,
            reader,
        };
        // Names of ours are never refused.
        if let Ok(name) = Name::parse(self.names[reader as usize].as_bytes()) {
            classic::encode_send(outboxes.of(sender), name, &message.encode());
            self.in_flight += 1;
        }
    }

    fn delivered(&mut self, reader: u32, message: Message) {
        let latency = self.now_ns().saturating_sub(message.due_ns);
        self.tally.delivered += 1;
        self.tally.latency_ns.saturating_record(latency);
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(reordered) = &mut self.tally.reordered {
            let pair = reader as usize * self.names.len() + message.sender as usize;
            let seen = &mut self.seen[pair];
            *reordered += u64::from(message.number <= *seen);
            *seen = message.number.max(*seen);
        }
    }
}

impl Handler for State {
    fn received(&mut self, index: u32, bytes: &[u8], outboxes: &mut Outboxes) -> usize {
        let (messages, _) = bytes.as_chunks::<MESSAGE_BYTES>();
        for bytes in messages {
            let message = Message::decode(bytes)
                .filter(|m| m.reader == index && (m.sender as usize) < self.numbers.len());
            let Some(message) = message else {
                self.tally.strays += 1;
                continue;
            };
            self.delivered(index, message);
            if !self.stopped {
                self.send(message.sender, outboxes);
            }
        }
        messages.len() * MESSAGE_BYTES
    }

    fn ended(&mut self, _index: u32) {
        self.tally.ended += 1;
    }
}
