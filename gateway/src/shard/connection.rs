//! One connection as its shard sees it: what it speaks, who is logged in on it,
//! what it said but was not read yet, and what waits to be sent.
//!
//! Owner: the shard of the core that holds the socket. An idle logged-in
//! connection has no heap memory of its own: the outbox is lent from a pool when
//! there is something to send, and partial input exists only between segments.

use std::collections::VecDeque;
use std::rc::Rc;

use iris_protocol::framed::{HEADER_LEN, Presence};
use iris_protocol::{CloseReason, Protocol, classic};

use super::outbox::Outbox;
use super::slots::Key;
use super::unread::HELD_PIECE_BYTES;
use super::wheel::Tick;

/// Where a connection stands on its way from the first byte to the last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Not a user yet: nothing, or a preface, was received, or a classic
    /// connection lost its user to a newer login.
    Open,
    /// Moving to the core that is home to this user.
    HandingOver {
        /// Where to.
        core: u16,
        /// Who logs in.
        name: Box<str>,
    },
    /// Its login waits for the older session of this user to end.
    Waiting(Key),
    /// Logged in; the answer waits for the store to say how deep the inbox is.
    Welcoming,
    /// Logged in.
    Session,
    /// Logged in, and about to become this user instead.
    Relogin(Box<str>),
    /// The last bytes are going out; what comes in counts no more, but for
    /// acknowledgements.
    Closing(CloseReason),
}

/// All that arrived with what was just read is to be passed over.
pub const REST_OF_ARRIVAL: u32 = u32::MAX;

/// Bytes that cost about as much as a command does besides its bytes.
const STEP_BYTES: usize = 1 << 10;

/// What a core's time is shared out by: a command is one, and so is each KiB.
pub fn steps_of(commands: usize, bytes: usize) -> usize {
    commands + bytes / STEP_BYTES
}

/// Why a connection is not read for the moment; several reasons may hold at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pause(u8);

impl Pause {
    /// It is read.
    pub const NO: Pause = Pause(0);
    /// The lane to its message's reader has no room.
    pub const LANE: Pause = Pause(1);
    /// It does not take what it asked for (answers, pongs).
    pub const OUTBOX: Pause = Pause(1 << 1);
    /// It has had its share of this turn.
    pub const TURN: Pause = Pause(1 << 2);
    /// The store has no room for more of what its user sends to users who are away.
    pub const STORE: Pause = Pause(1 << 3);
    /// It logs in too often.
    pub const LOGIN: Pause = Pause(1 << 4);
    /// There is no memory for the rest of its command.
    pub const INPUT: Pause = Pause(1 << 5);

    /// Whether one of these reasons holds.
    pub fn has(self, reasons: Pause) -> bool {
        self.0 & reasons.0 != 0
    }

    /// These reasons as well.
    pub fn with(self, reasons: Pause) -> Pause {
        Pause(self.0 | reasons.0)
    }

    /// All but these reasons.
    pub fn without(self, reasons: Pause) -> Pause {
        Pause(self.0 & !reasons.0)
    }
}

/// A user that a session follows.
pub struct Followed {
    /// Its name.
    pub name: Box<str>,
    /// Its newest state, if that is still to be told.
    pub news: Option<Presence>,
}

/// What a session wants to know of other users; boxed, since most ask nothing.
#[derive(Default)]
pub struct Interest {
    /// Users it follows.
    pub follows: Vec<Followed>,
    /// How many of them have news.
    pub news: usize,
    /// Questions of it that wait for their answer.
    pub inquiries: u32,
}

/// Bytes that came while their connection was not read.
pub struct Held {
    pub bytes: Vec<u8>,
    /// They arrived together with what is held before them.
    pub goes_on: bool,
}

