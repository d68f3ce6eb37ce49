//! One shard with nothing around it: users that are logged in and live, and sockets
//! that take every byte and acknowledge it at once. For measuring what the shard
//! itself costs.

use iris_gateway::shard::budget::alone;
use iris_gateway::shard::{Authenticator, BLOCK, Effect, Key, Limits, Now, Shard, ShardOptions};
use iris_protocol::{Name, classic};
use iris_storage::{NameKey, Reply, Request};

struct Everybody;

impl Authenticator for Everybody {
    fn admits(&self, _user: &str, _credential: Option<&[u8]>) -> bool {
        true
    }
}

/// The shard and its connections, whoever speaks on them.
pub struct Bare {
    shard: Shard,
    pub connections: Vec<Key>,
    next: usize,
}

impl Bare {
    /// A connection for each of these logins.
    pub fn new(logins: impl Iterator<Item = Vec<u8>>) -> Bare {
        let mut shard = Shard::new(ShardOptions {
            core: 0,
            cores: 1,
            name_key: NameKey::new(7),
            first_number: 1,
            limits: Limits::default(),
            budgets: alone::budgets(1 << 30, 1 << 30),
            authenticator: Box::new(Everybody),
        });
        shard.set_now(Now {
            core_ms: 1,
            unix_ms: 1_700_000_000_000,
        });
        let mut connections = Vec::new();
        for login in logins {
            let key = shard.accepted();
            shard.received(key, &login);
            connections.push(key);
        }
        let next = 0;
        let mut bare = Bare {
            shard,
            connections,
            next,
        };
        bare.find_inboxes_empty();
        bare.flush();
        // The answers to classic logins have stood alone for long enough.
        bare.shard.set_now(Now {
            core_ms: 100,
            unix_ms: 1_700_000_000_100,
        });
        bare.shard.tick();
        bare.flush();
        bare
    }

    /// The store says that the inboxes are empty: how deep they are, if it is asked, and
    /// then their pages.
    fn find_inboxes_empty(&mut self) {
        loop {
            let requests = std::mem::take(&mut self.shard.effects().store);
            if requests.is_empty() {
                break;
            }
            for request in requests {
                match request {
                    Request::Page { token, from, .. } => self.shard.stored(Reply::Page {
                        token,
                        messages: Vec::new(),
                        next: from,
                        end: true,
                        lost: 0,
                    }),
                    Request::Account { token, .. } => self.shard.stored(Reply::Account {
                        token,
                        messages: 0,
                        bytes: 0,
                        last_seen_ms: 0,
                    }),
                    _ => {}
                }
            }
        }
    }

    pub fn begin_turn(&mut self) {
        self.shard.begin_turn();
    }

    /// The connections that speak next, by their numbers.
    pub fn next_block(&mut self) -> impl Iterator<Item = usize> + Clone + use<> {
        let users = self.connections.len();
        let first = self.next;
        self.next = first.wrapping_add(104_729 * BLOCK);
        (0..BLOCK).map(move |n| first.wrapping_add(104_729 * n) % users)
    }

    /// A block of segments, each with the number of the connection it came on.
    pub fn receive<'a>(&mut self, block: impl Iterator<Item = (usize, &'a [u8])> + Clone) {
        let segments = block.map(|(at, segment)| (self.connections[at], segment));
        self.shard.expect_received(segments.clone());
        for (connection, segment) in segments {
            self.shard.received(connection, segment);
        }
    }

    /// Messages whose readers have them.
    pub fn delivered(&self) -> u64 {
        self.shard.metrics.delivered
    }

    /// What is to be sent is taken, and acknowledged at once.
    pub fn flush(&mut self) {
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

/// Classic users, and one send for each of them.
pub struct BareShard {
    bare: Bare,
    sends: Vec<Vec<u8>>,
}

impl BareShard {
    /// So many users, each of whom sends so many bytes to another.
    pub fn new(users: usize, message_bytes: usize) -> BareShard {
        let message = vec![b'x'; message_bytes];
        let name = |user: usize| format!("user-{user}");
        let logins = (0..users).map(|user| {
            let mut login = Vec::new();
            let own = name(user);
            classic::encode_login(&mut login, Name::parse(own.as_bytes()).expect("a name"));
            login
        });
        let sends = (0..users).map(|user| {
            let mut send = Vec::new();
            let reader = name((user * 7_919 + 1) % users);
            let reader = Name::parse(reader.as_bytes()).expect("a name");
            classic::encode_send(&mut send, reader, &message);
            send
        });
        BareShard {
            bare: Bare::new(logins),
            sends: sends.collect(),
        }
    }

    /// A turn in which so many messages are received, routed, sent and acknowledged.
    pub fn turn(&mut self, messages: usize) {
        self.bare.begin_turn();
        for _ in 0..messages.div_ceil(BLOCK) {
            let block = self.bare.next_block();
            self.bare.receive(block.map(|at| (at, &self.sends[at][..])));
        }
        self.bare.flush();
    }

    /// Messages whose readers have them.
    pub fn delivered(&self) -> u64 {
        self.bare.delivered()
    }
}
