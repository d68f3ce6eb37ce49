//! The client's side of a session, without I/O: lines and frames go in, bytes to write and lines to
//! print come out.
//!
//! Owned by the client's thread. Invariants: a send stays in `sends` until its answer came, and goes
//! out again, in order and with its number, after a reconnect; `ack_due` is taken only after the
//! lines before it were printed.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use iris_protocol::framed::{self, Frame, PREFACE, Presence, Welcome, encode};
use iris_protocol::{CloseReason, MessageId, Name, Outcome};

use super::clock;
use super::line::Input;
use super::terminal::printable;

/// Ids of deliveries that are remembered, so that a repeat is not printed twice. A repeat comes soon
/// after a reconnect, if at all.
const REMEMBERED_IDS: usize = 4096;

const HELP: &str = "@bob hello    /who bob    /follow bob    /unfollow bob    /quit";

/// One user's session, over any number of connections.
pub(super) struct Session {
    name: String,
    credential: Vec<u8>,
    /// Limits of the connection; `None` before its WELCOME.
    welcome: Option<Welcome>,
    next_sequence: u64,
    /// Unanswered sends by sequence number.
    sends: BTreeMap<u64, Pending>,
    /// How many of `sends` are out on the present connection.
    on_wire: usize,
    follows: BTreeSet<String>,
    /// Messages of the inbox that are still to come.
    inbox_left: u64,
    seen: HashSet<MessageId>,
    seen_order: VecDeque<MessageId>,
    ack_due: Option<u64>,
    /// Bytes to write.
    pub out: Vec<u8>,
    /// Lines to print.
    pub lines: Vec<String>,
}

struct Pending {
    target: String,
    text: String,
    on_wire: bool,
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Coming back makes sense, after this time at the earliest.
    Retry { why: String, after: Duration },
    /// Coming back would end the same way.
    Final(String),
}

