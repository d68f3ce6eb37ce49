//! The loop of a core: take what the rings, the lanes and the store have, give it
//! to the shard, do what the shard asks, send once for each connection that has
//! something, and sleep only when nothing is left to do.
//!
//! Owner: the core's thread. One turn handles a bounded number of completions of
//! each ring, of batches of each lane, of replies of the store, so that none of
//! them starves the others.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iris_ring::{Completion, RingError};
use iris_storage::StoreClient;

use super::Shared;
use super::accepting::Accepting;
use super::lanes::Lanes;
use super::segments::Segments;
use super::sockets::Sockets;
use super::sweep::Sweep;
use crate::metrics::Published;
use crate::shard::{BLOCK, Key, Moments, Shard};

/// How often a turn takes what has completed before it sends. While it handled the first
/// lot, more arrived, and what goes out together with it costs no send of its own: at a
/// thousand busy connections ten messages share a send instead of eight, and a message
/// costs a tenth less. More often gains nothing, and a turn has to end some time.
const GATHERS_PER_TURN: usize = 4;
/// Blocks of [`BLOCK`] completions taken from one ring each time.
const BLOCKS_PER_GATHER: usize = 1024;
/// Replies taken from the store in a turn, and requests after which a turn takes no
/// more completions: a batch of the store has thousands, and users who are online
/// would wait behind all of them. A turn beside a flood takes some 100 microseconds
/// with these.
const REPLIES_PER_TURN: usize = 32;
const STORE_REQUESTS_PER_TURN: usize = 64;
/// Steps (commands and KiB, see [`Limits::share_steps`](crate::shard::Limits::share_steps)) after which a turn gives no more
/// shares to connections that have had theirs: what they said until then goes out in one send for each reader.
const STEPS_PER_TURN: usize = 65_536;
/// Batches taken from one lane in a turn, so that no neighbour starves the sockets.
const BATCHES_PER_TURN: usize = 8;
/// How soon a further ring is tried again when the kernel refused one.
const GROW_AGAIN_MS: u64 = 1_000;
/// How often a core shows its counts.
pub(super) const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// What a core is made from.
pub struct CoreOptions {
    /// Number of the core, from 0.
    pub index: usize,
    /// No other core is pinned to its cpu.
    pub has_own_cpu: bool,
    /// It may take a real-time priority.
    pub realtime: bool,
    /// What all cores know of each other.
    pub shared: Arc<Shared>,
    /// Makes the state of its users, on its own thread.
    pub shard: Box<dyn FnOnce() -> Shard + Send>,
    /// Where its connections come in; every core has listeners of its own.
    pub listeners: Vec<std::net::TcpListener>,
    /// Direct descriptors of one ring.
    pub slots: u32,
    /// Its ends of the lanes.
    pub lanes: Lanes,
    /// Its handle on the store.
    pub store: StoreClient,
    /// Where its counts are shown.
    pub published: Arc<Published>,
    /// How long a drain waits for peers to end their side.
    pub drain_timeout: Duration,
}

/// Who had nothing of the last turn, because others had made as many requests of the store as a turn makes: they have
/// something of this one in any case.
#[derive(Default)]
struct LeftOut {
    /// Connections that wait for a share.
    waiting: bool,
    /// Batches of other cores.
    lanes: bool,
}

/// A running core.
pub struct Core {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) shard: Shard,
    pub(super) segments: Segments,
    pub(super) sockets: Sockets,
    pub(super) accepting: Accepting,
    pub(super) sweep: Sweep,
    pub(super) lanes: Lanes,
    pub(super) store: StoreClient,
    published: Arc<Published>,
    left_out: LeftOut,
    /// Requests made of the store in this turn.
    pub(super) store_requests: usize,
    /// Completions that are looked at together; empty between two blocks.
    pub(super) block: Vec<Completion>,
    /// Closing sockets by the moment, on the core's clock, when patience ends.
    pub(super) lingering: Moments,
    /// Those whose patience has ended, by the moment when they must have.
    pub(super) overdue: Moments,
    /// Hand-overs under way, by the ring of the target that is tried.
    pub(super) moves: HashMap<Key, usize, ahash::RandomState>,
    pub(super) now_ms: u64,
    pub(super) started: Instant,
    published_at: Instant,
    drain_timeout: Duration,
    draining_until_ms: Option<u64>,
    /// The last turn found no more completions after those it had handled.
    pub(super) is_all_taken: bool,
    /// A turn came late, and not all that had arrived by then was read; when that is given up.
    pub(super) late_until_ms: Option<u64>,
    /// No further ring is tried before this moment.
    grow_after_ms: u64,
    told_drained: bool,
    /// Something was counted since the counts were last shown.
    pub(super) unpublished: bool,
}

