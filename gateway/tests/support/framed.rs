//! A client of the framed protocol: what it hears is kept until somebody asks for it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use iris_protocol::framed::{
    self, Answer, DecodeLimits, Decoded, Frame, PREFACE, Presence, Welcome, encode,
};
use iris_protocol::{CloseReason, ErrorCode, MessageId, Name, Outcome};

use super::PATIENCE;

/// A message as its reader gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Number in this session.
    pub delivery: u64,
    /// The same each time it comes.
    pub id: MessageId,
    /// When the gateway took it.
    pub sent_at_ms: u64,
    /// Who sent it.
    pub sender: String,
    /// What.
    pub payload: Vec<u8>,
}

impl Message {
    /// The payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// Something the gateway said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Welcome(Welcome),
    Answer(Answer),
    Deliver(Message),
    Ping(u64),
    Pong(u64),
    Presence(String, Presence),
    Error(ErrorCode, Vec<u8>),
    Close(CloseReason, u32),
    /// The connection ended.
    End,
}

/// A connection that speaks framed.
pub struct Framed {
    stream: TcpStream,
    input: Vec<u8>,
    heard: VecDeque<Event>,
    next_sequence: u64,
}

impl Framed {
    /// Connects and says nothing.
    pub fn connect(address: SocketAddr) -> Framed {
        Framed::over(TcpStream::connect(address).expect("connected"))
    }

    /// On a socket that is connected already.
    pub fn over(stream: TcpStream) -> Framed {
        stream.set_nodelay(true).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
        Framed {
            stream,
            input: Vec::new(),
            heard: VecDeque::new(),
            next_sequence: micros_now(),
        }
    }

    /// Connects and logs in.
    #[track_caller]
    pub fn login(address: SocketAddr, user: &str) -> Framed {
        Framed::login_depth(address, user).0
    }

