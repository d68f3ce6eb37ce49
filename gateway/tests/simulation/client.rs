//! Model clients of both protocols: they send, read, acknowledge late, vanish,
//! come back and repeat what was not answered.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use iris_protocol::framed::{self, DecodeLimits, Decoded, Frame, Presence};
use iris_protocol::{Name, classic};

use crate::ledger::{Ledger, Message};
use crate::random::Random;
use crate::store::Store;
use crate::world::OVERSIZED_BYTES;

/// What a user's clients share: one numbers its messages over all sessions.
#[derive(Default)]
pub struct Account {
    pub framed: bool,
    pub next_number: u64,
    pub unanswered: BTreeMap<u64, (Message, Vec<u8>)>,
    /// By sequence: how often it was sent and not answered, over all connections.
    pub owed: BTreeMap<u64, i64>,
    /// The client that speaks for the user now.
    pub client: Option<usize>,
}

pub fn user_name(user: usize) -> String {
    format!("user-{user}")
}

pub fn user_of(name: &str) -> usize {
    let number = name.strip_prefix("user-").expect("a name of this world");
    number.parse().expect("a name of this world")
}

/// One client, for as long as its socket lives.
pub struct Client {
    pub user: usize,
    pub framed: bool,
    pub socket: usize,
    pub welcome: bool,
    /// Users whose LOGIN_OK is still to come, in order.
    logins: VecDeque<usize>,
    /// The user whose messages come now.
    reader: Option<usize>,
    input: Vec<u8>,
    newest_delivery: u64,
    acked_delivery: u64,
    /// Everything that came on this framed connection.
    seen: HashSet<Message>,
    /// Deliveries whose acknowledgement the gateway is not known to have read.
    unread_acks: VecDeque<Message>,
    /// Sends by sequence, and answers, on this connection.
    sent: BTreeMap<u64, i64>,
    answered: BTreeMap<u64, i64>,
    /// Nonces of pings that were not answered, in order.
    pings: VecDeque<u64>,
    /// What it was told of the users it follows.
    pub follows: BTreeMap<usize, Option<bool>>,
    /// Users asked about while nothing changes: the answer is what was told.
    pub checks: BTreeSet<usize>,
    pub closed: bool,
}

impl Client {
    pub fn new(user: usize, framed: bool, socket: usize) -> Client {
        Client {
            user,
            framed,
            socket,
            welcome: false,
            logins: VecDeque::new(),
            reader: None,
            input: Vec::new(),
            newest_delivery: 0,
            acked_delivery: 0,
            seen: HashSet::new(),
            unread_acks: VecDeque::new(),
            sent: BTreeMap::new(),
            answered: BTreeMap::new(),
            pings: VecDeque::new(),
            follows: BTreeMap::new(),
            checks: BTreeSet::new(),
            closed: false,
        }
    }

    /// The bytes of a login, and of all repeats that follow it.
    pub fn login(&mut self, user: usize, account: &mut Account) -> Vec<u8> {
        self.user = user;
        let name = user_name(user);
        let name = Name::parse(name.as_bytes()).expect("a good name");
        let mut out = Vec::new();
        if self.framed {
            out.extend(framed::PREFACE);
            framed::encode::login(&mut out, name, b"");
            for (number, (message, payload)) in &account.unanswered {
                let target = user_name(message.target);
                framed::encode::send(&mut out, *number, 0, target.as_bytes(), payload);
                *self.sent.entry(*number).or_default() += 1;
                *account.owed.entry(*number).or_default() += 1;
            }
        } else {
            self.logins.push_back(user);
            classic::encode_login(&mut out, name);
        }
        out
    }

    pub fn send(
        &mut self,
        account: &mut Account,
        own: usize,
        target: usize,
        random: &mut Random,
    ) -> Vec<u8> {
        account.next_number += 1;
        let message = Message {
            sender: self.user,
            number: account.next_number,
            target,
            client: own,
        };
        let padding = match random.below(60) {
            0 => OVERSIZED_BYTES,
            1..8 => random.below(900),
            _ => random.below(20),
        };
        let payload = message.payload(padding);
        let target = user_name(target);
        let mut out = Vec::new();
        if self.framed {
            framed::encode::send(&mut out, message.number, 0, target.as_bytes(), &payload);
            *self.sent.entry(message.number).or_default() += 1;
            *account.owed.entry(message.number).or_default() += 1;
            account
                .unanswered
                .insert(message.number, (message, payload));
        } else {
            let target = Name::parse(target.as_bytes()).expect("a good name");
            classic::encode_send(&mut out, target, &payload);
        }
        out
    }

    /// An acknowledgement of some or all of what came.
    pub fn ack(&mut self, all: bool, random: &mut Random) -> Option<Vec<u8>> {
        let open = self.newest_delivery - self.acked_delivery;
        if !self.framed || open == 0 {
            return None;
        }
        self.acked_delivery += if all { open } else { 1 + random.next() % open };
        let mut out = Vec::new();
        framed::encode::ack(&mut out, self.acked_delivery);
        Some(out)
    }

    /// A ping, a question about a user, or the wish to be told of one, or no more.
    pub fn ask(&mut self, user: usize, random: &mut Random) -> Vec<u8> {
        let mut out = Vec::new();
        let name = user_name(user);
        match random.below(4) {
            0 => {
                let nonce = random.next();
                self.pings.push_back(nonce);
                framed::encode::ping(&mut out, nonce);
            }
            1 => framed::encode::presence_ask(&mut out, name.as_bytes()),
            2 => {
                self.follows.entry(user).or_default();
                framed::encode::follow(&mut out, name.as_bytes());
            }
            _ => {
                self.follows.remove(&user);
                framed::encode::unfollow(&mut out, name.as_bytes());
            }
        }
        out
    }

