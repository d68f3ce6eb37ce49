//! The protocols that servers are driven by, each behind one small trait.
//!
//! A [`Dialect`] is one client's side of a protocol on one connection: it writes what the client
//! says and reads what the server says. It owns no socket, keeps no time and knows no scenario, so
//! a server of another kind needs nothing but an implementation of the trait and a line in
//! [`Protocol`].
//!
//! Owner: the engine's thread. Invariants: bytes are read in the order they came; what a dialect
//! did not use up is shown to it again, followed by what came since.

mod classic;
mod cursor;
mod framed;
pub(crate) mod jetstream;
mod mqtt;
mod nats;
mod nats_wire;
mod redis;
mod redis_streams;
mod resp;

use std::fmt;
use std::ops::Range;

use clap::ValueEnum;

/// A protocol that the engine speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// The classic protocol of Iris: no frames, no acknowledgements.
    Classic,
    /// The framed protocol of Iris: acknowledgements, ids, answers.
    Framed,
    /// Core NATS: a subject for each user.
    Nats,
    /// NATS JetStream: a subject of one stream, and a durable consumer, for each user.
    Jetstream,
    /// MQTT 3.1.1 at QoS 0: a topic for each user.
    Mqtt,
    /// MQTT 3.1.1 at QoS 1: the same with acknowledgements.
    MqttQos1,
    /// Redis publish and subscribe: a channel for each user.
    Redis,
    /// Redis Streams: a stream for each user, which is read at login and not again.
    RedisStreams,
}

impl Protocol {
    /// A client that has said nothing yet, for one connection.
    #[must_use]
    pub fn client(self) -> Box<dyn Dialect> {
        match self {
            Self::Classic => Box::<classic::Classic>::default(),
            Self::Framed => Box::<framed::Framed>::default(),
            Self::Nats => Box::<nats::Nats>::default(),
            Self::Jetstream => Box::<jetstream::JetStream>::default(),
            Self::Mqtt => Box::new(mqtt::Mqtt::at_most_once()),
            Self::MqttQos1 => Box::new(mqtt::Mqtt::at_least_once()),
            Self::Redis => Box::<redis::Redis>::default(),
            Self::RedisStreams => Box::<redis_streams::RedisStreams>::default(),
        }
    }

    /// Whether senders are told what became of each message, as [`Heard::Answered`].
    #[must_use]
    pub fn answers(self) -> bool {
        match self {
            Self::Classic | Self::Nats | Self::Mqtt => false,
            Self::Framed | Self::Jetstream | Self::MqttQos1 | Self::Redis | Self::RedisStreams => {
                true
            }
        }
    }

    /// Whether messages to users who are away are kept for them.
    #[must_use]
    pub fn keeps(self) -> bool {
        match self {
            Self::Classic | Self::Framed | Self::Jetstream | Self::RedisStreams => true,
            Self::Nats | Self::Mqtt | Self::MqttQos1 | Self::Redis => false,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Classic => "classic",
            Self::Framed => "framed",
            Self::Nats => "nats",
            Self::Jetstream => "jetstream",
            Self::Mqtt => "mqtt",
            Self::MqttQos1 => "mqtt-qos1",
            Self::Redis => "redis",
            Self::RedisStreams => "redis-streams",
        })
    }
}

/// What a server told a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The login was taken: messages may be sent from now on.
    LoggedIn {
        /// Messages that wait for the user, where the server tells.
        waiting: Option<u64>,
    },
    /// A message came.
    Delivered {
        /// Where its payload stands in the bytes that were read.
        payload: Range<usize>,
    },
    /// What became of a message that this client sent.
    Answered {
        /// The number it was sent with.
        number: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// The answer to [`Dialect::ask_presence`].
    Presence,
    /// The server is about to close the connection, and says why.
    Closing(Box<str>),
}

/// What became of a message, as its sender was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its reader has it, or the server vouches for it in some other way that is not `Stored`.
    Delivered,
    /// It is kept for its reader.
    Stored,
    /// The server did not take it.
    Refused(Box<str>),
}

/// Bytes that do not belong to the protocol. Nothing behind them can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garbled;

/// One client's side of a protocol on one connection.
pub trait Dialect {
    /// Appends what logs this client in as `user`, everything it takes to be delivered to and to
    /// send. Called once, before anything else; the server's consent is [`Heard::LoggedIn`].
    fn login(&mut self, user: &str, out: &mut Vec<u8>);

    /// Appends a message to the user `target`. `number` is the sender's own: it rises with every
    /// message of a user, over all sessions, and is 1 to 2^63 - 1. Where the protocol answers
    /// sends, [`Heard::Answered`] names it.
    fn send(&mut self, number: u64, target: &str, message: &[u8], out: &mut Vec<u8>);

    /// Reads all that is whole in `bytes` and appends what it means to `heard`, in order. Answers
    /// how many bytes it used up.
    ///
    /// # Errors
    /// The bytes are not this protocol's. What was heard before them counts; the connection is
    /// given up.
    fn receive(&mut self, bytes: &[u8], heard: &mut Vec<Heard>) -> Result<usize, Garbled>;

    /// Appends what this client owes for what it has read: acknowledgements, pongs. Called after
    /// each [`Self::receive`], when everything that was heard has been taken by the scenario.
    fn owe(&mut self, _out: &mut Vec<u8>) {}

    /// Appends a question after the presence of `user`. `false`: the protocol has none.
    fn ask_presence(&mut self, _user: &str, _out: &mut Vec<u8>) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows `bytes` to fresh clients, cut in two at every place and then byte by byte, and has
    /// `check` look at what they told and what they owed.
    pub(super) fn in_two_pieces(
        bytes: &[u8],
        client: impl Fn() -> Box<dyn Dialect>,
        check: impl Fn(&[String], &[u8]),
    ) {
        let every: Vec<_> = (1..=bytes.len()).collect();
        for cut in 0..bytes.len() {
            let (told, owed) = told(bytes, &[cut, bytes.len()], &mut *client());
            check(&told, &owed);
        }
        let (told, owed) = told(bytes, &every, &mut *client());
        check(&told, &owed);
    }

    /// What a client makes of `bytes` that come up to each of `ends` in turn.
    fn told(bytes: &[u8], ends: &[usize], client: &mut dyn Dialect) -> (Vec<String>, Vec<u8>) {
        let (mut told, mut owed, mut from) = (Vec::new(), Vec::new(), 0);
        for &end in ends {
            let mut heard = Vec::new();
            let seen = &bytes[from..end];
            from += client.receive(seen, &mut heard).expect("sound");
            told.extend(heard.into_iter().map(|heard| match heard {
                Heard::LoggedIn { .. } => "logged in".to_owned(),
                Heard::Delivered { payload } => String::from_utf8_lossy(&seen[payload]).into(),
                Heard::Answered { number, outcome } => match outcome {
                    Outcome::Delivered => format!("{number}: delivered"),
                    Outcome::Stored => format!("{number}: stored"),
                    Outcome::Refused(reason) => format!("{number}: refused: {reason}"),
                },
                Heard::Presence => "presence".to_owned(),
                Heard::Closing(text) => format!("closing: {text}"),
            }));
            client.owe(&mut owed);
        }
        assert_eq!(from, bytes.len());
        (told, owed)
    }
}
