//! Who sends to whom, and the ledger of every message: what was sent on each stream, what came of
//! it, and what went wrong.
//!
//! A *stream* is the messages of one sender to one reader. They are numbered from 1, so loss,
//! disorder and repeats are found exactly, at the cost of two small tables.
//!
//! Invariant: `sent = delivered + refused + lost`, once nothing is in flight.

use std::ops::{AddAssign, Range};

use iris_ring::prefetch;
use serde::Serialize;

use super::message::Message;

/// Streams of all senders together, about: the tables stay in the caches.
const STREAMS_MAX: u32 = 1 << 17;
/// Readers that one sender has at most.
const READERS_MAX: u32 = 16;

/// Who sends to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// Each of `users` sends to up to 16 others, which are drawn once and at random.
    Mesh {
        /// Users, 2 and up.
        users: u32,
    },
    /// User 0 sends to user 1.
    Pair,
    /// Users 0 to `senders` - 1 send to user `senders`.
    FanIn {
        /// Senders, 1 and up.
        senders: u32,
    },
    /// Each of the first `senders` users sends to `readers_each` others in turn, who are nobody
    /// else's and follow behind the senders.
    FanOut {
        /// Senders, 1 and up.
        senders: u32,
        /// Readers of each, 1 and up.
        readers_each: u32,
    },
}

impl Topology {
    /// How many users there are, senders and readers.
    #[must_use]
    pub fn users(self) -> u32 {
        match self {
            Self::Mesh { users } => users,
            Self::Pair => 2,
            Self::FanIn { senders } => senders + 1,
            Self::FanOut {
                senders,
                readers_each,
            } => senders + senders * readers_each,
        }
    }

    /// The users that send.
    #[must_use]
    pub fn senders(self) -> Range<u32> {
        match self {
            Self::Mesh { users } => 0..users,
            Self::Pair => 0..1,
            Self::FanIn { senders } | Self::FanOut { senders, .. } => 0..senders,
        }
    }

    /// Whether every user sends.
    #[must_use]
    pub fn all_send(self) -> bool {
        matches!(self, Self::Mesh { .. })
    }

    /// How many readers each sender has.
    #[must_use]
    pub fn readers_each(self) -> u32 {
        match self {
            Self::Mesh { users } => (STREAMS_MAX / users).clamp(1, READERS_MAX.min(users - 1)),
            Self::Pair | Self::FanIn { .. } => 1,
            Self::FanOut { readers_each, .. } => readers_each,
        }
    }

    /// The sender of a stream.
    #[must_use]
    pub fn sender(self, stream: u32) -> u32 {
        stream / self.readers_each()
    }

    /// The reader of a stream.
    #[must_use]
    pub fn reader(self, stream: u32) -> u32 {
        self.reader_for(self.sender(stream), stream)
    }

    /// The same where the sender is known.
    fn reader_for(self, sender: u32, stream: u32) -> u32 {
        match self {
            Self::Mesh { users } => {
                // A number from the stream's own, spread over everyone else.
                let mut mixed = (u64::from(stream) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let other = (((mixed >> 32) * u64::from(users - 1)) >> 32) as u32;
                if other >= sender { other + 1 } else { other }
            }
            Self::Pair => 1,
            Self::FanIn { senders } => senders,
            Self::FanOut { senders, .. } => senders + stream,
        }
    }

    fn streams(self) -> u32 {
        self.senders().len() as u32 * self.readers_each()
    }
}

/// What went wrong, counted in messages and connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Sent, not refused, and never delivered.
    pub lost: u64,
    /// Delivered after a later one of the same stream.
    pub reordered: u64,
    /// Delivered more than once.
    pub repeated: u64,
    /// Delivered to somebody else, or never sent, or no message of ours.
    pub strays: u64,
    /// Connections that the server ended.
    pub ended: u64,
}

impl Faults {
    /// Whether nothing went wrong.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.repeated += other.repeated;
        self.strays += other.strays;
        self.ended += other.ended;
    }
}

/// What a reader's message turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The first time it comes.
    New,
    /// Not the first time.
    Again,
    /// Not this reader's, or never sent.
    Stray,
}

/// One stream's place in the ledger.
#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    sent: u32,
    /// The highest number that came.
    highest: u32,
    /// Of those up to the highest, how many have not come.
    missing: u32,
}

/// The ledger.
#[derive(Debug)]
pub struct Streams {
    topology: Topology,
    readers_each: u32,
    streams: Vec<Stream>,
    sent: u64,
    delivered: u64,
    refused: u64,
    /// Senders below this are watched apart.
    watched: u32,
    watched_in_flight: u64,
    faults: Faults,
}

impl Streams {
    /// An empty ledger.
    #[must_use]
    pub fn new(topology: Topology) -> Self {
        Self {
            topology,
            readers_each: topology.readers_each(),
            streams: vec![Stream::default(); topology.streams() as usize],
            sent: 0,
            delivered: 0,
            refused: 0,
            watched: u32::MAX,
            watched_in_flight: 0,
            faults: Faults::default(),
        }
    }

    /// Watches the first `senders` apart from the others; to be said before anything is sent.
    pub fn watch(&mut self, senders: u32) {
        self.watched = senders;
    }

    /// Whether a sender is watched: everyone, unless it was said otherwise.
    #[must_use]
    pub fn is_watched(&self, sender: u32) -> bool {
        sender < self.watched
    }

