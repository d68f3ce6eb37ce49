//! How messages follow each other.
//!
//! *Open*: messages are due at an even rate, whatever the server does, and each carries the time
//! it was due. A server that stalls is charged for every message that was due meanwhile; that is
//! what "no coordinated omission" means. *Closed*: so many messages are in flight, and one that came
//! makes room for another. A closed loop finds the highest throughput, and its latency is that of
//! full queues.
//!
//! Closed loops differ in when the next message is written. *Gathered*: a sender waits until seven
//! eighths of its window have come, and writes that many in one send. Over loopback a send is what
//! costs, since it carries the receiver's TCP too, so this drives a server with the least that an
//! engine can spend. No client does so. *Reply*: whoever receives a message answers at once with
//! one to somebody else, so who has much to say changes all the time, and messages reach the server
//! a few at a time. *Eager*: a sender writes the next one as soon as one of its own has come.
//! *Bursts*: most senders have one message in flight, and a few write many at once.

/// One sender in so many writes bursts, where there are bursts.
const BURST_EVERY: u32 = 5;

/// How messages follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Closed, gathered: so many messages of each sender are in flight.
    Window(u32),
    /// Closed, gathered: so many messages of each sender are unanswered, whether they have come or
    /// not.
    Unanswered(u32),
    /// Closed: each user begins with so many messages, and answers each one that comes with one to
    /// a reader of its own. Every user has to be a sender.
    Reply(u32),
    /// Closed: so many messages of each sender are in flight, and one that came is followed by the
    /// next at once.
    Eager(u32),
    /// Closed: every fifth sender writes so many messages at once, and the next ones when all of
    /// them came. The others have one in flight.
    Bursts(u32),
    /// Open: so many messages a second are due, of all senders together.
    Rate(f64),
}

impl Pace {
    /// Whether what comes is what makes the next message.
    #[must_use]
    pub fn is_closed(self) -> bool {
        !matches!(self, Self::Rate(_))
    }

    /// Whether messages wait to be written together.
    pub(super) fn is_gathered(self) -> bool {
        matches!(self, Self::Window(_) | Self::Unanswered(_))
    }

    /// Messages that a sender begins with.
    pub(super) fn begins_with(self, sender: u32) -> u32 {
        match self {
            Self::Window(window)
            | Self::Unanswered(window)
            | Self::Reply(window)
            | Self::Eager(window) => window,
            Self::Bursts(burst) if self.in_bursts(sender) => burst,
            Self::Bursts(_) => 1,
            Self::Rate(_) => 0,
        }
    }

    /// How many of a sender's messages are no longer in flight when it writes as many again.
    pub(super) fn writes_after(self, sender: u32) -> u32 {
        match self {
            Self::Window(window) | Self::Unanswered(window) => window - window / 8,
            Self::Reply(_) | Self::Eager(_) | Self::Rate(_) => 1,
            Self::Bursts(_) => self.begins_with(sender),
        }
    }

    /// Whether a sender is one of those that write bursts.
    pub(super) fn in_bursts(self, sender: u32) -> bool {
        matches!(self, Self::Bursts(_)) && sender % BURST_EVERY == BURST_EVERY - 1
    }
}