    /// Asks about everybody it follows, while nothing changes.
    pub fn check_follows(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for user in self.follows.keys() {
            self.checks.insert(*user);
            framed::encode::presence_ask(&mut out, user_name(*user).as_bytes());
        }
        out
    }

    /// Bytes that no client should send.
    pub fn garbage(&mut self, random: &mut Random) -> Vec<u8> {
        self.closed = true;
        match (self.framed, random.below(3)) {
            (true, 0) => vec![0xff; 9],
            (true, 1) => {
                let mut out = Vec::new();
                framed::encode::ack(&mut out, self.newest_delivery + 1_000);
                out
            }
            (true, _) => vec![0, 0, 0, 0, 0x7f, 0, 0, 0],
            (false, 0) => vec![0x07, 1, 2],
            (false, _) => vec![0x02, 0, 0, 0, 0],
        }
    }

    /// The gateway has read the acknowledgements of so many of its deliveries.
    pub fn was_acked(&mut self, count: u64, clients: usize, ledger: &mut Ledger) {
        if self.framed {
            let count = self.unread_acks.len().min(count as usize);
            for message in self.unread_acks.drain(..count) {
                if message.client >= ledger.first_client {
                    ledger.acked.entry(message).or_insert(clients);
                }
            }
        }
    }

    /// Reads what came.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        accounts: &mut [Account],
        ledger: &mut Ledger,
        store: &Store,
    ) {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while !rest.is_empty() {
            let taken = if self.framed {
                self.frame(rest, accounts, ledger, store)
            } else {
                self.classic(rest, ledger)
            };
            if taken == 0 {
                break;
            }
            rest = &rest[taken..];
        }
        self.input = rest.to_vec();
    }

    fn classic(&mut self, input: &[u8], ledger: &mut Ledger) -> usize {
        if input[0] == 0x03 {
            if input.len() < classic::LOGIN_OK.len() {
                return 0;
            }
            assert!(input.starts_with(classic::LOGIN_OK));
            self.reader = Some(self.logins.pop_front().expect("a login was sent"));
            self.welcome = true;
            let behind = &input[classic::LOGIN_OK.len()..];
            assert!(
                behind.is_empty() || behind[0] == 0x03,
                "nothing comes together with the answer but further answers"
            );
            return classic::LOGIN_OK.len();
        }
        let Some(end) = input.iter().position(|byte| *byte == b'>') else {
            return 0;
        };
        let reader = self.reader.expect("messages come after LOGIN_OK");
        ledger.arrived(reader, self.socket, Message::parse(&input[..=end]));
        end + 1
    }

    fn frame(
        &mut self,
        input: &[u8],
        accounts: &mut [Account],
        ledger: &mut Ledger,
        store: &Store,
    ) -> usize {
        let (frame, len) = match framed::decode(input, &DecodeLimits::READER) {
            Ok(Decoded::Frame(frame, len)) => (frame, len),
            Ok(Decoded::Incomplete) => return 0,
            other => panic!("the server sent {other:?}"),
        };
        match frame {
            Frame::Welcome(_) => self.welcome = true,
            Frame::Deliver {
                delivery,
                payload,
                id,
                ..
            } => {
                assert!(self.welcome, "a delivery before the welcome");
                assert_eq!(
                    delivery,
                    self.newest_delivery + 1,
                    "deliveries are numbered one by one"
                );
                self.newest_delivery = delivery;
                let message = Message::parse(payload);
                if accounts[message.sender].framed {
                    ledger.identified(id, (message.sender, message.number));
                }
                ledger.arrived(self.user, self.socket, message.clone());
                assert!(
                    self.seen.insert(message.clone())
                        || ledger.store_fails
                        || message.client < ledger.first_client,
                    "{message:?} came twice in one session"
                );
                self.unread_acks.push_back(message);
            }
            Frame::Answers(answers) => {
                for answer in answers {
                    let account = &mut accounts[self.user];
                    let owed = account.owed.entry(answer.sequence).or_default();
                    *owed -= 1;
                    assert!(
                        *owed >= 0,
                        "send {} has an answer too many",
                        answer.sequence
                    );
                    let sent = self.sent.get(&answer.sequence).copied().unwrap_or(0);
                    let answered = self.answered.entry(answer.sequence).or_default();
                    *answered += 1;
                    // One may be for a send of an earlier connection.
                    assert!(
                        *answered <= sent + 1,
                        "send {} has {answered} answers here, and was sent {sent} times",
                        answer.sequence
                    );
                    ledger.identified(answer.id, (self.user, answer.sequence));
                    if let Some((message, payload)) = account.unanswered.remove(&answer.sequence) {
                        let is_stored = store.committed.contains(&payload);
                        ledger.answered(message, answer.outcome, is_stored);
                    }
                }
            }
            Frame::Close { .. } => self.closed = true,
            Frame::Pong { nonce } => {
                assert_eq!(self.pings.pop_front(), Some(nonce), "pongs come in order");
            }
            Frame::Presence { user, state } => {
                let user = user_of(user.as_str());
                let is_online = matches!(state, Presence::Online);
                // Answers about different users come in any order.
                if self.checks.remove(&user)
                    && let Some(Some(told)) = self.follows.get(&user)
                {
                    assert_eq!(*told, is_online, "a follower was told wrong of {user}");
                }
                if let Some(told) = self.follows.get_mut(&user) {
                    *told = Some(is_online);
                }
            }
            Frame::Error { subject, .. } => {
                // Too many of something: it does not follow after all, or not surely.
                let subject = std::str::from_utf8(subject).expect("a name that was sent");
                self.follows.remove(&user_of(subject));
            }
            other => panic!("the server sent {other:?}"),
        }
        len
    }
}
