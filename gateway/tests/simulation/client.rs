//! Model clients of both protocols: they send, read, acknowledge late, vanish,
//! come back and repeat what was not answered.

use std::collections::{BTreeMap, VecDeque};

use iris_protocol::framed::{self, DecodeLimits, Decoded, Frame};
use iris_protocol::{Name, classic};

use crate::ledger::{Ledger, Message};
use crate::random::Random;
use crate::store::Store;

/// What a user's clients share: one numbers its messages over all sessions.
#[derive(Default)]
pub struct Account {
    pub framed: bool,
    pub next_number: u64,
    pub unanswered: BTreeMap<u64, (Message, Vec<u8>)>,
    /// The client that speaks for the user now.
    pub client: Option<usize>,
}

pub fn user_name(user: usize) -> String {
    format!("user-{user}")
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
            closed: false,
        }
    }

    /// The bytes of a login, and of all repeats that follow it.
    pub fn login(&mut self, user: usize, account: &Account) -> Vec<u8> {
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
        let padding_max = if random.one_in(8) { 900 } else { 20 };
        let payload = message.payload(random.below(padding_max));
        let target = user_name(target);
        let mut out = Vec::new();
        if self.framed {
            framed::encode::send(&mut out, message.number, 0, target.as_bytes(), &payload);
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
            return classic::LOGIN_OK.len();
        }
        let Some(end) = input.iter().position(|byte| *byte == b'>') else {
            return 0;
        };
        let reader = self.reader.expect("messages come after LOGIN_OK");
        ledger.arrived(reader, Message::parse(&input[..=end]));
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
                    assert_eq!(id.number, message.number, "a message keeps its id");
                }
                ledger.arrived(self.user, message);
            }
            Frame::Answers(answers) => {
                for answer in answers {
                    let account = &mut accounts[self.user];
                    if let Some((message, payload)) = account.unanswered.remove(&answer.sequence) {
                        let is_stored = store.committed.contains(&payload);
                        ledger.answered(message, answer.outcome, is_stored);
                    }
                }
            }
            Frame::Close { .. } => self.closed = true,
            Frame::Presence { .. } | Frame::Error { .. } | Frame::Pong { .. } => {}
            other => panic!("the server sent {other:?}"),
        }
        len
    }
}
