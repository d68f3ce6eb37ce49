//! What the clients of a traffic send, and what they make of what they hear.
//!
//! Owner: the engine's thread. Invariants: a sender of a closed loop never has more than its window
//! in flight; what it may make and has not made yet is less than seven eighths of that.

use super::Pace;
use crate::dialect::{Heard, Outcome};
use crate::engine::clients::{End, Handler};
use crate::engine::message::Message;
use crate::engine::post::Post;
use crate::engine::random::Random;
use crate::engine::recorder::Recorder;
use crate::engine::streams::{Streams, Taken, Topology};

/// As long as so many are in flight, an open loop makes no more: it gets late instead, which its
/// latencies show, and its memory stays in bounds.
const IN_FLIGHT_MAX: u64 = 1 << 20;
/// Closed loop: a turn waits for this share of what is in flight to happen, so that the server has
/// the rest to work on meanwhile, and for this much at most.
const GATHER_SHARE: u64 = 8;
/// See `GATHER_SHARE`.
const GATHER_MAX: usize = 256;
/// Messages made in a turn of an open loop.
const MAKE_MAX: u32 = 4096;

/// What is known of one sender.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sender {
    /// The last number it gave to a message.
    pub(super) number: u64,
    /// Which of its readers it wrote to last, where that goes in turn.
    pub(super) turn: u32,
    /// Closed loop: messages that it may make, and does not make yet.
    pub(super) free: u32,
}

/// What is not the clients', so that these may call it.
pub(super) struct State {
    pub(super) streams: Streams,
    pub(super) message_bytes: u32,
    pub(super) random: Random,
    pub(super) senders: Vec<Sender>,
    pub(super) pace: Pace,
    /// Messages still to be made.
    pub(super) left: u64,
    /// Answers that took a message.
    pub(super) answered: u64,
    pub(super) logins: u64,
    /// By client: whether it is logged in, and how much waited then, if the server told.
    pub(super) sessions: Vec<Option<Option<u64>>>,
    /// Open loop: when its count began, and how many were made since.
    pub(super) schedule_ns: u64,
    pub(super) made: u64,
    pub(super) recorder: Recorder,
    pub(super) closing: Option<Box<str>>,
}

impl State {
    /// Makes the messages of an open loop that are due, and answers when the next one is.
    pub(super) fn make(&mut self, now_ns: u64, post: &mut Post) -> u64 {
        let Pace::Rate(rate) = self.pace else {
            return u64::MAX;
        };
        let interval_ns = 1e9 / rate;
        let senders = self.streams.topology().senders();
        for _ in 0..MAKE_MAX {
            let due_ns = self.schedule_ns + (self.made as f64 * interval_ns) as u64;
            if due_ns > now_ns {
                return due_ns;
            }
            if self.left == 0 || self.streams.in_flight() >= IN_FLIGHT_MAX {
                return u64::MAX;
            }
            self.made += 1;
            let sender = self.random.below(senders.end);
            self.send(sender, due_ns, now_ns, post);
        }
        now_ns
    }

    /// Closed loop: one of a sender's messages is no longer in flight. The sender makes its next
    /// ones when seven eighths of its window are free.
    pub(super) fn settled(&mut self, sender: u32, window: u32, now_ns: u64, post: &mut Post) {
        let free = &mut self.senders[sender as usize].free;
        *free += 1;
        if *free >= window - window / 8 {
            for _ in 0..std::mem::take(free) {
                self.send(sender, now_ns, now_ns, post);
            }
        }
    }

    /// How many things to wait for in one turn.
    pub(super) fn gather(&self) -> usize {
        match self.pace {
            Pace::Rate(_) => 1,
            Pace::Window(_) | Pace::Unanswered(_) => {
                let share = self.streams.in_flight() / GATHER_SHARE;
                usize::try_from(share)
                    .unwrap_or(GATHER_MAX)
                    .clamp(1, GATHER_MAX)
            }
        }
    }

    pub(super) fn send(&mut self, sender: u32, due_ns: u64, now_ns: u64, post: &mut Post) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let nth = match self.streams.topology() {
            Topology::FanOut { readers_each, .. } => {
                let turn = &mut self.senders[sender as usize].turn;
                *turn = (*turn + 1) % readers_each;
                *turn
            }
            _ => self.random.below(self.streams.readers_each()),
        };
        let (message, reader) = self.streams.send(sender, nth, due_ns);
        let number = &mut self.senders[sender as usize].number;
        *number = due_ns.max(*number + 1);
        post.send(sender, *number, reader, &message, self.message_bytes);
        self.recorder.wrote(due_ns, now_ns);
    }
}

impl Handler for State {
    fn expect(&self, heard: &[Heard], bytes: &[u8]) {
        for heard in heard {
            if let Heard::Delivered { payload } = heard
                && let Some(message) = bytes.get(payload.clone()).and_then(Message::decode)
            {
                self.streams.expect(&message);
            }
        }
    }

    fn heard(&mut self, client: u32, heard: Heard, bytes: &[u8], now_ns: u64, post: &mut Post) {
        match heard {
            Heard::Delivered { payload } => {
                let Some(message) = bytes.get(payload).and_then(Message::decode) else {
                    self.streams.stray();
                    return;
                };
                if self.streams.took(client, &message) == Taken::New {
                    let sender = self.streams.sender(message.stream);
                    if self.streams.is_watched(sender) {
                        self.recorder.took(message.due_ns, now_ns);
                    }
                    if let Pace::Window(window) = self.pace {
                        self.settled(sender, window, now_ns, post);
                    }
                }
            }
            Heard::Answered { number, outcome } => {
                let refused = matches!(outcome, Outcome::Refused(_));
                if refused {
                    self.streams.refused(client);
                } else {
                    self.answered += 1;
                    if self.streams.is_watched(client) {
                        self.recorder.answered(number, now_ns);
                    }
                }
                match self.pace {
                    Pace::Unanswered(window) => self.settled(client, window, now_ns, post),
                    Pace::Window(window) if refused => {
                        self.settled(client, window, now_ns, post);
                    }
                    Pace::Window(_) | Pace::Rate(_) => {}
                }
            }
            Heard::Closing(word) => self.closing = Some(word),
            Heard::LoggedIn { waiting } => {
                self.logins += 1;
                self.sessions[client as usize] = Some(waiting);
            }
            Heard::Presence => {}
        }
    }

    fn ended(&mut self, _: u32, end: End) {
        match end {
            End::Peer => self.streams.ended(),
            End::Garbled => self.streams.stray(),
        }
    }
}