    /// The same with a gateway that may be gone at any moment.
    pub fn try_login(address: SocketAddr, user: &str) -> Option<Framed> {
        let mut client = Framed::over(TcpStream::connect(address).ok()?);
        let mut out = PREFACE.to_vec();
        encode::login(&mut out, Name::parse(user.as_bytes()).expect("a name"), b"");
        client.try_say(&out).ok()?;
        match client.hears() {
            Event::Welcome(_) => Some(client),
            Event::End => None,
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// Logs in, and says how many messages are in the inbox.
    #[track_caller]
    pub fn login_depth(address: SocketAddr, user: &str) -> (Framed, u64) {
        let mut client = Framed::connect(address);
        let welcome = client.logs_in(user, b"");
        (client, welcome.inbox_messages)
    }

    /// Logs in on a connection that has said nothing yet.
    #[track_caller]
    pub fn logs_in(&mut self, user: &str, credential: &[u8]) -> Welcome {
        self.asks_in(user, credential);
        match self.hears() {
            Event::Welcome(welcome) => welcome,
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// Sends preface and login.
    pub fn asks_in(&mut self, user: &str, credential: &[u8]) {
        let user = Name::parse(user.as_bytes()).expect("a name");
        let mut out = PREFACE.to_vec();
        encode::login(&mut out, user, credential);
        self.say(&out);
    }

    /// Writes bytes.
    pub fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("written");
    }

    /// Writes bytes that the gateway may not want any more.
    pub fn try_say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a message with the next sequence number, which it returns.
    pub fn send(&mut self, target: &str, payload: &[u8]) -> u64 {
        let sequence = self.next_sequence;
        self.send_as(sequence, target, payload);
        sequence
    }

    /// Sends a message with this sequence number.
    pub fn send_as(&mut self, sequence: u64, target: &str, payload: &[u8]) {
        self.send_within(sequence, 0, target, payload);
    }

    /// The same with a time to live.
    pub fn send_within(&mut self, sequence: u64, ttl_seconds: u32, target: &str, payload: &[u8]) {
        self.next_sequence = self.next_sequence.max(sequence + 1);
        let mut out = Vec::new();
        encode::send(&mut out, sequence, ttl_seconds, target.as_bytes(), payload);
        self.say(&out);
    }

    /// Acknowledges.
    pub fn ack(&mut self, delivery: u64) {
        let mut out = Vec::new();
        encode::ack(&mut out, delivery);
        self.say(&out);
    }

    /// The next thing the gateway says.
    #[track_caller]
    pub fn hears(&mut self) -> Event {
        self.hears_within(PATIENCE).expect("something in time")
    }

    /// The same, if it comes in time.
    pub fn hears_within(&mut self, time: Duration) -> Option<Event> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(event) = self.heard.pop_front() {
                return Some(event);
            }
            if !self.reads(deadline) {
                return None;
            }
        }
    }

    /// The next thing that `pick` takes; what comes before it is kept, in order.
    #[track_caller]
    pub fn hears_such<T>(&mut self, pick: impl Fn(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut looked_at = 0;
        loop {
            while let Some(event) = self.heard.get(looked_at) {
                if let Some(value) = pick(event) {
                    self.heard.remove(looked_at);
                    return value;
                }
                let is_over = *event == Event::End;
                assert!(!is_over, "it ended; heard before: {:?}", self.heard);
                looked_at += 1;
            }
            let in_time = self.reads(deadline);
            assert!(in_time, "not in time; heard instead: {:?}", self.heard);
        }
    }

    /// The answer to this send.
    #[track_caller]
    pub fn answer(&mut self, sequence: u64) -> Answer {
        self.hears_such(|event| match event {
            Event::Answer(answer) if answer.sequence == sequence => Some(*answer),
            _ => None,
        })
    }

    /// The outcome of this send.
    #[track_caller]
    pub fn outcome(&mut self, sequence: u64) -> Outcome {
        self.answer(sequence).outcome
    }

    /// Sends a message and waits for what becomes of it.
    #[track_caller]
    pub fn sends(&mut self, target: &str, payload: &[u8]) -> Outcome {
        let sequence = self.send(target, payload);
        self.outcome(sequence)
    }

    /// Sends a message to a reader who is online. Right behind a login it may take the way through
    /// the inbox, so either answer is good.
    #[track_caller]
    pub fn gets_through(&mut self, target: &str, payload: &[u8]) {
        let outcome = self.sends(target, payload);
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }

    /// How many messages are in a user's inbox, once what was acknowledged has left it.
    #[track_caller]
    pub fn inbox_becomes(address: SocketAddr, user: &str, messages: u64) {
        super::eventually("the depth of the inbox", || {
            let (client, depth) = Framed::login_depth(address, user);
            client.leave();
            (depth == messages).then_some(())
        });
    }

    /// Sends messages to a reader who is online until they go straight through: what comes right
    /// behind a login may still go through the inbox. The reader takes them.
    #[track_caller]
    pub fn warms_up(&mut self, target: &str, mut take: impl FnMut()) {
        for _ in 0..100 {
            let sequence = self.send(target, b"warm");
            take();
            if self.outcome(sequence) == Outcome::Delivered {
                return;
            }
        }
        panic!("{target} is never reached directly");
    }

    /// The next message.
    #[track_caller]
    pub fn receives(&mut self) -> Message {
        self.hears_such(|event| match event {
            Event::Deliver(message) => Some(message.clone()),
            _ => None,
        })
    }

    /// The next message, acknowledged.
    #[track_caller]
    pub fn takes(&mut self) -> Message {
        let message = self.receives();
        self.ack(message.delivery);
        message
    }

    /// Why the gateway closes, and when it may be come back to.
    #[track_caller]
    pub fn is_closed(&mut self) -> (CloseReason, u32) {
        self.hears_such(|event| match event {
            Event::Close(reason, retry_after_ms) => Some((*reason, *retry_after_ms)),
            _ => None,
        })
    }

    /// A PONG comes back, so everything said before has been read and acted upon.
    #[track_caller]
    pub fn is_heard(&mut self) {
        let mut out = Vec::new();
        encode::ping(&mut out, 0x6972_6973);
        self.say(&out);
        self.hears_such(|event| (*event == Event::Pong(0x6972_6973)).then_some(()));
    }

    /// Nothing comes for a while, and the connection stays.
    #[track_caller]
    pub fn hears_nothing_for(&mut self, time: Duration) {
        if let Some(event) = self.hears_within(time) {
            panic!("it heard {event:?}");
        }
    }

    /// Logs out and waits for the gateway's end of the connection, so that nothing is under way.
    #[track_caller]
    pub fn leave(mut self) {
        let mut out = Vec::new();
        encode::close(&mut out, CloseReason::LoggedOut, 0, "");
        self.say(&out);
        while self.hears() != Event::End {}
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads what has come, or waits for it; says whether anything came in time.
    fn reads(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        self.stream.set_read_timeout(Some(left)).expect("set");
        let mut piece = [0; 64 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => self.heard.push_back(Event::End),
            Ok(len) => {
                self.input.extend_from_slice(&piece[..len]);
                self.decode();
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.heard.push_back(Event::End);
            }
            Err(error) => panic!("{error}"),
        }
        true
    }

    fn decode(&mut self) {
        let mut at = 0;
        while let Decoded::Frame(frame, len) =
            framed::decode(&self.input[at..], &DecodeLimits::READER).expect("a sound frame")
        {
            at += len;
            self.heard.extend(match frame {
                Frame::Answers(answers) => answers.map(Event::Answer).collect(),
                frame => vec![event(&frame)],
            });
        }
        self.input.drain(..at);
    }
}

/// Where a client that keeps no counter starts: above all that its user sent before.
fn micros_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_micros() as u64
}

fn event(frame: &Frame<'_>) -> Event {
    match *frame {
        Frame::Welcome(welcome) => Event::Welcome(welcome),
        Frame::Deliver {
            delivery,
            id,
            sent_at_ms,
            sender,
            payload,
        } => Event::Deliver(Message {
            delivery,
            id,
            sent_at_ms,
            sender: sender.as_str().to_owned(),
            payload: payload.to_vec(),
        }),
        Frame::Ping { nonce } => Event::Ping(nonce),
        Frame::Pong { nonce } => Event::Pong(nonce),
        Frame::Presence { user, state } => Event::Presence(user.as_str().to_owned(), state),
        Frame::Error { code, subject, .. } => Event::Error(code, subject.to_vec()),
        Frame::Close {
            reason,
            retry_after_ms,
            ..
        } => Event::Close(reason, retry_after_ms),
        other => panic!("not a server's frame: {other:?}"),
    }
}
