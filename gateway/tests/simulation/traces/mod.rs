//! Short exact traces of the shard: what a schedule meets too rarely, or what is
//! about one bound. Each says what a peer does and what must come of it.

mod collisions;
mod ends;
mod full_sessions;
mod inbox;
mod limits;
mod presence;
mod reads;
mod refusals;
mod sessions;

use iris_gateway::shard::budget::{Budgets, alone};
use iris_gateway::shard::{Effect, Key, Limits, Now, Shard, ShardOptions};
use iris_protocol::framed;
use iris_protocol::{CloseReason, Name, classic};
use iris_storage::{NameKey, Reply, Request, record};

use crate::world::Everybody;

/// One core, driven by hand: what is sent is taken at once, unless told otherwise.
struct Trace {
    shard: Shard,
    now_ms: u64,
    /// What the shard asked for and nobody has looked at yet.
    asked: Vec<Effect>,
    store: Vec<Request>,
}

impl Trace {
    fn new(limits: Limits) -> Trace {
        Trace::of_cores(1, limits)
    }

    /// The first of so many cores.
    fn of_cores(cores: u16, limits: Limits) -> Trace {
        Trace::made(cores, limits, alone::budgets(1 << 30, 1 << 30))
    }

    fn within(limits: Limits, budgets: Budgets) -> Trace {
        Trace::made(1, limits, budgets)
    }

    fn made(cores: u16, limits: Limits, budgets: Budgets) -> Trace {
        let mut shard = Shard::new(ShardOptions {
            core: 0,
            cores,
            name_key: NameKey::new(1),
            first_number: 1,
            limits,
            budgets,
            authenticator: Box::new(Everybody),
        });
        shard.set_now(Now {
            core_ms: 0,
            unix_ms: 1_700_000_000_000,
        });
        Trace {
            shard,
            now_ms: 0,
            asked: Vec::new(),
            store: Vec::new(),
        }
    }

    fn effects(&mut self) {
        let effects = std::mem::take(self.shard.effects());
        self.asked.extend(effects.connections);
        self.store.extend(effects.store);
    }

    /// In a turn of its own.
    fn received(&mut self, id: Key, segment: &[u8]) {
        self.shard.begin_turn();
        self.shard.received(id, segment);
        while self.shard.read_waiting() {}
        self.effects();
    }

    /// Lets time pass in steps that every timer can follow.
    fn wait(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            self.now_ms = (self.now_ms + 100).min(until_ms);
            self.shard.set_now(Now {
                core_ms: self.now_ms,
                unix_ms: 1_700_000_000_000 + self.now_ms,
            });
            self.shard.tick();
            self.effects();
        }
    }

    /// Everything the connection may send now is taken by its kernel.
    fn take_sent(&mut self, id: Key) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.shard.next_dirty().is_some() {}
        while let Some(next) = self.shard.next_send(id) {
            let rest = next.chunk[next.from..].to_vec();
            if next.probe_first {
                self.asked.push(Effect::Probe(id));
            }
            drop(next);
            self.shard.sent(id, rest.len());
            bytes.extend(rest);
        }
        self.effects();
        bytes
    }

    /// The store does all it was asked, finding every inbox empty.
    fn store_replies(&mut self) {
        let mut sequence = 1;
        while !self.store.is_empty() {
            for request in std::mem::take(&mut self.store) {
                let reply = match request {
                    Request::Append { token, .. } => {
                        sequence += 1;
                        Reply::Appended { token, sequence }
                    }
                    Request::Burn { token, .. } => Reply::Burned { token },
                    Request::Seen { .. } => continue,
                    // All it was asked is done already.
                    Request::Cancel { .. } => continue,
                    Request::Page { token, from, .. } => Reply::Page {
                        token,
                        messages: Vec::new(),
                        next: from,
                        end: true,
                        lost: 0,
                    },
                    Request::Account { token, .. } => Reply::Account {
                        token,
                        messages: 0,
                        bytes: 0,
                        last_seen_ms: 0,
                    },
                };
                self.shard.stored(reply);
            }
            self.effects();
        }
    }

    fn classic(&mut self, name: &str) -> Key {
        let id = self.shard.accepted();
        self.received(id, &classic_login(name));
        self.store_replies();
        assert_eq!(self.take_sent(id), classic::LOGIN_OK);
        self.peer_has_the_answer(id);
        id
    }

    /// The answer to a classic login has stood alone long enough, and the peer has it.
    fn peer_has_the_answer(&mut self, id: Key) {
        self.wait(5);
        self.shard.probed(id, Some(0));
        self.effects();
    }

    fn framed(&mut self, name: &str) -> Key {
        let id = self.shard.accepted();
        self.received(id, &framed_login(name));
        self.store_replies();
        self.take_sent(id);
        id
    }

    fn is_closed_for(&self, id: Key, reason: CloseReason) -> bool {
        self.shard.closing_reason(id) == Some(reason) && self.asked.contains(&Effect::Close(id))
    }
}

