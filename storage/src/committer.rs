//! The one thread that writes.
//!
//! Group commit: it takes what is queued (up to `commit_requests_max` and about `commit_bytes_max`), makes one
//! batch of it, syncs once, and only then replies. What arrives during the sync is the next batch; when idle it
//! waits for nothing. Invariants: nothing is acknowledged before its sync returned; after a failed write nothing
//! is written or acknowledged until the store is opened again, because what became of the failed batch is known
//! only then; whatever was taken from the queue is answered, also if this thread panics.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use tracing::error;

use crate::batch::{Batch, Step, Tally};
use crate::client::{Envelope, Outlets, Write};
use crate::ledger::Ledger;
use crate::metrics::{CommitterCounts, Counts, lock};
use crate::options::StoreOptions;
use crate::request::{FailureKind, Reply};

/// The committer's state.
pub(crate) struct Committer {
    /// Of its database.
    number: usize,
    ledger: Ledger,
    requests: Receiver<Envelope<Write>>,
    outlets: Outlets,
    counts: Arc<Counts>,
    window: Duration,
    requests_max: usize,
    bytes_max: u64,
    /// Taken from the queue and not yet in a batch; at most `requests_max`.
    pending: VecDeque<Envelope<Write>>,
    /// Who waits for the batch in the making, to be told if it comes to nothing.
    in_hand: Vec<(usize, u64)>,
    batches: u64,
    closing: bool,
    stopped: bool,
}

impl Committer {
    pub(crate) fn new(
        number: usize,
        ledger: Ledger,
        requests: Receiver<Envelope<Write>>,
        outlets: Outlets,
        counts: Arc<Counts>,
        options: &StoreOptions,
    ) -> Committer {
        Committer {
            number,
            ledger,
            requests,
            outlets,
            counts,
            window: options.commit_window,
            requests_max: options.commit_requests_max.max(1),
            bytes_max: options.commit_bytes_max as u64,
            pending: VecDeque::new(),
            in_hand: Vec::new(),
            batches: 0,
            closing: false,
            stopped: false,
        }
    }

    /// Runs until the store is closed. False if writes had failed.
    pub(crate) fn run(mut self) -> bool {
        while self.fill() {
            if self.stopped {
                self.refuse_pending();
            } else if catch_unwind(AssertUnwindSafe(|| self.write_batch())).is_err() {
                // A fault of ours or of the database's. What it left in memory is not believed: stop writing.
                error!(
                    "the committer panicked; the store takes no more writes until it is opened again"
                );
                self.stop();
                let in_hand = std::mem::take(&mut self.in_hand);
                let unanswered = in_hand.into_iter();
                self.deliver(
                    unanswered
                        .map(|(client, token)| (client, unwritable(token)))
                        .collect(),
                );
            }
        }
        !self.stopped
    }

    /// Takes what is queued; waits only if there is nothing. False when the store closes and all is done.
    fn fill(&mut self) -> bool {
        if self.pending.is_empty() && !self.closing {
            match self.requests.recv() {
                Ok(envelope) => self.take(envelope),
                Err(_) => return false,
            }
        }
        let deadline = (!self.window.is_zero()).then(|| Instant::now() + self.window);
        while self.pending.len() < self.requests_max {
            let next = match deadline {
                Some(deadline) if !self.closing => self.requests.recv_deadline(deadline).ok(),
                _ => self.requests.try_recv().ok(),
            };
            match next {
                Some(envelope) => self.take(envelope),
                None => break,
            }
        }
        !(self.closing && self.pending.is_empty())
    }

    fn take(&mut self, envelope: Envelope<Write>) {
        match envelope.request {
            Write::Close => self.closing = true,
            _ => self.pending.push_back(envelope),
        }
    }

