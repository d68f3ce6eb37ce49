//! Every limit of a shard, each with its reason.
//!
//! They come from the configuration; the shard never reads a file or the
//! environment.

use iris_protocol::Protocols;
use iris_protocol::framed::DecodeLimits;

/// So many at once, and from then on so many in each second.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// In each second.
    pub per_second: u32,
}

/// Limits of one shard.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What is spoken; a first byte of another protocol ends its connection.
    pub protocols: Protocols,
    /// Largest payload of one message. A larger one is refused: it would hold up
    /// every message behind it on the reader's socket.
    pub payload_bytes_max: u32,
    /// Bytes a session may hold for a reader that is slow to take or acknowledge
    /// them. Above it, deliveries spill to the inbox: memory is for readers that read.
    /// A session may hold `UNKNOWN_TIMES` as many, and one message, until it is known that they
    /// are not taken, and `UNSENT_TIMES` as many after that.
    pub outbox_bytes_max: u64,
    /// Deliveries a framed reader may leave unacknowledged; above it new ones spill,
    /// and of drained ones only steps are kept.
    pub unacked_deliveries_max: u32,
    /// Sends of one framed user that wait for their answer; one more is refused.
    /// The user is told the number at login.
    pub unanswered_sends_max: u32,
    /// Users that one session may follow, since each costs its home memory.
    pub follows_max: u32,
    /// Followers that one user may have, since each of its logins tells them all.
    pub followers_max: u32,
    /// Presence questions of one session that wait for the store.
    pub inquiries_max: u32,
    /// Steps that a connection may take one after the other, a command and each KiB being one; then all others that have
    /// something to say take theirs, so that nobody is behind all that another says.
    pub share_steps: u8,
    /// Bytes on their way to the store; above it, nothing is taken from lanes. Senders to users who are away are held
    /// up long before: above half of it all of them, above a quarter those that have some of it, and above a
    /// thirty-second a sender that has so much.
    pub store_pending_bytes_max: u64,
    /// How often a classic connection may log in again; more is read later. Old clients do so hundreds of times on one
    /// socket. Each time costs the kernel a question, the store an account and a page, and its followers a notice.
    pub relogins: Rate,
    /// Bytes of one lane's batch; above it, the senders who need that lane wait.
    pub lane_batch_bytes_max: usize,
    /// Time to log in, milliseconds: a connection that says nothing costs as much as one that does.
    pub login_timeout_ms: u64,
    /// Time a framed session may be silent, milliseconds.
    pub idle_timeout_ms: u64,
    /// Time a classic connection that has had a user may neither say nor take anything, milliseconds;
    /// `u64::MAX` is for ever, since classic clients cannot ping.
    pub classic_idle_timeout_ms: u64,
    /// Time a reader may take to acknowledge, milliseconds, before its messages
    /// go to the inbox, so that their senders get an answer.
    pub ack_timeout_ms: u64,
    /// Time to live of a message whose sender names none, milliseconds.
    pub ttl_default_ms: u64,
    /// Longest time to live a sender may ask for, milliseconds.
    pub ttl_max_ms: u64,
    /// Answers a framed sender may still ask for again after a reconnect; up to a quarter more
    /// are kept, and then forgotten together.
    pub remembered_answers_max: usize,
    /// Users that have left and whose answers are remembered; above it the one that
    /// left first is forgotten before its minute is over, since a storm of short
    /// sessions must not cost more memory than the sessions themselves.
    pub departed_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        Limits {
            protocols: Protocols::ALL,
            payload_bytes_max: 64 << 10,
            outbox_bytes_max: 256 << 10,
            unacked_deliveries_max: 4096,
            unanswered_sends_max: 1024,
            follows_max: 128,
            followers_max: 4096,
            inquiries_max: 64,
            share_steps: 128,
            store_pending_bytes_max: 64 << 20,
            relogins: Rate {
                burst: 1_000,
                per_second: 500,
            },
            lane_batch_bytes_max: 256 << 10,
            login_timeout_ms: 10_000,
            idle_timeout_ms: 300_000,
            classic_idle_timeout_ms: u64::MAX,
            ack_timeout_ms: 2_000,
            ttl_default_ms: 30 * DAY_MS,
            ttl_max_ms: 365 * DAY_MS,
            remembered_answers_max: 64,
            departed_max: 65_536,
        }
    }
}

impl Limits {
    /// Time a connection that has had a user may be silent.
    pub(super) fn idle_ms(&self, is_framed: bool) -> u64 {
        if is_framed {
            self.idle_timeout_ms
        } else {
            self.classic_idle_timeout_ms
        }
    }

