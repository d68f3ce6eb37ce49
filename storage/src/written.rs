//! A batch on its way from the committer, which wrote it, to the sync thread, which answers it.
//!
//! Plain data. Invariant: the database shows it, and the journals of its stand hold it, as the kernel has them; a disk may
//! not.

use std::time::Instant;

use crossbeam_channel::Sender;

use crate::journal::Stand;
use crate::outlets::Spent;
use crate::request::Reply;
use crate::totals::Totals;

/// A reply on its way to a client.
pub(crate) struct Answer {
    /// When its request came: what it is among the requests that were taken.
    pub(crate) number: u64,
    pub(crate) client: usize,
    pub(crate) reply: Reply,
}

/// What a batch did; it counts only if the batch is synced.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) appended: u64,
    pub(crate) appended_bytes: u64,
    pub(crate) burned: u64,
    pub(crate) expired: u64,
    pub(crate) dropped: u64,
    pub(crate) seen: u64,
    pub(crate) seen_lost: u64,
}

/// The batch, with what is to be said once it is synced.
pub(crate) struct Written {
    pub(crate) answers: Vec<Answer>,
    /// What its requests were made of, each with the client that it goes back to.
    pub(crate) spent: Vec<(usize, Spent)>,
    /// Who waits for a beat.
    pub(crate) beats: Vec<Sender<()>>,
    pub(crate) tally: Tally,
    /// Something was promised that only a sync can keep.
    pub(crate) needs_sync: bool,
    pub(crate) bytes: u64,
    pub(crate) began: Instant,
    pub(crate) stand: Stand,
    /// The next batch has this seqno or a higher one.
    pub(crate) next_seqno: u64,
    /// The highest that stand in memory, of messages and of users.
    pub(crate) seqnos: [Option<u64>; 2],
    pub(crate) totals: Totals,
    pub(crate) tail_misses: u64,
}