/// State of one connection: what its deliveries need stands first, on one cache line,
/// then what its own messages need.
#[repr(C)]
pub struct Connection {
    /// What waits to be sent and to be acknowledged.
    pub outbox: Option<Box<Outbox>>,
    /// Number of the newest delivery of this session.
    pub deliveries: u64,
    /// When the wheel will look at it; 0 is never.
    pub check_at: Tick,
    /// Its user, in the phases that have one; else [`Key::NONE`].
    pub user: Key,
    /// What its first byte told.
    pub protocol: Option<Protocol>,
    /// It is on the list of connections with something to send.
    pub dirty: bool,
    /// A question to the kernel about unacknowledged bytes is under way.
    pub probing: bool,
    /// Its user's messages come through the inbox now (as the user's flow says).
    pub drains: bool,
    /// The preface of a framed connection was read.
    pub preface_read: bool,
    /// Its input is being decoded right now: whoever comes upon it meanwhile leaves
    /// what is held to those who do that, who take the segments in order.
    pub reading: bool,
    /// More of what arrived with the segment received last is still to be received.
    pub cut: bool,
    /// It may hold more input than a share.
    pub granted: bool,
    /// It has had a user. Until then its time to log in runs, whatever it says.
    pub had_user: bool,
    /// Why it is not read.
    pub pause: Pause,
    /// When something was last received, milliseconds of the core's clock; until
    /// it has had a user, when it came; not before it failed, if it has.
    pub received_at_ms: u64,
    /// Bytes of an oversized frame still to be passed over; [`REST_OF_ARRIVAL`] of a
    /// classic ack.
    pub skip: u32,
    /// The peer has ended, and what it said before is still to be read.
    pub peer_ended: Option<CloseReason>,
    /// An operation on the socket failed for good, for this reason, and the receive has not told
    /// the end yet.
    pub failed: Option<CloseReason>,
    /// The turn in which it was read last; their numbers come round, and a turn that is
    /// taken for this one only makes it wait for the next.
    pub turn: u8,
    /// Bytes of `partial` that were looked through while its sends wait.
    pub looked: u32,
    /// Steps that it has taken of its shares, this turn's and, if it took more than one, those to come.
    pub spent: u8,
    /// A page is under way for a user that it is or was.
    pub paging: bool,
    /// The user's name, while it has one: a message is stamped without a look at
    /// the user itself.
    pub name: Option<Rc<str>>,
    /// What the user's messages have in common, see [`Origin`](super::ids::Origin).
    pub sender_id: u64,
    /// Where it stands.
    pub phase: Phase,
    /// Bytes of a command that is not complete, or not read yet because of a pause.
    pub partial: Vec<u8>,
    /// What came while it was not read, behind `partial`. What arrived at different times stays
    /// apart, since a classic login or ack ends where its arrival ends.
    pub held: VecDeque<Held>,
    /// What it wants to know of others, if it ever asked.
    pub interest: Option<Box<Interest>>,
}

// With its slot's generation, three cache lines.
const _: () = assert!(size_of::<Connection>() <= 184);

impl Connection {
    /// A connection that was accepted or arrived now.
    pub fn new(now_ms: u64) -> Connection {
        Connection {
            peer_ended: None,
            failed: None,
            turn: 0,
            looked: 0,
            spent: 0,
            protocol: None,
            phase: Phase::Open,
            pause: Pause::NO,
            user: Key::NONE,
            name: None,
            sender_id: 0,
            preface_read: false,
            dirty: false,
            probing: false,
            reading: false,
            skip: 0,
            partial: Vec::new(),
            held: VecDeque::new(),
            cut: false,
            outbox: None,
            deliveries: 0,
            drains: false,
            check_at: 0,
            granted: false,
            had_user: false,
            paging: false,
            received_at_ms: now_ms,
            interest: None,
        }
    }

    /// Whether what it says is read now.
    pub fn is_read(&self) -> bool {
        self.pause == Pause::NO && matches!(self.phase, Phase::Open | Phase::Session)
    }

    /// Whether it is not read for a reason that is not its own.
    pub fn is_held_up(&self) -> bool {
        self.pause.without(Pause::OUTBOX) != Pause::NO
    }

    /// Whether something is left of its share of this turn, which is `share` steps.
    #[inline(always)]
    pub fn has_share(&mut self, turn: u8, share: u8) -> bool {
        if self.turn != turn {
            self.turn = turn;
            self.spent = self.spent.saturating_sub(share);
        }
        self.spent < share
    }

    /// Whether what it holds was not read because others are not as far: it may be whole, and goes on as they do.
    pub fn waits_for_others(&self) -> bool {
        let others = Pause::LANE.with(Pause::TURN).with(Pause::STORE);
        let is_behind = !self.held.is_empty() || !self.is_read();
        self.pause.has(others.with(Pause::LOGIN)) || (self.pause == Pause::NO && is_behind)
    }

    /// Whether it cannot be closed: it is closing, or moves to another core.
    pub fn is_out_of_reach(&self) -> bool {
        matches!(self.phase, Phase::Closing(_) | Phase::HandingOver { .. })
    }

    /// Whether a user's session is attached to it.
    pub fn has_session(&self) -> bool {
        self.user != Key::NONE
    }

    /// Whether it speaks the framed protocol.
    pub fn is_framed(&self) -> bool {
        self.protocol == Some(Protocol::Framed)
    }

    /// Whether more arrived with what is read next than is read now, in front of `held`.
    pub fn goes_on(&self) -> bool {
        self.held.front().map_or(self.cut, |next| next.goes_on)
    }

    /// Memory of what it holds that was received and not read.
    pub fn unread_memory(&self) -> u64 {
        let held = self.held.iter();
        let held = held.map(|held| held.bytes.capacity() as u64 + HELD_PIECE_BYTES);
        self.partial.capacity() as u64 + held.sum::<u64>()
    }

    /// Length of the command that `partial` begins with, if it says so.
    pub fn command_len(&self) -> Option<usize> {
        match self.protocol? {
            Protocol::Classic => classic::send_len(&self.partial),
            Protocol::Framed => {
                let (length, _) = self.partial.split_first_chunk()?;
                let len = HEADER_LEN + u32::from_be_bytes(*length) as usize;
                self.preface_read.then_some(len)
            }
        }
    }
}
