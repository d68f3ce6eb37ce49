//! The one thread that writes to a database.
//!
//! Group commit: it takes what is queued (up to `commit_requests_max` and about `commit_bytes_max`), makes one
//! batch of it, syncs once, and only then replies. What arrives during the sync is the next batch; when idle it
//! waits for nothing. Invariants: nothing is acknowledged before its sync returned; after a failed write nothing
//! is written or acknowledged until the database was opened again, because what became of the failed batch is known
//! only then; whatever was taken from the queue is answered, also if this thread panics.
//!
//! After a failure, or a panic, it gives up its ledger, and with it its handle on the database, tells the watch, and
//! answers everything as unwritable, at once, until it is handed another ledger.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use tracing::error;

use crate::batch::{Batch, Step, Tally, Uncommitted};
use crate::client::{Envelope, Outlets, Write};
use crate::database::Tables;
use crate::disk::{Condition, Notice};
use crate::ledger::Ledger;
use crate::metrics::{CommitterCounts, Counts, lock};
use crate::options::StoreOptions;
use crate::request::{FailureKind, Reply};

/// Between two looks at a database that is behind with its tables.
const BEHIND_PAUSE: Duration = Duration::from_millis(5);

/// What ties a committer to the rest of the store.
pub(crate) struct Links {
    pub(crate) requests: Receiver<Envelope<Write>>,
    pub(crate) outlets: Outlets,
    pub(crate) counts: Arc<Counts>,
    pub(crate) condition: Arc<Condition>,
    pub(crate) notices: Sender<Notice>,
}

/// The committer's state.
pub(crate) struct Committer {
    /// Of its database.
    number: usize,
    /// None while its database cannot be written.
    ledger: Option<Ledger>,
    links: Links,
    window: Duration,
    requests_max: usize,
    bytes_max: u64,
    /// Taken from the queue and not yet in a batch; at most `requests_max`.
    pending: VecDeque<Envelope<Write>>,
    /// Who waits for the batch in the making, to be told if it comes to nothing.
    in_hand: Vec<(usize, u64)>,
    batches: u64,
    closing: bool,
}

impl Committer {
    pub(crate) fn new(
        number: usize,
        ledger: Ledger,
        links: Links,
        options: &StoreOptions,
    ) -> Committer {
        let committer = Committer {
            number,
            ledger: Some(ledger),
            links,
            window: options.commit_window,
            requests_max: options.commit_requests_max.max(1),
            bytes_max: options.commit_bytes_max as u64,
            pending: VecDeque::new(),
            in_hand: Vec::new(),
            batches: 0,
            closing: false,
        };
        committer.begin();
        committer
    }

    /// A ledger was handed over.
    fn begin(&self) {
        let mut counts = lock(self.own_counts());
        counts.stopped = false;
        if let Some(ledger) = &self.ledger {
            counts.live_messages = ledger.totals.messages;
            counts.live_bytes = ledger.totals.bytes;
        }
    }

    /// Runs until the store is closed. False if its database could not be written then.
    pub(crate) fn run(mut self) -> bool {
        while self.fill() {
            let Some(mut ledger) = self.ledger.take() else {
                self.refuse_pending();
                continue;
            };
            match catch_unwind(AssertUnwindSafe(|| self.write_batch(&mut ledger))) {
                Ok(true) => self.ledger = Some(ledger),
                Ok(false) => self.stop(ledger),
                Err(_) => {
                    // A fault of ours or of the database's. What it left in memory is not believed.
                    error!(database = self.number, "the committer panicked");
                    self.stop(ledger);
                    let in_hand = std::mem::take(&mut self.in_hand);
                    let unanswered = in_hand.into_iter();
                    let replies = unanswered.map(|(client, token)| (client, unwritable(token)));
                    self.deliver_failed(replies.collect());
                }
            }
        }
        self.ledger.is_some()
    }

