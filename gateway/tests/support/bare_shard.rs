//! One shard with nothing around it: classic users that are logged in and live,
//! and sockets that take every byte and acknowledge it at once. For measuring what
//! the shard itself costs.

use iris_gateway::shard::{Authenticator, BLOCK, Effect, Key, Limits, Now, Shard, ShardOptions};
use iris_protocol::{Name, classic};
use iris_storage::{Reply, Request};

pub struct Everybody;

impl Authenticator for Everybody {
    fn admits(&self, _user: &str, _credential: Option<&[u8]>) -> bool {
        true
    }
}

/// The shard, its users' connections, and one send for each of them.
pub struct BareShard {
    shard: Shard,
    connections: Vec<Key>,
    sends: Vec<Vec<u8>>,
    next: usize,
}

impl BareShard {
    /// So many users, each of whom sends 64 bytes to another.
    pub fn new(users: usize) -> BareShard {
        let mut shard = Shard::new(ShardOptions {
            core: 0,
            cores: 1,
            seed: 7,
            first_number: 1,
            limits: Limits::default(),
            authenticator: Box::new(Everybody),
        });
        shard.set_now(Now {
            core_ms: 1,
            unix_ms: 1_700_000_000_000,
        });
        let name = |user: usize| format!("user-{user}");
        let mut connections = Vec::new();
        let mut sends = Vec::new();
        for user in 0..users {
            let mut login = Vec::new();
            let own = name(user);
            classic::encode_login(&mut login, Name::parse(own.as_bytes()).expect("a name"));
            let key = shard.accepted();
            shard.received(key, &login);
            connections.push(key);
            let reader = name((user * 7_919 + 1) % users);
            let mut send = Vec::new();
            let reader = Name::parse(reader.as_bytes()).expect("a name");
            classic::encode_send(&mut send, reader, &[b'x'; 64]);
            sends.push(send);
        }
        let mut bare = BareShard {
            shard,
            connections,
            sends,
            next: 0,
        };
        // The store says that the inboxes are empty.
        let effects = std::mem::take(bare.shard.effects());
        for request in effects.store {
            if let Request::Page { token, from, .. } = request {
                bare.shard.stored(Reply::Page {
                    token,
                    messages: Vec::new(),
                    next: from,
                    end: true,
                    lost: 0,
                });
            }
        }
        bare.flush();
        bare
    }

    /// A turn in which so many messages are received, routed, sent and acknowledged.
    pub fn turn(&mut self, messages: usize) {
        self.shard.begin_turn();
        for _ in 0..messages.div_ceil(BLOCK) {
            let users = self.connections.len();
            let first = self.next;
            self.next = first.wrapping_add(104_729 * BLOCK);
            let block = (0..BLOCK).map(|n| first.wrapping_add(104_729 * n) % users);
            let segments = block
                .clone()
                .map(|at| (self.connections[at], &self.sends[at][..]));
            self.shard.expect_received(segments.clone());
            for (connection, segment) in segments {
                self.shard.received(connection, segment);
            }
        }
        self.flush();
    }

    /// Messages whose readers have them.
    pub fn delivered(&self) -> u64 {
        self.shard.metrics.delivered
    }

    fn flush(&mut self) {
        let mut until_expected = 0;
        loop {
            if until_expected == 0 {
                until_expected = self.shard.expect_sends().count();
            }
            until_expected = until_expected.saturating_sub(1);
            let Some(key) = self.shard.next_dirty() else {
                break;
            };
            while let Some(next) = self.shard.next_send(key) {
                let len = next.chunk.len() - next.from;
                drop(next.chunk);
                self.shard.sent(key, len);
                if next.probe_first {
                    self.shard.probed(key, Some(0));
                }
            }
        }
        for at in 0..self.shard.effects().connections.len() {
            if let Effect::Probe(key) = self.shard.effects().connections[at] {
                self.shard.probed(key, Some(0));
            }
        }
        self.shard.effects().connections.clear();
    }
}
