//! What the clients of a traffic send, and what they make of what they hear.
//!
//! Owner: the engine's thread. Invariants: a sender of a closed loop never has more than its window
//! in flight, except where users reply: then all of them together have as many in flight as they
//! began with. What a sender may make and has not made yet is less than [`Pace::writes_after`].

use super::Pace;
use crate::dialect::{Heard, Outcome};
use crate::engine::clients::{End, Handler};
use crate::engine::clock;
use crate::engine::message::Message;
use crate::engine::post::Post;
use crate::engine::random::Random;
use crate::engine::recorder::Recorder;
use crate::engine::sizes::Sizes;
use crate::engine::streams::{Streams, Taken, Topology};

/// As long as so many are in flight, an open loop makes no more: it gets late instead, which its
/// latencies show, and its memory stays in bounds.
const IN_FLIGHT_MAX: u64 = 1 << 20;
/// Gathered loop: a turn waits for this share of what is in flight to happen, so that the server has
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
    pub(super) sizes: Sizes,
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
    pub(super) fn new(topology: Topology, sizes: Sizes) -> Self {
        Self {
            streams: Streams::new(topology),
            sizes,
            random: Random::seeded(topology.users().into()),
            senders: vec![Sender::default(); topology.senders().len()],
            pace: Pace::Window(1),
            left: 0,
            answered: 0,
            logins: 0,
            sessions: vec![None; topology.users() as usize],
            schedule_ns: 0,
            made: 0,
            recorder: Recorder::begin(clock::now_ns()),
            closing: None,
        }
    }

    /// Begins to send `total` messages: in a closed loop what each sender begins with, at once.
    pub(super) fn start(&mut self, pace: Pace, total: u64, post: &mut Post) {
        let topology = self.streams.topology();
        assert!(
            !matches!(pace, Pace::Reply(_)) || topology.all_send(),
            "whoever receives has somebody to write to"
        );
        self.pace = pace;
        self.left = total;
        self.schedule_ns = clock::now_ns();
        self.made = 0;
        self.senders.iter_mut().for_each(|sender| sender.free = 0);
        // In turn, so that a small total is spread over all.
        let most = topology.senders().map(|sender| pace.begins_with(sender));
        for nth in 0..most.max().unwrap_or(0) {
            for sender in topology.senders() {
                if nth < pace.begins_with(sender) {
                    let now_ns = clock::now_ns();
                    self.send(sender, now_ns, now_ns, post);
                }
            }
        }
    }

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
    /// ones when enough of them are.
    pub(super) fn settled(&mut self, sender: u32, now_ns: u64, post: &mut Post) {
        let free = &mut self.senders[sender as usize].free;
        *free += 1;
        if *free >= self.pace.writes_after(sender) {
            for _ in 0..std::mem::take(free) {
                self.send(sender, now_ns, now_ns, post);
            }
        }
    }

    /// How many things to wait for in one turn.
    pub(super) fn gather(&self) -> usize {
        if !self.pace.is_gathered() {
            return 1;
        }
        let share = self.streams.in_flight() / GATHER_SHARE;
        usize::try_from(share)
            .unwrap_or(GATHER_MAX)
            .clamp(1, GATHER_MAX)
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
        let bytes = self.sizes.draw(&mut self.random);
        post.send(sender, *number, reader, &message, bytes);
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
                    if self.pace.in_bursts(sender) {
                        self.recorder.took_of_burst(message.due_ns, now_ns);
                    } else if self.streams.is_watched(sender) {
                        self.recorder.took(message.due_ns, now_ns);
                    }
                    match self.pace {
                        Pace::Window(_) | Pace::Eager(_) | Pace::Bursts(_) => {
                            self.settled(sender, now_ns, post);
                        }
                        // The one who received it writes the next one.
                        Pace::Reply(_) => self.send(client, now_ns, now_ns, post),
                        Pace::Unanswered(_) | Pace::Rate(_) => {}
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
                    Pace::Unanswered(_) => self.settled(client, now_ns, post),
                    Pace::Rate(_) => {}
                    // It will never come.
                    _ if refused => self.settled(client, now_ns, post),
                    _ => {}
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
