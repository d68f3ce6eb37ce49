//! The same with framed users: each segment begins with the acknowledgement of what its user
//! was delivered, and has several sends behind it.

use iris_gateway::shard::{BLOCK, Key, Limits, Now, Shard, ShardOptions};
use iris_protocol::{Name, framed};
use iris_storage::{Reply, Request};

use super::bare_shard::Everybody;

/// Sends of one segment.
pub const SENDS: usize = 10;

/// The shard, its users, and what they have been delivered.
pub struct BareFramed {
    shard: Shard,
    connections: Vec<Key>,
    names: Vec<String>,
    /// Delivered to each, as far as its socket has it.
    delivered: Vec<u64>,
    sequence: u64,
    next: usize,
    segments: Vec<Vec<u8>>,
}

impl BareFramed {
    /// So many users, each of whom sends 64 bytes to many others.
    pub fn new(users: usize) -> BareFramed {
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
        let names: Vec<String> = (0..users).map(|user| format!("user-{user}")).collect();
        let mut connections = Vec::new();
        for name in &names {
            let mut login = framed::PREFACE.to_vec();
            framed::encode::login(
                &mut login,
                Name::parse(name.as_bytes()).expect("a name"),
                b"",
            );
            let key = shard.accepted();
            shard.received(key, &login);
            connections.push(key);
        }
        let mut bare = BareFramed {
            shard,
            connections,
            names,
            delivered: vec![0; users],
            sequence: 0,
            next: 0,
            segments: vec![Vec::new(); BLOCK],
        };
        // The store says that the inboxes are empty, first how deep they are, then their pages.
        loop {
            let requests = std::mem::take(&mut bare.shard.effects().store);
            if requests.is_empty() {
                break;
            }
            for request in requests {
                match request {
                    Request::Page { token, from, .. } => bare.shard.stored(Reply::Page {
                        token,
                        messages: Vec::new(),
                        next: from,
                        end: true,
                        lost: 0,
                    }),
                    Request::Account { token, .. } => bare.shard.stored(Reply::Account {
                        token,
                        messages: 0,
                        bytes: 0,
                        last_seen_ms: 0,
                    }),
                    _ => {}
                }
            }
        }
        bare.flush();
        bare
    }

    /// A turn in which so many messages are received, routed, sent, acknowledged and answered.
    pub fn turn(&mut self, messages: usize) {
        self.shard.begin_turn();
        let users = self.connections.len();
        let mut reached = Vec::with_capacity(messages);
        for _ in 0..messages.div_ceil(BLOCK * SENDS) {
            let first = self.next;
            self.next = first.wrapping_add(104_729 * BLOCK);
            let block = (0..BLOCK).map(|n| first.wrapping_add(104_729 * n) % users);
            for (segment, sender) in self.segments.iter_mut().zip(block.clone()) {
                segment.clear();
                framed::encode::ack(segment, self.delivered[sender]);
                for nth in 1..=SENDS {
                    self.sequence += 1;
                    let reader = (sender * 7_919 + nth * 31) % users;
                    let name = self.names[reader].as_bytes();
                    framed::encode::send(segment, self.sequence, 0, name, &[b'x'; 64]);
                    reached.push(reader);
                }
            }
            let segments = block
                .zip(&self.segments)
                .map(|(at, segment)| (self.connections[at], &segment[..]));
            self.shard.expect_received(segments.clone());
            for (connection, segment) in segments {
                self.shard.received(connection, segment);
            }
        }
        self.flush();
        for reader in reached {
            self.delivered[reader] += 1;
        }
    }

    /// Messages whose readers have acknowledged them.
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
            }
        }
        self.shard.effects().connections.clear();
    }
}