    fn write_batch(&mut self) {
        self.batches += 1;
        let mut batch = Batch::new(&self.ledger, self.batches, self.pending.len());
        self.in_hand.clear();
        while batch.tally.appended_bytes < self.bytes_max
            && let Some(envelope) = self.pending.pop_front()
        {
            let token = envelope.request.token();
            let client = envelope.client;
            // Before it is tried, so that a panic leaves nobody waiting.
            self.in_hand.extend(token.map(|token| (client, token)));
            match batch.apply(&mut self.ledger, envelope) {
                Ok(Step::Taken) => {}
                Ok(Step::NotYet(envelope)) => {
                    self.in_hand.pop();
                    self.pending.push_front(envelope);
                    break;
                }
                Err(source) => {
                    error!(%source, "no sequence can be reserved; the store takes no more writes until it is opened again");
                    self.stop();
                    self.in_hand.clear();
                    self.deliver(failed(batch.abandon()));
                    return;
                }
            }
        }
        self.commit(batch);
    }

    fn commit(&mut self, batch: Batch) {
        let tally = batch.tally;
        let began = Instant::now();
        lock(self.own_counts()).commit_since = Some(began);
        let committed = batch.commit(&mut self.ledger);
        // From here on the replies themselves say what became of each.
        self.in_hand.clear();
        match committed {
            Ok(replies) => {
                self.count(&tally, began, &replies);
                self.deliver(replies);
                self.ledger.tails.trim();
            }
            Err(uncommitted) => {
                error!(source = %uncommitted.error, requests = tally.requests,
                    "a batch was not written; the store takes no more writes until it is opened again");
                self.stop();
                self.deliver(failed(uncommitted.replies));
            }
        }
    }

    fn own_counts(&self) -> &Mutex<CommitterCounts> {
        &self.counts.committers[self.number]
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.ledger.tails.forget_all();
        let mut counts = lock(self.own_counts());
        counts.stopped = true;
        counts.commit_since = None;
    }

    fn refuse_pending(&mut self) {
        let mut replies = Vec::with_capacity(self.pending.len());
        let mut seen_lost = 0;
        for envelope in self.pending.drain(..) {
            match envelope.request.token() {
                Some(token) => replies.push((envelope.client, unwritable(token))),
                None => seen_lost += 1,
            }
        }
        lock(self.own_counts()).seen_lost += seen_lost;
        self.deliver(replies);
    }

    fn count(&self, tally: &Tally, began: Instant, replies: &[(usize, Reply)]) {
        let mut counts = lock(self.own_counts());
        counts.commit_since = None;
        counts.commits += 1;
        counts
            .commit_us
            .saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        counts.commit_requests.saturating_record(tally.requests);
        counts.appended += tally.appended;
        counts.appended_bytes += tally.appended_bytes;
        counts.burned += tally.burned;
        counts.seen += tally.seen;
        counts.seen_lost += tally.seen_lost;
        counts.tail_misses = self.ledger.tail_misses;
        count_failures(&mut counts.failed, replies);
    }

    /// One piece, and one wake, for each client.
    fn deliver(&self, replies: Vec<(usize, Reply)>) {
        if self.stopped {
            count_failures(&mut lock(self.own_counts()).failed, &replies);
        }
        let mut by_client: Vec<Vec<Reply>> = Vec::new();
        for (client, reply) in replies {
            if by_client.len() <= client {
                by_client.resize_with(client + 1, Vec::new);
            }
            if let Some(of_client) = by_client.get_mut(client) {
                of_client.push(reply);
            }
        }
        for (client, of_client) in by_client.into_iter().enumerate() {
            self.outlets.deliver(client, of_client);
        }
    }
}

fn unwritable(token: u64) -> Reply {
    Reply::Failed {
        token,
        error: FailureKind::Unwritable,
    }
}

fn failed(replies: Vec<(usize, Reply)>) -> Vec<(usize, Reply)> {
    let fail = |(client, reply): (usize, Reply)| match reply {
        Reply::Failed { .. } => (client, reply),
        _ => (client, unwritable(reply.token())),
    };
    replies.into_iter().map(fail).collect()
}

fn count_failures(counts: &mut [u64; FailureKind::ALL.len()], replies: &[(usize, Reply)]) {
    for (_, reply) in replies {
        if let Reply::Failed { error, .. } = reply
            && let Some(count) = counts.get_mut(*error as usize)
        {
            *count += 1;
        }
    }
}