impl Core {
    /// Opens the first ring. On the thread that will run it.
    ///
    /// # Errors
    /// If the kernel refuses the ring.
    pub fn new(options: CoreOptions) -> Result<Core, RingError> {
        let mut core = Core {
            index: options.index,
            shared: options.shared,
            shard: (options.shard)(),
            segments: Segments::new(options.listeners, options.slots),
            sockets: Sockets::default(),
            accepting: Accepting::default(),
            sweep: Sweep::default(),
            lanes: options.lanes,
            store: options.store,
            published: options.published,
            left_out: LeftOut::default(),
            store_requests: 0,
            block: Vec::with_capacity(BLOCK),
            lingering: Moments::default(),
            overdue: Moments::default(),
            moves: HashMap::default(),
            now_ms: 0,
            started: Instant::now(),
            published_at: Instant::now(),
            drain_timeout: options.drain_timeout,
            draining_until_ms: None,
            is_all_taken: false,
            late_until_ms: None,
            grow_after_ms: 0,
            told_drained: false,
            unpublished: true,
        };
        core.open_segment()?;
        let wake = core.shared.wakes[core.index].eventfd();
        core.segments.all[0].ring.watch(wake, 0);
        core.set_clock();
        Ok(core)
    }

    fn open_segment(&mut self) -> Result<(), RingError> {
        // The rings fire the same eventfd that other threads write. With one of its
        // own, a write would have to set off a read, and the read's completion the
        // other eventfd; but the kernel does not signal an eventfd from within the
        // wake-up of another: it puts that off, and at least Linux 6.18 does so once
        // and never again. The core would sleep on with work before it.
        let fd = self
            .segments
            .open(self.shared.wakes[self.index].eventfd())?;
        self.shared.publish_ring(self.index, fd);
        Ok(())
    }

    /// One turn; says whether there was anything to do.
    ///
    /// # Errors
    /// If a ring fails for good.
    pub(super) fn turn(&mut self) -> io::Result<bool> {
        let began = Instant::now();
        self.set_clock();
        // Looked for once a turn: with nothing due soon it goes through the whole wheel.
        let due_ms = self.shard.next_tick_ms();
        self.note_lateness(due_ms);
        let mut busy = self.take_completed()?;
        busy |= self.take_waiting();
        busy |= self.take_lanes();
        for _ in 0..REPLIES_PER_TURN {
            let Some(reply) = self.store.poll() else {
                break;
            };
            busy = true;
            self.shard.stored(reply);
        }
        busy |= self.act_on_timeouts(due_ms);
        busy |= self.shard.tell_followers();
        self.accept_after_backoff();
        self.perform();
        self.send_lanes();
        self.flush();
        self.sweep();
        if self.now_ms >= self.grow_after_ms && self.segments.is_crowded() {
            self.grow();
        }
        self.steer_accept();
        if busy {
            self.unpublished = true;
            self.shard.metrics.turns += 1;
            self.shard.metrics.turn_time.record(began.elapsed());
        }
        if self.unpublished && self.published_at.elapsed() >= PUBLISH_EVERY {
            self.publish();
        }
        Ok(busy)
    }

    /// Takes what the rings have completed, until they have no more or it is enough for one
    /// turn; says whether there was anything.
    fn take_completed(&mut self) -> io::Result<bool> {
        self.store_requests = 0;
        self.is_all_taken = false;
        let mut busy = false;
        for _ in 0..GATHERS_PER_TURN {
            self.segments.submit()?;
            let mut any = false;
            for segment in 0..self.segments.all.len() {
                for _ in 0..BLOCKS_PER_GATHER {
                    if self.store_requests > STORE_REQUESTS_PER_TURN || !self.take_block(segment) {
                        break;
                    }
                    any = true;
                }
            }
            if !any {
                self.is_all_taken = self.store_requests <= STORE_REQUESTS_PER_TURN;
                break;
            }
            busy = true;
        }
        Ok(busy)
    }

    /// Takes what other cores have sent.
    fn take_lanes(&mut self) -> bool {
        let mut busy = false;
        for _ in 0..BATCHES_PER_TURN {
            let is_late = self.store_requests > STORE_REQUESTS_PER_TURN && !self.left_out.lanes;
            if is_late || !self.shard.takes_lanes() || !self.lanes.receive(&mut self.shard) {
                break;
            }
            self.left_out.lanes = false;
            busy = true;
            self.perform();
        }
        self.left_out.lanes = !busy && self.lanes.has_incoming();
        busy
    }