impl Session {
    pub(super) fn new(name: String, credential: Vec<u8>) -> Session {
        Session {
            name,
            credential,
            welcome: None,
            next_sequence: clock::micros_now().max(1),
            sends: BTreeMap::new(),
            on_wire: 0,
            follows: BTreeSet::new(),
            inbox_left: 0,
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
            ack_due: None,
            out: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// The connection is gone, and with it what only had a meaning on it: what was to be written,
    /// and the deliveries that were not acknowledged. Those come again, under the same ids.
    pub(super) fn disconnected(&mut self) {
        self.out.clear();
        self.welcome = None;
        self.ack_due = None;
        self.inbox_left = 0;
        self.on_wire = 0;
        for pending in self.sends.values_mut() {
            pending.on_wire = false;
        }
    }

    /// A new connection: preface and login.
    pub(super) fn connected(&mut self) {
        self.disconnected();
        self.out.extend_from_slice(&PREFACE);
        // Checked when the command line was read.
        if let Ok(user) = Name::parse(self.name.as_bytes()) {
            encode::login(&mut self.out, user, &self.credential);
        }
    }

    /// Whether the gateway has let us in.
    pub(super) fn is_logged_in(&self) -> bool {
        self.welcome.is_some()
    }

    /// How often to ping so that the gateway does not think us gone.
    pub(super) fn ping_interval(&self) -> Duration {
        let idle_ms = self
            .welcome
            .map_or(30_000, |welcome| welcome.idle_timeout_ms);
        Duration::from_millis(u64::from(idle_ms / 3).clamp(200, 60_000))
    }

    /// Sends that have no answer yet.
    pub(super) fn unanswered(&self) -> usize {
        self.sends.len()
    }

    /// Whether everything that was to be sent is answered, and what waited in the inbox has come.
    pub(super) fn is_finished(&self) -> bool {
        self.is_logged_in() && self.sends.is_empty() && self.inbox_left == 0
    }

    /// Acts on a line that was typed. `Quit` is the caller's.
    pub(super) fn typed(&mut self, input: &Input<'_>) {
        match *input {
            Input::Empty | Input::Quit => {}
            Input::Help => self.lines.push(HELP.to_owned()),
            Input::Send { target, text } => {
                let pending = Pending {
                    target: target.to_owned(),
                    text: text.to_owned(),
                    on_wire: false,
                };
                self.sends.insert(self.next_sequence, pending);
                self.next_sequence += 1;
                self.send_waiting();
            }
            Input::Who(user) if self.is_logged_in() => {
                encode::presence_ask(&mut self.out, user.as_bytes())
            }
            Input::Who(_) => self.lines.push("not connected; ask again later".to_owned()),
            Input::Follow(user) => {
                self.follows.insert(user.to_owned());
                if self.is_logged_in() {
                    encode::follow(&mut self.out, user.as_bytes());
                }
            }
            Input::Unfollow(user) => {
                if self.follows.remove(user) && self.is_logged_in() {
                    encode::unfollow(&mut self.out, user.as_bytes());
                }
            }
        }
    }

    /// Puts waiting sends on the wire, as many as the gateway takes without an answer.
    fn send_waiting(&mut self) {
        let Some(welcome) = self.welcome else { return };
        let window = usize::try_from(welcome.unanswered_sends_max)
            .unwrap_or(usize::MAX)
            .max(1);
        if self.on_wire >= window {
            return;
        }
        for (sequence, pending) in self
            .sends
            .iter_mut()
            .filter(|(_, pending)| !pending.on_wire)
        {
            encode::send(
                &mut self.out,
                *sequence,
                0,
                pending.target.as_bytes(),
                pending.text.as_bytes(),
            );
            pending.on_wire = true;
            self.on_wire += 1;
            if self.on_wire >= window {
                break;
            }
        }
    }

    /// Acts on a frame of the gateway.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn received(&mut self, frame: &Frame<'_>) -> Result<(), End> {
        match *frame {
            Frame::Welcome(welcome) => self.welcomed(welcome),
            Frame::Answers(answers) => {
                for answer in answers {
                    self.answered(&answer);
                }
                self.send_waiting();
            }
            Frame::Deliver {
                delivery,
                id,
                sent_at_ms,
                sender,
                payload,
            } => {
                self.inbox_left = self.inbox_left.saturating_sub(1);
                self.ack_due = Some(delivery);
                if self.remember(id) {
                    let (from, text) = (printable(sender.as_bytes()), printable(payload));
                    self.lines.push(format!(
                        "{from}: {text}  (id {id}, {})",
                        clock::utc(sent_at_ms)
                    ));
                }
            }
            Frame::Ping { nonce } => encode::pong(&mut self.out, nonce),
            Frame::Pong { .. } => {}
            Frame::Presence { user, state } => self.lines.push(presence(user, state)),
            Frame::Error {
                code,
                subject,
                text,
            } => self.lines.push(format!(
                "error {code}: {} {}",
                printable(subject),
                if text.is_empty() { code.text() } else { text }
            )),
            Frame::Close {
                reason,
                retry_after_ms,
                text,
            } => return Err(end(reason, retry_after_ms, text)),
            // A client's frames, from the gateway: it is no gateway.
            _ => {
                return Err(End::Final(
                    "the other side does not behave like a gateway".to_owned(),
                ));
            }
        }
        Ok(())
    }

    fn welcomed(&mut self, welcome: Welcome) {
        self.welcome = Some(welcome);
        self.inbox_left = welcome.inbox_messages;
        let inbox = match welcome.inbox_messages {
            0 => "no messages waiting".to_owned(),
            1 => "1 message waiting".to_owned(),
            many => format!("{many} messages waiting"),
        };
        self.lines.push(format!(
            "logged in as {}, {inbox}; /help lists the commands",
            self.name
        ));
        for user in &self.follows {
            encode::follow(&mut self.out, user.as_bytes());
        }
        self.send_waiting();
    }

    fn answered(&mut self, answer: &framed::Answer) {
        let Some(pending) = self.sends.remove(&answer.sequence) else {
            return;
        };
        self.on_wire = self.on_wire.saturating_sub(usize::from(pending.on_wire));
        let target = printable(pending.target.as_bytes());
        let outcome = match answer.outcome {
            Outcome::Delivered => "delivered".to_owned(),
            Outcome::Stored => "stored".to_owned(),
            Outcome::Refused(reason) => format!("refused: {reason}, {}", reason.text()),
        };
        self.lines
            .push(format!("@{target} {outcome}  (id {})", answer.id));
    }

    /// Whether the id is new.
    fn remember(&mut self, id: MessageId) -> bool {
        if !self.seen.insert(id) {
            return false;
        }
        self.seen_order.push_back(id);
        if self.seen_order.len() > REMEMBERED_IDS
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    /// Acknowledges what has been printed.
    pub(super) fn printed(&mut self) {
        if let Some(delivery) = self.ack_due.take() {
            encode::ack(&mut self.out, delivery);
        }
    }

    /// Says goodbye.
    pub(super) fn log_out(&mut self) {
        encode::close(&mut self.out, CloseReason::LoggedOut, 0, "");
    }
}

fn presence(user: Name<'_>, state: Presence) -> String {
    let user = printable(user.as_bytes());
    match state {
        Presence::Online => format!("{user} is online"),
        Presence::Away { last_seen_ms: 0 } => format!("{user} is away, never seen"),
        Presence::Away { last_seen_ms } => {
            format!("{user} is away, last seen {}", clock::utc(last_seen_ms))
        }
    }
}

fn end(reason: CloseReason, retry_after_ms: u32, text: &str) -> End {
    let detail = if text.is_empty() {
        reason.text().to_owned()
    } else {
        printable(text.as_bytes())
    };
    let why = format!("{reason}: {detail}");
    match reason {
        CloseReason::Draining
        | CloseReason::PeerClosed
        | CloseReason::PeerReset
        | CloseReason::LoginTimeout
        | CloseReason::IdleTimeout
        | CloseReason::SlowReader
        | CloseReason::ServerFull
        | CloseReason::Overloaded
        | CloseReason::Storage
        | CloseReason::Unreachable
        | CloseReason::Internal => End::Retry {
            why,
            after: Duration::from_millis(u64::from(retry_after_ms)),
        },
        // Coming back would end the same way; after a takeover it would throw the other login out,
        // and so on in turns.
        _ => End::Final(why),
    }
}

#[cfg(test)]
mod tests;