    /// Messages of watched senders that are neither delivered nor refused.
    #[must_use]
    pub fn watched_in_flight(&self) -> u64 {
        self.watched_in_flight
    }

    /// Who sends to whom.
    #[must_use]
    pub fn topology(&self) -> Topology {
        self.topology
    }

    /// How many readers each sender has.
    #[must_use]
    pub fn readers_each(&self) -> u32 {
        self.readers_each
    }

    /// Asks the memory for what [`Self::took`] will need, so that the waits of messages that came
    /// together overlap.
    pub fn expect(&self, message: &Message) {
        if let Some(stream) = self.streams.get(message.stream as usize) {
            prefetch(stream);
        }
    }

    /// Writes down the next message of `sender` to its `nth` reader; answers it, and the reader.
    // Inlined: the message stays in registers. Through memory its two halves would be read as one, which
    // waits until all older stores are done.
    #[inline(always)]
    pub fn send(&mut self, sender: u32, nth: u32, due_ns: u64) -> (Message, u32) {
        let index = sender * self.readers_each + nth;
        let stream = &mut self.streams[index as usize];
        stream.sent += 1;
        self.sent += 1;
        self.watched_in_flight += u64::from(sender < self.watched);
        let message = Message {
            due_ns,
            stream: index,
            number: stream.sent,
        };
        (message, self.topology.reader_for(sender, index))
    }

    /// A message came to user `reader`.
    pub fn took(&mut self, reader: u32, message: &Message) -> Taken {
        let stream = self.streams.get_mut(message.stream as usize);
        let Some(stream) = stream.filter(|stream| (1..=stream.sent).contains(&message.number))
        else {
            self.faults.strays += 1;
            return Taken::Stray;
        };
        let sender = message.stream / self.readers_each;
        if self.topology.reader_for(sender, message.stream) != reader {
            self.faults.strays += 1;
            return Taken::Stray;
        }
        if message.number > stream.highest {
            stream.missing += message.number - stream.highest - 1;
            stream.highest = message.number;
        } else if stream.missing > 0 {
            // With messages missing, one that comes late is taken for one of these.
            stream.missing -= 1;
            self.faults.reordered += 1;
        } else {
            self.faults.repeated += 1;
            return Taken::Again;
        }
        self.delivered += 1;
        self.settled(sender);
        Taken::New
    }

    /// A sender was told that a message was not taken.
    pub fn refused(&mut self, sender: u32) {
        self.refused += 1;
        self.settled(sender);
    }

    fn settled(&mut self, sender: u32) {
        if self.is_watched(sender) {
            self.watched_in_flight = self.watched_in_flight.saturating_sub(1);
        }
    }

    /// Bytes came that were no message.
    pub fn stray(&mut self) {
        self.faults.strays += 1;
    }

    /// The server ended a connection.
    pub fn ended(&mut self) {
        self.faults.ended += 1;
    }

    /// The sender of a stream.
    #[must_use]
    pub fn sender(&self, stream: u32) -> u32 {
        stream / self.readers_each
    }

    /// Messages of one stream that were sent and have not come.
    #[must_use]
    pub fn owed(&self, stream: u32) -> u32 {
        let stream = &self.streams[stream as usize];
        stream.sent - (stream.highest - stream.missing)
    }

    /// Messages that were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages that came, each counted once.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Messages that were refused.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refused
    }

    /// Messages that are neither delivered nor refused.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.sent.saturating_sub(self.delivered + self.refused)
    }

    /// What went wrong; what is still in flight counts as lost.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults {
            lost: self.in_flight(),
            ..self.faults
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_readers_that_are_somebody_else() {
        for users in [2, 3, 200, 10_000, 1_000_000] {
            let topology = Topology::Mesh { users };
            let each = topology.readers_each();
            assert!((1..=16).contains(&each) && each < users);
            for stream in (0..users * each).step_by(7) {
                let (sender, reader) = (topology.sender(stream), topology.reader(stream));
                assert!(sender < users && reader < users && sender != reader);
            }
        }
    }

    #[test]
    fn each_kind_of_fault_is_told_from_the_others() {
        let mut streams = Streams::new(Topology::FanIn { senders: 2 });
        let sent: Vec<_> = (0..5).map(|_| streams.send(1, 0, 0).0).collect();
        assert_eq!(streams.took(2, &sent[0]), Taken::New);
        assert_eq!(streams.took(2, &sent[0]), Taken::Again);
        assert_eq!(streams.took(2, &sent[2]), Taken::New);
        assert_eq!(streams.took(2, &sent[1]), Taken::New);
        assert_eq!(streams.took(1, &sent[3]), Taken::Stray);
        let never = Message {
            number: 6,
            ..sent[4]
        };
        assert_eq!(streams.took(2, &never), Taken::Stray);
        streams.refused(1);
        assert_eq!(streams.watched_in_flight(), 1);
        streams.ended();
        let expected = Faults {
            lost: 1,
            reordered: 1,
            repeated: 1,
            strays: 2,
            ended: 1,
        };
        assert_eq!(streams.faults(), expected);
        assert!(!expected.is_none());
    }

    #[test]
    fn readers_of_a_fan_out_are_nobody_elses() {
        let topology = Topology::FanOut {
            senders: 3,
            readers_each: 2,
        };
        let readers: Vec<_> = (0..6).map(|stream| topology.reader(stream)).collect();
        assert_eq!(readers, [3, 4, 5, 6, 7, 8]);
        assert_eq!(topology.users(), 9);
        assert_eq!(topology.sender(5), 2);
    }
}