    /// Takes what is queued; waits only if there is nothing. False when the store closes and all is done.
    fn fill(&mut self) -> bool {
        if self.pending.is_empty() && !self.closing {
            match self.links.requests.recv() {
                Ok(envelope) => self.take(envelope),
                Err(_) => return false,
            }
        }
        let deadline = (!self.window.is_zero()).then(|| Instant::now() + self.window);
        while self.pending.len() < self.requests_max {
            let next = match deadline {
                Some(deadline) if !self.closing => self.links.requests.recv_deadline(deadline).ok(),
                _ => self.links.requests.try_recv().ok(),
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
            Write::Resume(ledger) => {
                self.ledger = Some(*ledger);
                self.begin();
            }
            Write::GiveUp => {
                if let Some(ledger) = self.ledger.take() {
                    self.stop(ledger);
                }
            }
            _ => self.pending.push_back(envelope),
        }
    }

    /// False: the database takes no more writes.
    fn write_batch(&mut self, ledger: &mut Ledger) -> bool {
        self.batches += 1;
        let refuses_appends = self.links.condition.is_refusing();
        let mut batch = Batch::new(ledger, self.batches, self.pending.len());
        self.in_hand.clear();
        while batch.tally.appended_bytes < self.bytes_max
            && let Some(envelope) = self.pending.pop_front()
        {
            let token = envelope.request.token();
            let client = envelope.client;
            // Before it is tried, so that a panic leaves nobody waiting.
            self.in_hand.extend(token.map(|token| (client, token)));
            if let Write::Append { token, .. } = envelope.request
                && refuses_appends
            {
                batch.refuse(client, token, FailureKind::DiskFull);
                continue;
            }
            match batch.apply(ledger, envelope) {
                Ok(Step::Taken) => {}
                Ok(Step::NotYet(envelope)) => {
                    self.in_hand.pop();
                    self.pending.push_front(envelope);
                    break;
                }
                Err(source) => {
                    error!(%source, "no sequence can be reserved: nothing is written until the disk takes writes again");
                    self.in_hand.clear();
                    self.note_stopped();
                    self.deliver_failed(batch.abandon());
                    return false;
                }
            }
        }
        self.commit(batch, ledger)
    }

    fn commit(&mut self, batch: Batch, ledger: &mut Ledger) -> bool {
        let tally = batch.tally;
        let is_synced = batch.synced;
        let began = Instant::now();
        lock(self.own_counts()).commit_since = Some(began);
        let committed = match wait_until_not_behind(&ledger.tables) {
            Ok(()) => batch.commit(ledger),
            Err(error) => Err(Uncommitted {
                error,
                replies: batch.abandon(),
            }),
        };
        // From here on the replies themselves say what became of each.
        self.in_hand.clear();
        match committed {
            Ok(replies) => {
                if is_synced {
                    ledger.note_synced(tally.appended);
                }
                self.count(ledger, &tally, began, &replies);
                self.deliver(replies);
                ledger.rest();
                true
            }
            Err(uncommitted) => {
                error!(source = %uncommitted.error, database = self.number, requests = tally.requests,
                    "a batch was not written: nothing is, until the disk takes writes again");
                if matches!(uncommitted.error, fjall::Error::Poisoned) {
                    // One of the database's own threads had failed: a merge may have met a damaged block.
                    self.links.condition.note_unreadable(self.number);
                }
                self.note_stopped();
                self.deliver_failed(uncommitted.replies);
                false
            }
        }
    }

    fn own_counts(&self) -> &Mutex<CommitterCounts> {
        &self.links.counts.committers[self.number]
    }

    /// Gives the ledger up, and tells the watch when the handle on the database is gone.
    fn stop(&mut self, ledger: Ledger) {
        self.note_stopped();
        drop(ledger);
        // The watch ends before the committers: then nobody heals, and nothing is left to heal.
        let _ended = self.links.notices.send(Notice::Failed(self.number));
        self.refuse_pending();
    }

    /// Before the first answer that says so: whoever is refused and looks finds out why.
    fn note_stopped(&self) {
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
                None => {
                    seen_lost += u64::from(matches!(envelope.request, Write::Seen { .. }));
                }
            }
        }
        lock(self.own_counts()).seen_lost += seen_lost;
        self.deliver_failed(replies);
    }

    fn count(&self, ledger: &Ledger, tally: &Tally, began: Instant, replies: &[(usize, Reply)]) {
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
        counts.expired += tally.expired;
        counts.dropped += tally.dropped;
        counts.live_messages = ledger.totals.messages;
        counts.live_bytes = ledger.totals.bytes;
        counts.seen += tally.seen;
        counts.seen_lost += tally.seen_lost;
        counts.tail_misses = ledger.tail_misses;
        let failed_before = counts.failed;
        count_failures(&mut counts.failed, replies);
        let unreadable = FailureKind::Unreadable as usize;
        if counts.failed[unreadable] > failed_before[unreadable] {
            self.links.condition.note_unreadable(self.number);
        }
    }

    /// Of a batch that came to nothing, or of no batch: whatever was to be said, it is a failure.
    fn deliver_failed(&self, replies: Vec<(usize, Reply)>) {
        let replies = failed(replies);
        count_failures(&mut lock(self.own_counts()).failed, &replies);
        self.deliver(replies);
    }

    /// One piece, and one wake, for each client.
    fn deliver(&self, replies: Vec<(usize, Reply)>) {
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
            self.links.outlets.deliver(client, of_client);
        }
    }
}

/// Waits as the database itself would, but not for ever: its workers may have failed.
fn wait_until_not_behind(tables: &Tables) -> fjall::Result<()> {
    while tables.is_behind() {
        tables.check()?;
        thread::sleep(BEHIND_PAUSE);
    }
    Ok(())
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