fn name_of(name: &str) -> Name<'_> {
    Name::parse(name.as_bytes()).expect("a good name")
}

fn classic_login(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    classic::encode_login(&mut out, name_of(name));
    out
}

fn framed_login(name: &str) -> Vec<u8> {
    let mut out = framed::PREFACE.to_vec();
    framed::encode::login(&mut out, name_of(name), b"");
    out
}

fn classic_send(target: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    classic::encode_send(&mut out, name_of(target), payload);
    out
}

fn framed_send(sequence: u64, target: &str) -> Vec<u8> {
    let mut out = Vec::new();
    framed::encode::send(&mut out, sequence, 0, target.as_bytes(), b"a message");
    out
}

fn framed_ack(delivery: u64) -> Vec<u8> {
    let mut out = Vec::new();
    framed::encode::ack(&mut out, delivery);
    out
}

impl Trace {
    /// Anna, online, has been sent one message that she has not acknowledged.
    fn with_unacked() -> (Trace, Key, Key) {
        Trace::with_unacked_within(Limits::default())
    }

    fn with_unacked_within(limits: Limits) -> (Trace, Key, Key) {
        let mut trace = Trace::new(limits);
        let reader = trace.framed("anna");
        let sender = trace.framed("bert");
        trace.received(sender, &framed_send(1, "anna"));
        assert!(!trace.take_sent(reader).is_empty());
        assert!(trace.store.is_empty(), "it goes straight to her");
        (trace, reader, sender)
    }

    fn take_append(&mut self) -> u64 {
        match self.store.pop() {
            Some(Request::Append { token, .. }) if self.store.is_empty() => token,
            _ => panic!("one append and nothing else"),
        }
    }

    fn take_burn(&mut self) -> (u64, u64) {
        let is_burn = |request: &Request| matches!(request, Request::Burn { .. });
        let at = self.store.iter().position(is_burn).expect("a burn");
        match self.store.remove(at) {
            Request::Burn { token, head, .. } => (token, head),
            other => panic!("{other:?} is no burn"),
        }
    }

    fn store_says_depth(&mut self, token: u64, messages: u64) {
        self.shard.stored(Reply::Account {
            token,
            messages,
            bytes: 0,
            last_seen_ms: 0,
        });
        self.effects();
    }

    fn fail(&mut self, token: u64) {
        let error = iris_storage::FailureKind::Unwritable;
        self.shard.stored(Reply::Failed { token, error });
        self.effects();
    }
}

fn stored_message(sequence: u64, payload: &[u8]) -> iris_storage::StoredMessage {
    let mut bytes = Vec::new();
    let stored = record::NewRecord {
        id_sender: 1,
        id_number: sequence,
        sent_at_ms: 1,
        expires_at_ms: 0,
        sender: "bert",
        payload,
    };
    record::encode(&mut bytes, &stored);
    record::seal(&mut bytes, 1, 1).expect("a sound record");
    iris_storage::StoredMessage {
        sequence,
        record: bytes.as_slice().into(),
    }
}