    /// What the decoder accepts of a user who is logged in.
    pub(super) fn decoding(&self) -> DecodeLimits {
        DecodeLimits {
            payload_bytes_max: self.payload_bytes_max,
        }
    }
}

/// How long a retained classic delivery waits before the kernel is asked whether
/// the peer has it, milliseconds; idle connections then hold no memory.
pub const PROBE_AFTER_MS: u64 = 1_000;
/// Deliveries to a classic session after which the kernel is asked together with
/// the next send, while it has the socket at hand. The more seldom, the fewer
/// questions; the oftener, the less is kept for the way back into the inbox and the
/// more of it stays in the cache. With 1,000 users and 16 messages in flight each, a
/// message cost 8 to 11 % less at 64 than at 32; at 8 and 16 it cost more, and at 256
/// about the same as at 32.
pub const PROBE_MESSAGES: u32 = 64;
/// A message counts once more for each of so many bytes: with messages of some kilobytes the kernel
/// is asked every 32 KiB. What is kept for the way back is memory that leaves the cache.
pub const PROBE_STEP_BYTES: u32 = 512;
/// How long a session may be full while its oldest message waits, milliseconds, before it is
/// spilled: a client that is not let run for some turns of the scheduler keeps up all the same.
pub const FULL_MS: u64 = 100;
/// How many times what a session may hold it may hold until then, in bytes, and a classic one in
/// messages: 2 MiB, in which sixteen of the longest messages are under way and more. The TCP of a
/// client that lags a few milliseconds acknowledges nothing meanwhile. What all hold together is
/// bounded by the budget of outboxes, and none has more than its share while that is short.
pub const UNKNOWN_TIMES: u64 = 8;
/// How many times of that may be bytes that its socket has not taken: those stay when it is spilled.
/// One batch of a lane brings so many at once.
pub const UNSENT_TIMES: u64 = 4;
/// How soon the kernel is asked again when somebody waits for the answer, milliseconds.
pub const PROBE_AGAIN_MS: u64 = 20;
/// How long the answer to a classic login stays alone at least, milliseconds. That the peer's TCP
/// has it is not enough: on one machine it has it at once, and the client must be let run to read it.
pub const ANSWER_ALONE_MS: u64 = 5;
/// How soon memory for a message longer than a share is looked for again, while outboxes have all there is, milliseconds.
pub const ROOM_AGAIN_MS: u64 = 100;
/// How soon room at the store is looked for again, milliseconds: some commits.
pub const STORE_AGAIN_MS: u64 = 20;
/// How long answers to a sender are remembered after the last one, milliseconds.
pub const ANSWERS_KEPT_MS: u64 = 60_000;
/// How long the shard waits before it asks the store again for what failed, milliseconds.
pub const STORE_RETRY_MS: u64 = 1_000;
/// How often the store is asked again how deep an inbox is before a login does
/// without: clients give a login up after five seconds or more.
pub const DEPTH_RETRIES: u8 = 2;
/// Messages of one page of a drain.
pub const PAGE_MESSAGES: usize = 1_000;
/// How long a connection on which a send failed is still received from, milliseconds: the kernel has all that it ever
/// will, and needs no time for it.
pub const FAILED_MS: u64 = 2_000;
/// How often a connection is looked at when nothing is due, milliseconds.
pub const CHECK_MS: u64 = 300_000;
/// Messages and bytes of the first page of a session: enough for a short absence. It takes a tenth of the time of a
/// full one, so many logins at once wait little for each other, and a session that ends at once has cost little.
pub const FIRST_PAGE_MESSAGES: usize = 64;
pub const FIRST_PAGE_BYTES: usize = 16 << 10;
/// How long a connection that logs in too often is not read, milliseconds: some dozens of logins at the steady rate.
pub const RELOGINS_PAUSE_MS: u64 = 100;
/// How often all classic connections of a core may log in again. One costs the core 5 to 40 microseconds, with the page it
/// asks for, so these take a few hundredths of its time. They come due twenty milliseconds' worth at a time: with twice as
/// many, users who are online felt 200 connections that log in again without end.
pub const CORE_RELOGINS: Rate = Rate {
    burst: 200,
    per_second: 1_000,
};
/// The part of `store_pending_bytes_max` that one sender may have on its way to the store before it is held up: what it
/// sends in the time of some commits.
pub const SENDER_PART: u64 = 32;
/// The part that is for senders that have something on their way already.
pub const BUSY_SENDERS_PART: u64 = 4;
/// The part that is for all senders. What is left is for what the lanes carry when a sender of another core is held up.
pub const ALL_SENDERS_PART: u64 = 2;
