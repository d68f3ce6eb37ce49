//! The client's loop: lines, bytes and losses come in as events; the session says what to write and
//! what to print.
//!
//! Runs on the main thread, which owns the session, the terminal's output and the socket's writing
//! side.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use iris_protocol::framed::{self, DecodeLimits, Decoded, Frame, PAYLOAD_BYTES_MAX, encode};

use super::line::{self, Input};
use super::link::Link;
use super::session::{End, Session};
use super::terminal::Terminal;
use crate::cli::Failure;

/// Events that may wait. A full channel stops the reading of the socket and of lines.
const EVENTS_MAX: usize = 64;
/// Sends without an answer, above which no further line is read.
const UNANSWERED_MAX: usize = 4096;
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// For a WELCOME after a login, and for a PONG after a PING.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// At the end of the input, how long to wait without anything coming.
const FINISH_TIME: Duration = Duration::from_secs(10);

/// What happened.
pub(super) enum Event {
    /// A line was typed.
    Line(String),
    /// No more lines.
    InputEnded,
    /// Lines cannot be read.
    InputFailed(String),
    /// Bytes of the gateway.
    Bytes {
        /// The connection they came on.
        link: u64,
        bytes: Vec<u8>,
    },
    /// A connection ended.
    Lost {
        /// Which one.
        link: u64,
        why: String,
    },
}

/// Chats until the user leaves or nothing more can be done.
pub(super) fn run(session: Session, server: String) -> Result<(), Failure> {
    let (sender, events) = mpsc::sync_channel(EVENTS_MAX);
    let (credit, credits) = mpsc::channel();
    let link = Link::open(&server, 1, sender.clone()).map_err(|error| {
        Failure::Run(format!(
            "cannot connect to {server}: {error}: is `iris` running there? (see --server)"
        ))
    })?;
    let terminal = Terminal::start(sender.clone(), credits)
        .map_err(|error| Failure::Run(format!("cannot use the terminal: {error}")))?;
    let mut client = Client {
        session,
        server,
        terminal,
        sender,
        links: 1,
        state: State::Away {
            until: Instant::now(),
            backoff: BACKOFF_MIN,
        },
        credit,
        credits_owed: 1,
        finishing: false,
        progress: Instant::now(),
    };
    client.connected(link)?;
    client.run(&events)
}

struct Client {
    session: Session,
    server: String,
    terminal: Terminal,
    sender: SyncSender<Event>,
    /// Connections so far.
    links: u64,
    state: State,
    /// One credit lets the terminal read one line.
    credit: mpsc::Sender<()>,
    credits_owed: usize,
    /// The input is over: leave when everything is answered.
    finishing: bool,
    /// When something last came or went on.
    progress: Instant,
}

enum State {
    Connected(Connection),
    /// To be tried again, after longer and longer times.
    Away {
        until: Instant,
        backoff: Duration,
    },
}

struct Connection {
    link: Link,
    /// Bytes of a frame that has not wholly come.
    partial: Vec<u8>,
    /// When the next PING is due.
    ping_at: Instant,
    /// When the gateway counts as gone unless it is heard.
    deadline: Option<Instant>,
}

impl Client {
    fn run(&mut self, events: &Receiver<Event>) -> Result<(), Failure> {
        loop {
            self.grant_credits();
            if self.finishing && self.session.is_finished() {
                return self.leave();
            }
            let wait = self
                .next_deadline()
                .saturating_duration_since(Instant::now());
            match events.recv_timeout(wait) {
                Ok(Event::Line(line)) => {
                    self.credits_owed += 1;
                    self.progress = Instant::now();
                    match line::parse(&line) {
                        Ok(Input::Quit) => return self.leave(),
                        Ok(input) => self.session.typed(&input),
                        Err(problem) => self.session.lines.push(problem),
                    }
                }
                Ok(Event::InputEnded) if self.terminal.is_interactive() => return self.leave(),
                Ok(Event::InputEnded) => self.finishing = true,
                Ok(Event::InputFailed(why)) => {
                    return Err(Failure::Run(format!("cannot read lines: {why}")));
                }
                Ok(Event::Bytes { link, bytes }) => self.arrived(link, &bytes)?,
                Ok(Event::Lost { link, why }) if self.is_current(link) => {
                    self.lost(&why, Duration::ZERO)?
                }
                Ok(Event::Lost { .. }) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.leave(),
            }
            self.keep_time()?;
            self.flush()?;
        }
    }

    /// Lets the terminal read on as far as the gateway answers.
    fn grant_credits(&mut self) {
        let room = UNANSWERED_MAX.saturating_sub(self.session.unanswered());
        let grants = self.credits_owed.min(room);
        self.credits_owed -= grants;
        for _ in 0..grants {
            // Without a reader of lines nothing waits for it.
            let _ = self.credit.send(());
        }
    }

    fn is_current(&self, link: u64) -> bool {
        matches!(&self.state, State::Connected(connection) if connection.link.number == link)
    }

    /// When something is due although no event comes.
    fn next_deadline(&self) -> Instant {
        let due = match &self.state {
            State::Away { until, .. } => *until,
            State::Connected(connection) => {
                connection.deadline.map_or(connection.ping_at, |deadline| {
                    deadline.min(connection.ping_at)
                })
            }
        };
        if self.finishing {
            due.min(self.progress + FINISH_TIME)
        } else {
            due
        }
    }

