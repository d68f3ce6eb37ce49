//! The shard: everything about the users whose home is one core, as a state
//! machine without I/O.
//!
//! Events go in (bytes received, a socket ended, a batch from a lane, a reply of
//! the store, time passed); [`Effects`] and bytes to send come out. It reads no
//! clock and draws no random number, so the simulator can run the production
//! code from a seed, by the million.
//!
//! Owner: one core; nothing is shared, nothing is locked. A message walks
//! through these files in order: [`receive`](self) decodes, `route` admits it
//! and picks the reader's home, `deliver` gives it to the reader's session or to
//! the store, `outbox` holds it until the reader has it, `answer` tells the
//! sender.
//!
//! Invariants: an answer `delivered` or `stored` is given only when the reader
//! has acknowledged the message or the store has synced it; messages of one
//! sender to one reader are put into outbox and inbox in the order they were
//! read; a message that is neither acknowledged nor stored when its session ends
//! is appended to the inbox.

mod ahead;
mod answer;
mod assembly;
pub mod budget;
mod buffers;
mod chunks;
mod connection;
mod deliver;
mod drain;
mod effects;
mod endings;
mod entries;
mod envelope;
mod fan_out;
mod followers;
mod ids;
mod inbox;
mod limits;
mod login;
mod moments;
mod outbox;
mod past_sends;
mod pool;
mod presence;
mod reads;
mod receive;
mod relogins;
mod route;
mod run;
mod search;
mod senders;
mod slots;
mod steps;
mod timers;
mod unacked;
mod unread;
mod user;
mod wheel;

#[cfg(test)]
pub(crate) mod harness;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use iris_protocol::CloseReason;
use iris_storage::{NameKey, UserHash};
use slab::Slab;

use crate::metrics::CoreMetrics;
use assembly::Assembly;
use budget::Budgets;
use buffers::Buffers;
use connection::{Connection, Pause, Phase};
use ids::Ids;
use inbox::Pending;
use pool::Pool;
use relogins::Relogins;
use senders::Senders;
use slots::Slots;
use user::User;
use wheel::Wheel;

pub use ahead::BLOCK;
pub use effects::{Effect, Effects};
pub use inbox::APPEND_BYTES;
pub use limits::{Limits, Rate};
pub use moments::Moments;
pub use slots::Key;

/// Who may log in.
pub trait Authenticator {
    /// Whether this credential is good for this user. Classic clients have none.
    fn admits(&self, user: &str, credential: Option<&[u8]>) -> bool;
}

/// The time, as the driver read it at the start of the turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Milliseconds since the core started; never goes back.
    pub core_ms: u64,
    /// Unix time in milliseconds.
    pub unix_ms: u64,
}

/// What a shard is told when it is made.
pub struct ShardOptions {
    /// This core.
    pub core: u16,
    /// How many cores there are.
    pub cores: u16,
    /// The key of the data folder, under which users' names are hashed.
    pub name_key: NameKey,
    /// First number for messages of classic senders; above all that were ever
    /// given out, such as the Unix time in nanoseconds.
    pub first_number: u64,
    /// Limits.
    pub limits: Limits,
    /// Memory it may take, shared with the others.
    pub budgets: Budgets,
    /// Who may log in.
    pub authenticator: Box<dyn Authenticator>,
}

/// A send that a connection is due.
pub struct NextSend {
    /// The bytes, shared until the ring lets go of them.
    pub chunk: Rc<Vec<u8>>,
    /// Where in the chunk to begin.
    pub from: usize,
    /// There are [`Shard::chunks_behind`] it.
    pub has_more: bool,
    /// Ask the kernel first what the peer has of the sends before, and answer with
    /// [`Shard::probed`].
    pub probe_first: bool,
}

/// Envelopes for one other core, and who waits for room there.
#[derive(Default)]
struct Lane {
    batch: Vec<u8>,
    /// Notices of changes among them.
    notices: usize,
    waiting: VecDeque<Key>,
}