    /// Begins the next turn of the connections, and reads on where shares were not enough.
    fn take_waiting(&mut self) -> bool {
        self.shard.begin_turn();
        let mut busy = false;
        while self.shard.steps() < STEPS_PER_TURN
            && (self.store_requests <= STORE_REQUESTS_PER_TURN || self.left_out.waiting)
            && self.shard.read_waiting()
        {
            self.left_out.waiting = false;
            busy = true;
            self.perform();
        }
        self.left_out.waiting = !busy && self.shard.has_waiting();
        busy || self.shard.has_waiting()
    }

    /// Sleeps until something happens or a timer is due. The first ring waits for
    /// all: it watches the eventfd that other threads write to wake this core, and
    /// that further rings fire when they have completions. No longer than `at_most`.
    pub(super) fn sleep(&mut self, at_most: Duration) -> io::Result<()> {
        self.segments.notify_enabled(true);
        self.segments.submit()?;
        self.shared.wakes[self.index].doze();
        if self.segments.is_idle() && !self.has_work() {
            self.shard.metrics.parks += 1;
            let timeout = self.sleep_max().min(at_most);
            self.segments.all[0].ring.submit_and_wait(timeout)?;
        }
        self.shared.wakes[self.index].rise();
        self.segments.notify_enabled(false);
        Ok(())
    }

    /// Whether something waits that no ring tells of.
    fn has_work(&self) -> bool {
        (self.shard.takes_lanes() && self.lanes.has_incoming())
            || self.store.has_replies()
            || (!self.accepting.begun && self.shared.all_up())
            || (self.shared.is_draining() && self.draining_until_ms.is_none())
            || self.may_end()
    }

    pub(super) fn send_lanes(&mut self) {
        let wakes = &self.shared.wakes;
        self.lanes.send(&mut self.shard, |to| wakes[to].ring());
        self.perform();
    }

    /// One send for each connection that has something and none under way.
    fn flush(&mut self) {
        let mut until_expected = 0;
        loop {
            if until_expected == 0 {
                until_expected = self.sockets.expect(self.shard.expect_sends());
            }
            until_expected = until_expected.saturating_sub(1);
            let Some(key) = self.shard.next_dirty() else {
                break;
            };
            let Some(socket) = self.sockets.get_mut(key) else {
                continue;
            };
            if socket.sending || socket.broken {
                continue;
            }
            if let Some(next) = self.shard.next_send(key) {
                socket.sending = true;
                let ring = &mut self.segments.all[usize::from(socket.segment)].ring;
                if next.probe_first {
                    socket.probing = true;
                    ring.outstanding(socket.slot, key.token());
                }
                if next.has_more {
                    let chunks = self.shard.chunks_behind(key);
                    let all = std::iter::once(Rc::clone(&next.chunk)).chain(chunks);
                    ring.send_all(socket.slot, all, next.from, key.token());
                } else {
                    ring.send(socket.slot, next.chunk, next.from, key.token());
                }
            }
        }
        self.perform();
    }

    /// The tables are nearly full: one more ring, while the process may have more
    /// connections.
    fn grow(&mut self) {
        if let Err(error) = self.open_segment() {
            tracing::error!(core = self.index, %error, "no further ring: connections wait for others to end");
            self.grow_after_ms = self.now_ms + GROW_AGAIN_MS;
        }
    }

    fn publish(&mut self) {
        self.unpublished = false;
        self.published_at = Instant::now();
        self.shard.measure();
        self.published.publish(self.index, &self.shard.metrics);
    }

    /// Whether it has a real-time priority from now on.
    pub(super) fn tell_realtime(&mut self, realtime: bool) {
        self.shard.metrics.realtime = realtime.into();
        self.unpublished = true;
    }

    /// Sees a drain through; `true` when this core may end.
    pub(super) fn drained(&mut self) -> bool {
        if !self.shared.is_draining() {
            return false;
        }
        let Some(until_ms) = self.draining_until_ms else {
            self.draining_until_ms = Some(self.now_ms + self.drain_timeout.as_millis() as u64);
            self.segments.stop_accepting();
            self.shard.drain();
            self.perform();
            return false;
        };
        if self.now_ms > until_ms {
            self.lose_patience();
        }
        let lanes_sent = !self.shard.has_batches();
        if self.shard.connections_len() == 0 && lanes_sent && !self.told_drained {
            self.told_drained = true;
            self.shared.core_is_drained(self.index);
        }
        self.may_end()
    }

    /// Whether all cores are drained, and nothing is left for this one, nor waited for.
    fn may_end(&self) -> bool {
        self.told_drained
            && self.shared.all_drained()
            && !self.shard.has_batches()
            && self.shard.is_quiet()
            && !self.lanes.has_incoming()
            && !self.store.has_replies()
    }
}