    /// Does what is due.
    fn keep_time(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        if self.finishing && now >= self.progress + FINISH_TIME {
            return self.leave_unfinished();
        }
        match &mut self.state {
            State::Away { until, .. } if now < *until => Ok(()),
            State::Away { .. } => self.reconnect(),
            State::Connected(connection)
                if connection.deadline.is_some_and(|deadline| now >= deadline) =>
            {
                self.lost("the gateway does not answer", Duration::ZERO)
            }
            State::Connected(connection) if now >= connection.ping_at => {
                encode::ping(&mut self.session.out, self.links);
                connection.ping_at = now + self.session.ping_interval();
                connection.deadline.get_or_insert(now + ANSWER_TIME);
                Ok(())
            }
            State::Connected(_) => Ok(()),
        }
    }

    fn connected(&mut self, link: Link) -> Result<(), Failure> {
        let now = Instant::now();
        self.state = State::Connected(Connection {
            link,
            partial: Vec::new(),
            ping_at: now + self.session.ping_interval(),
            deadline: Some(now + ANSWER_TIME),
        });
        self.session.connected();
        self.flush()
    }

    fn reconnect(&mut self) -> Result<(), Failure> {
        self.links += 1;
        match Link::open(&self.server, self.links, self.sender.clone()) {
            Ok(link) => self.connected(link),
            Err(error) => self.lost(&format!("cannot connect: {error}"), Duration::ZERO),
        }
    }

    /// Bytes came: acts on every whole frame, prints, then acknowledges.
    fn arrived(&mut self, link: u64, bytes: &[u8]) -> Result<(), Failure> {
        let State::Connected(connection) = &mut self.state else {
            return Ok(());
        };
        if connection.link.number != link {
            return Ok(());
        }
        let now = Instant::now();
        connection.deadline = None;
        connection.partial.extend_from_slice(bytes);
        let was_logged_in = self.session.is_logged_in();
        let mut rest = connection.partial.as_slice();
        let mut end = None;
        while end.is_none() {
            match framed::decode(
                rest,
                &DecodeLimits {
                    payload_bytes_max: PAYLOAD_BYTES_MAX,
                },
            ) {
                Ok(Decoded::Incomplete) => break,
                Ok(Decoded::Frame(frame, len)) => {
                    // Answers to our own pings bring nothing further.
                    if !matches!(frame, Frame::Pong { .. }) {
                        self.progress = now;
                    }
                    end = self.session.received(&frame).err();
                    rest = rest.get(len..).unwrap_or_default();
                }
                Ok(Decoded::Skipped(len)) => rest = rest.get(len..).unwrap_or_default(),
                Ok(Decoded::Oversized { .. }) => {
                    end = Some(End::Final("a frame is too large".to_owned()))
                }
                Err(reason) => end = Some(End::Final(format!("not understood: {}", reason.text()))),
            }
        }
        if !rest.is_empty() {
            self.progress = now;
        }
        let consumed = connection.partial.len() - rest.len();
        connection.partial.drain(..consumed);
        if !was_logged_in && self.session.is_logged_in() {
            connection.ping_at = now + self.session.ping_interval();
        }
        match end {
            None => Ok(()),
            Some(End::Retry { why, after }) => self.lost(&why, after),
            Some(End::Final(why)) => {
                self.print()?;
                Err(Failure::Run(self.with_unanswered(why)))
            }
        }
    }

    /// The connection is gone: says so, and tries again later.
    fn lost(&mut self, why: &str, after: Duration) -> Result<(), Failure> {
        let backoff = match &self.state {
            State::Away { backoff, .. } => (*backoff * 2).min(BACKOFF_MAX),
            // One that never got as far as a login does not make the next try come sooner.
            State::Connected(_) if !self.session.is_logged_in() && self.links > 1 => {
                BACKOFF_MIN * 4
            }
            State::Connected(_) => BACKOFF_MIN,
        };
        let wait = backoff.max(after.min(BACKOFF_MAX));
        self.session.disconnected();
        self.session.lines.push(format!(
            "connection lost ({why}); trying again in {:.1} s",
            wait.as_secs_f32()
        ));
        self.state = State::Away {
            until: Instant::now() + wait,
            backoff,
        };
        self.print()
    }

    fn print(&mut self) -> Result<(), Failure> {
        for line in std::mem::take(&mut self.session.lines) {
            self.terminal.print(&line).map_err(|error| {
                Failure::Run(format!(
                    "cannot print: {error}: nothing more is acknowledged"
                ))
            })?;
        }
        Ok(())
    }

    /// Prints, acknowledges what was printed, writes.
    fn flush(&mut self) -> Result<(), Failure> {
        self.print()?;
        self.session.printed();
        let bytes = std::mem::take(&mut self.session.out);
        let State::Connected(connection) = &mut self.state else {
            return Ok(());
        };
        if bytes.is_empty() {
            return Ok(());
        }
        match connection.link.write(&bytes) {
            Ok(()) => Ok(()),
            Err(error) => self.lost(&error.to_string(), Duration::ZERO),
        }
    }

    /// Logs out.
    fn leave(&mut self) -> Result<(), Failure> {
        self.session.log_out();
        self.flush()?;
        match self.session.unanswered() {
            0 => Ok(()),
            _ => Err(Failure::Run(self.with_unanswered("left".to_owned()))),
        }
    }

    fn leave_unfinished(&mut self) -> Result<(), Failure> {
        self.leave()?;
        Err(Failure::Run(
            "left before the inbox was read: it keeps the rest".to_owned(),
        ))
    }

    fn with_unanswered(&self, why: String) -> String {
        match self.session.unanswered() {
            0 => why,
            count => {
                let (sends, have) = if count == 1 {
                    ("send", "has")
                } else {
                    ("sends", "have")
                };
                format!("{why}; {count} {sends} {have} no answer and may or may not have arrived")
            }
        }
    }
}