/// State of all users and connections of one core.
pub struct Shard {
    core: u16,
    cores: u16,
    name_key: NameKey,
    ids: Ids,
    limits: Limits,
    authenticator: Box<dyn Authenticator>,
    now: Now,
    next_number: u64,
    connections: Slots<Connection>,
    users: Slots<User>,
    /// Users by the hash of their name.
    directory: HashMap<UserHash, Key, ahash::RandomState>,
    /// Store requests under way, by token.
    pending: Slab<Pending>,
    lanes: Vec<Lane>,
    /// A batch is half full.
    lanes_due: bool,
    pool: Pool,
    /// Buffers for input that is not acted upon yet.
    input: Buffers,
    wheel: Wheel,
    /// Users that have left and whose answers are remembered until then, each once.
    departed: Moments,
    /// Users whose followers are being told of a change, each once.
    telling: VecDeque<Key>,
    /// Users whose followers have been told a little while ago, and until when nothing more is told, each once.
    resting: Moments,
    /// Classic logins that were answered, and from when on something may follow the answer.
    answered_logins: Moments,
    due: Vec<(Key, wheel::Tick)>,
    /// Where small frames are encoded before their length is known.
    scratch: Vec<u8>,
    dirty: Vec<Key>,
    effects: Effects,
    sessions: u64,
    /// The number of this turn.
    turn: u8,
    /// Commands that were acted upon.
    commands: u64,
    /// Steps that all connections have taken in this turn.
    steps: usize,
    /// Connections that have had their share and have more to say, each once.
    waiting_for_turn: VecDeque<Key>,
    assembly: Assembly,
    store_pending_bytes: u64,
    /// Whose messages these bytes are.
    senders: Senders,
    relogins: Relogins,
    draining: bool,
    /// Counters; gauges are set by [`Shard::measure`].
    pub metrics: CoreMetrics,
}

impl Shard {
    /// An empty shard.
    pub fn new(options: ShardOptions) -> Shard {
        Shard {
            core: options.core,
            cores: options.cores,
            name_key: options.name_key,
            ids: Ids::new(options.name_key),
            limits: options.limits,
            authenticator: options.authenticator,
            now: Now::default(),
            next_number: options.first_number | (1 << 63),
            connections: Slots::default(),
            users: Slots::default(),
            directory: HashMap::default(),
            pending: Slab::new(),
            lanes: (0..options.cores).map(|_| Lane::default()).collect(),
            lanes_due: false,
            pool: Pool::new(options.budgets.output),
            input: Buffers::new(options.budgets.input),
            wheel: Wheel::default(),
            departed: Moments::default(),
            telling: VecDeque::new(),
            resting: Moments::default(),
            answered_logins: Moments::default(),
            due: Vec::new(),
            scratch: Vec::new(),
            dirty: Vec::new(),
            effects: Effects::default(),
            sessions: 0,
            turn: 0,
            commands: 0,
            steps: 0,
            waiting_for_turn: VecDeque::new(),
            assembly: Assembly::default(),
            store_pending_bytes: 0,
            senders: Senders::default(),
            relogins: Relogins::default(),
            draining: false,
            metrics: CoreMetrics::default(),
        }
    }

