//! The world around the shards: sockets, lanes, the store and the clients, all
//! moved by one seeded generator.

mod sockets;

use std::collections::{HashMap, VecDeque};

use iris_gateway::shard::budget::alone::Plain;
use iris_gateway::shard::budget::{Budget, Budgets};
use iris_gateway::shard::{Authenticator, Key, Limits, Now, Rate, Shard, ShardOptions};
use iris_protocol::RefusalReason;
use iris_storage::NameKey;

use crate::client::{Account, Client};
use crate::ledger::Ledger;
use crate::random::Random;
use crate::store::Store;
use sockets::Socket;

pub struct Everybody;

/// Largest payload that is taken, and one that is not.
pub const PAYLOAD_BYTES_MAX: usize = 1_000;
pub const OVERSIZED_BYTES: usize = 1_300;

impl Authenticator for Everybody {
    fn admits(&self, _user: &str, _credential: Option<&[u8]>) -> bool {
        true
    }
}

pub struct World {
    pub random: Random,
    pub now_ms: u64,
    pub shards: Vec<Shard>,
    lanes: HashMap<(usize, usize), VecDeque<Vec<u8>>>,
    pub store: Store,
    pub sockets: Vec<Socket>,
    by_connection: HashMap<(usize, Key), usize>,
    pub clients: Vec<Client>,
    pub accounts: Vec<Account>,
    pub ledger: Ledger,
    limits: Limits,
    pub input: Plain,
    pub output: Plain,
    seed: u64,
    lives: u64,
    /// Moves between cores may fail.
    pub moves_fail: bool,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let cores = 1 + random.below(4);
        let users = 2 + random.below(4);
        let limits = Limits {
            outbox_bytes_max: [400, 2_000, 100_000][random.below(3)],
            unacked_deliveries_max: [4, 16, 1000][random.below(3)],
            unanswered_sends_max: [3, 20, 1000][random.below(3)],
            lane_batch_bytes_max: [200, 1_000, 100_000][random.below(3)],
            store_pending_bytes_max: [9_000, 3_000_000][random.below(2)],
            remembered_answers_max: 64,
            departed_max: 65_536,
            idle_timeout_ms: 30_000,
            payload_bytes_max: PAYLOAD_BYTES_MAX as u32,
            share_steps: [4, 32, 200][random.below(3)],
            follows_max: [2, 128][random.below(2)],
            followers_max: [1, 4096][random.below(2)],
            inquiries_max: [2, 64][random.below(2)],
            relogins: Rate {
                burst: [1, 1_000][random.below(2)],
                per_second: [10, 100][random.below(2)],
            },
            ..Limits::default()
        };
        let (input, output) = (Plain::default(), Plain::default());
        input.max.set([20_000, 400_000][random.below(2)]);
        output.max.set([100_000, 10_000_000][random.below(2)]);
        let fails_one_in = [0, 0, 0, 7][random.below(4)];
        let accounts = (0..users)
            .map(|_| Account {
                framed: !random.one_in(3),
                ..Account::default()
            })
            .collect();
        let mut world = World {
            random,
            now_ms: 0,
            shards: Vec::new(),
            lanes: HashMap::new(),
            store: Store::new(cores, fails_one_in),
            sockets: Vec::new(),
            by_connection: HashMap::new(),
            clients: Vec::new(),
            accounts,
            ledger: Ledger::default(),
            limits,
            input,
            output,
            seed,
            lives: 0,
            moves_fail: true,
        };
        world.store.inbox_messages_max = [usize::MAX, usize::MAX, 6][world.random.below(3)];
        world.start(cores);
        world
    }

    /// Nothing is refused because something is slow, but what is more than a framed user may leave unanswered.
    pub fn check_nothing_is_shed(&self) {
        if self.limits.unanswered_sends_max < 1_000 {
            return;
        }
        for shard in &self.shards {
            let reason = RefusalReason::Overloaded;
            assert_eq!(shard.metrics.refused[reason.index()], 0);
        }
    }

    /// A gateway begins, on whatever the store holds.
    fn start(&mut self, cores: usize) {
        self.lives += 1;
        self.input.leased.set(0);
        self.output.leased.set(0);
        self.shards = (0..cores)
            .map(|core| {
                Shard::new(ShardOptions {
                    core: core as u16,
                    cores: cores as u16,
                    name_key: NameKey::new(self.seed.into()),
                    first_number: self.lives << 32,
                    limits: self.limits.clone(),
                    budgets: Budgets {
                        input: Budget::new(Box::new(self.input.clone())),
                        output: Budget::new(Box::new(self.output.clone())),
                    },
                    authenticator: Box::new(Everybody),
                })
            })
            .collect();
        self.tick(0);
    }

    /// The process is killed and another one starts. What the store had synced
    /// stays; what was queued there may or may not have been; all else is gone.
    pub fn crash(&mut self) {
        while self.random.one_in(2) {
            self.store.commit(&mut self.random);
        }
        self.store.crash();
        self.end_of_process();
    }

    fn end_of_process(&mut self) {
        // What was acknowledged and not burned may come again, with the same ids; and
        // a send that is repeated now is not known any more.
        self.ledger.acked.clear();
        self.ledger.first_client = self.clients.len();
        self.lanes.clear();
        self.by_connection.clear();
        for client in &mut self.clients {
            let socket = &self.sockets[client.socket];
            client.closed |= socket.is_open();
        }
        for socket in &mut self.sockets {
            socket.cut_off(&mut self.random);
        }
        for account in &mut self.accounts {
            account.client = None;
        }
        self.start(self.shards.len());
    }

    /// The gateway drains: everything that it was given is with its reader, or in
    /// the store, when it has.
    pub fn begin_drain(&mut self) {
        for core in 0..self.cores() {
            self.shards[core].drain();
            self.effects(core);
        }
    }

    /// Whether a drain has come to its end; then the next gateway starts.
    pub fn end_drain(&mut self) -> bool {
        let done = self.lanes_are_empty()
            && self.store.is_idle()
            && self.shards.iter().all(Shard::is_quiet);
        if done {
            self.end_of_process();
        }
        done
    }

    pub fn cores(&self) -> usize {
        self.shards.len()
    }

    /// Whether messages may have been refused: then a repeat may come out of order.
    pub fn may_refuse(&self) -> bool {
        self.store.fails_one_in > 0
            || self.store.inbox_messages_max < usize::MAX
            || self.limits.unanswered_sends_max < 40
    }

    /// Moves batches between cores; each lane holds two.
    pub fn move_lane(&mut self, from: usize, to: usize) {
        let lane = self.lanes.entry((from, to)).or_default();
        if lane.len() < 2
            && let Ok(batch) = self.shards[from].take_batch(to as u16, Vec::new())
        {
            lane.push_back(batch);
            self.effects(from);
        }
        let lane = self.lanes.entry((from, to)).or_default();
        if self.random.one_in(2)
            && let Some(batch) = lane.pop_front()
        {
            self.shards[to].lane_received(from as u16, &batch);
            self.effects(to);
        }
    }

    /// Time passes.
    pub fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        for core in 0..self.cores() {
            self.shards[core].set_now(Now {
                core_ms: self.now_ms,
                unix_ms: 1_700_000_000_000 + self.now_ms,
            });
            if self.shards[core]
                .next_tick_ms()
                .is_some_and(|due| due <= self.now_ms)
            {
                self.shards[core].tick();
            }
            self.effects(core);
        }
    }

    /// The memory that the limits promise.
    pub fn check_budgets(&mut self) {
        let largest = PAYLOAD_BYTES_MAX as u64 + 100;
        let (mut input, mut connections_of_all) = (0, 0);
        for shard in &mut self.shards {
            shard.measure();
            let connections = shard.metrics.connections;
            connections_of_all += connections;
            input += shard.metrics.partial_bytes;
            // One page and what was held may come on top of a full outbox, each
            // message brings its frame, and the last chunk may be nearly empty.
            let per_connection = 4 * (self.limits.outbox_bytes_max + largest) + (36 << 10);
            assert!(
                shard.metrics.outbox_bytes <= connections * per_connection,
                "{} bytes in {} outboxes",
                shard.metrics.outbox_bytes,
                connections
            );
        }
        self.input.connections.set(connections_of_all);
        self.output.connections.set(connections_of_all);
        // What a connection said that moves is let go of where it arrives: a segment or two.
        let segment = (OVERSIZED_BYTES + 100) as u64;
        assert!(
            input <= self.input.max.get() + 4 * segment,
            "{input} bytes of unread input"
        );
        // However little memory there is, a session has what a message takes that is on its way.
        let output = self.output.leased.get();
        assert!(
            output <= self.output.max.get() + connections_of_all * 8 * 1024,
            "{output} bytes of outboxes of {connections_of_all} connections"
        );
    }

    pub fn lanes_are_empty(&self) -> bool {
        self.lanes.values().all(VecDeque::is_empty)
            && (0..self.cores())
                .all(|from| (0..self.cores()).all(|to| !self.shards[from].has_batch(to as u16)))
    }
}