    /// Sets the time for the events that follow.
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    /// What the events asked for since this was last emptied.
    pub fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }

    /// A connection was accepted.
    pub fn accepted(&mut self) -> Key {
        self.metrics.accepted += 1;
        let id = self.connections.insert(Connection::new(self.now.core_ms));
        self.check_within(id, self.limits.login_timeout_ms);
        if self.draining {
            // The kernel had accepted it before the listeners were let go of.
            self.close(id, CloseReason::Draining);
        }
        id
    }

    /// The next connection that has something to send.
    pub fn next_dirty(&mut self) -> Option<Key> {
        while let Some(id) = self.dirty.pop() {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.dirty = false;
                self.encode_answers(id);
                return Some(id);
            }
        }
        None
    }

    /// What to send next on this connection, if nothing is under way. Report back
    /// with [`Shard::sent`].
    pub fn next_send(&mut self, id: Key) -> Option<NextSend> {
        let outbox = self.connections.get_mut(id)?.outbox.as_mut()?;
        let (chunk, from) = outbox.next_chunk()?;
        let has_more = outbox.has_chunks_behind();
        let probe_first = self.probe_with_send(id);
        Some(NextSend {
            chunk,
            from,
            has_more,
            probe_first,
        })
    }

    /// The chunks that go out with the one that [`Shard::next_send`] gave: as many as are worth it.
    pub fn chunks_behind(&mut self, id: Key) -> impl Iterator<Item = Rc<Vec<u8>>> {
        let connection = self.connections.get_mut(id);
        let outbox = connection.and_then(|connection| connection.outbox.as_mut());
        outbox.into_iter().flat_map(|outbox| outbox.chunks_behind())
    }

    /// The kernel took `len` bytes of what [`Shard::next_send`] gave.
    pub fn sent(&mut self, id: Key, len: usize) {
        self.metrics.bytes_out += len as u64;
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let Some(outbox) = connection.outbox.as_mut() else {
            return;
        };
        outbox.sent(&mut self.pool, len);
        if !outbox.is_flushed() {
            self.mark_dirty(id);
        }
        self.after_sent(id);
        self.tell_news(id);
        self.rest(id);
    }

    /// Whether all that shall be sent on this connection is with the kernel.
    pub fn is_flushed(&self, id: Key) -> bool {
        self.connections
            .get(id)
            .and_then(|connection| connection.outbox.as_ref())
            .is_none_or(|outbox| outbox.is_flushed())
    }

    /// Takes the batch of envelopes for a core, leaving `empty` to be filled.
    /// `None`, and `empty` back, when there is nothing to carry.
    pub fn take_batch(&mut self, core: u16, empty: Vec<u8>) -> Result<Vec<u8>, Vec<u8>> {
        let lane = &mut self.lanes[usize::from(core)];
        if lane.batch.is_empty() {
            return Err(empty);
        }
        let batch = std::mem::replace(&mut lane.batch, empty);
        lane.notices = 0;
        let bytes_max = self.limits.lane_batch_bytes_max;
        while self.lanes[usize::from(core)].batch.len() <= bytes_max
            && let Some(id) = self.lanes[usize::from(core)].waiting.pop_front()
        {
            self.resume(id, Pause::LANE);
        }
        Ok(batch)
    }

    /// Whether envelopes wait for this core.
    pub fn has_batch(&self, core: u16) -> bool {
        !self.lanes[usize::from(core)].batch.is_empty()
    }

    /// Whether a batch has become half full since this was last asked: it should
    /// go now, before those who need that lane have to wait.
    pub fn take_lanes_due(&mut self) -> bool {
        std::mem::take(&mut self.lanes_due)
    }

    /// Whether envelopes wait for any core.
    pub fn has_batches(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.batch.is_empty())
    }

    /// How many connections there are.
    pub fn connections_len(&self) -> usize {
        self.connections.len()
    }

    /// How many users are known: those online, and those about whom anything is
    /// under way.
    pub fn users_len(&self) -> usize {
        self.users.len()
    }

    /// Whether nothing is under way: no connection, no store request, and so nobody's messages.
    pub fn is_quiet(&self) -> bool {
        self.connections.is_empty() && self.pending.is_empty() && self.senders.is_empty()
    }

    /// Bytes held for connections and for the store, as the limits count them.
    pub fn measure(&mut self) {
        self.metrics.connections = self.connections.len() as u64;
        self.metrics.sessions = self.sessions;
        self.metrics.partial_bytes = self.input.lent_bytes();
        self.metrics.store_pending_bytes = self.store_pending_bytes;
        self.metrics.outbox_bytes = self.pool.lent_bytes();
    }

    /// Stops taking sends and logins, and closes every connection: what its
    /// reader does not acknowledge in time returns to the inbox.
    pub fn drain(&mut self) {
        self.draining = true;
        for id in self.connections.keys() {
            self.close(id, CloseReason::Draining);
        }
    }

    /// Bytes that may wait for one session, and whether they are so few because memory is short.
    fn outbox_bytes_max(&self) -> (u64, bool) {
        let max = self.limits.outbox_bytes_max;
        if !self.pool.budget.is_short() {
            return (max, false);
        }
        let share = self.pool.budget.share(self.connections.len());
        (share.min(max), true)
    }

    fn mark_dirty(&mut self, id: Key) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Appends bytes that are no message to a connection's outbox.
    fn push_frame(&mut self, id: Key, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(connection) = self.connections.get_mut(id) {
            write(&mut self.scratch);
            let outbox = connection.outbox.get_or_insert_with(|| self.pool.outbox());
            outbox.push_answer(&mut self.pool, self.scratch.len(), |out| {
                out.extend_from_slice(&self.scratch)
            });
            self.scratch.clear();
            self.mark_dirty(id);
        }
    }

    /// Gives a connection's outbox back if nothing is in it: an idle connection has
    /// none, and a busy one gets the one that is warm in the cache.
    fn rest(&mut self, id: Key) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.probing
            && connection
                .outbox
                .as_ref()
                .is_some_and(|outbox| outbox.is_idle())
            && !matches!(connection.phase, Phase::Closing(_))
            && let Some(outbox) = connection.outbox.take()
        {
            self.pool.put_outbox(outbox);
        }
    }

    fn user_of(&self, id: Key) -> Option<Key> {
        let connection = self.connections.get(id)?;
        connection.has_session().then_some(connection.user)
    }

    fn user_entry(&mut self, hash: UserHash, name: &str) -> Key {
        if let Some(key) = self.directory.get(&hash) {
            return *key;
        }
        let key = self.users.insert(User::new(name));
        self.directory.insert(hash, key);
        key
    }

    /// Removes a user's entry if nothing needs it.
    fn forget_if_done(&mut self, user_key: Key) {
        if let Some(user) = self.users.get(user_key)
            && user.is_forgettable()
        {
            self.directory.remove(&user.hash(self.name_key));
            self.users.remove(user_key);
        }
    }

    /// Has the wheel look at a connection no later than in `within_ms`.
    fn check_within(&mut self, id: Key, within_ms: u64) {
        let tick = self.wheel.tick_of(self.now.core_ms + within_ms);
        if let Some(connection) = self.connections.get_mut(id)
            && (connection.check_at == 0 || tick < connection.check_at)
        {
            connection.check_at = tick;
            self.wheel.insert(id, tick);
        }
    }
}
