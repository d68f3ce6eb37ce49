//! The one thread that writes to a database.
//!
//! Group commit: it takes what is queued (up to `commit_requests_max` and about `commit_bytes_max`), makes one batch of it,
//! writes it, and hands it to the sync thread, which answers once it is synced. When idle it waits for nothing. While a sync
//! is under way it begins another batch only when enough is waiting to be worth one ([`EARLY_REQUESTS`]).
//!
//! The requests of a batch are done in the order of their users' keys. So sequences rise with keys, as recovery wants them
//! to, and the memtable is searched for neighbours one after the other: most of the way is in the nearest cache then.
//!
//! Invariants: what is asked for one user takes effect in the order it was asked; after a failed write or sync nothing is
//! written or acknowledged until the database was opened again, because what became of the failed batches is known only
//! then; whatever was taken from the queue is answered, also if this thread panics.
//!
//! After a failure, or a panic, it gives up its ledger, and with it its handle on the database, tells the watch, and
//! answers everything as unwritable, at once, until it is handed another ledger.

use std::collections::VecDeque;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use tracing::error;

use crate::answers::{Answers, unwritable};
use crate::backpressure::wait_for_workers;
use crate::batch::{Batch, Step};
use crate::client::{Envelope, Write};
use crate::disk::Notice;
use crate::entrance::{Exit, Fifo};
use crate::ledger::Ledger;
use crate::metrics::lock;
use crate::options::StoreOptions;
use crate::pace::LastBatch;
use crate::request::FailureKind;
use crate::written::Answer;

/// Requests that make another batch while one is being synced. A batch costs as much as some dozens of requests, whatever
/// its size.
const EARLY_REQUESTS: usize = 256;
/// Requests taken from the queue under one lock: those who put some in wait meanwhile.
const TAKE_AT_ONCE: usize = 64;
/// Between two looks at the queue during a sync: to be woken for each request would cost the cores more than the requests.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Requests whose users are looked up together ([`Committer::look_ahead`]): what they need fits the nearest cache. It takes a
/// tenth of the committer's time off.
const LOOK_AHEAD: usize = 32;

/// What ties a committer to the rest of the store.
pub(crate) struct Links {
    pub(crate) requests: Exit<Fifo<Write>>,
    pub(crate) answers: Answers,
    pub(crate) notices: Sender<Notice>,
}

/// The committer's state.
pub(crate) struct Committer {
    /// None while its database cannot be written.
    ledger: Option<Ledger>,
    links: Links,
    window: Duration,
    requests_max: usize,
    bytes_max: u64,
    /// What was taken from the queue just now; empty in between.
    arrived: Vec<Envelope<Write>>,
    /// Taken from the queue and not yet in a batch, each with its number; at most `requests_max`.
    pending: VecDeque<(u64, Envelope<Write>)>,
    /// So many of them at the front are in order: the rest of a batch.
    in_order: usize,
    /// Requests taken so far.
    taken: u64,
    /// Who waits for the batch in the making, to be told if it comes to nothing.
    in_hand: Vec<(u64, usize, u64)>,
    batches: u64,
    last: Option<LastBatch>,
    closing: bool,
}

impl Committer {
    pub(crate) fn new(ledger: Ledger, links: Links, options: &StoreOptions) -> Committer {
        let committer = Committer {
            ledger: Some(ledger),
            links,
            window: options.commit_window,
            requests_max: options.commit_requests_max.max(1),
            bytes_max: (options.commit_bytes_max as u64).max(1),
            arrived: Vec::new(),
            pending: VecDeque::new(),
            in_order: 0,
            taken: 0,
            in_hand: Vec::new(),
            batches: 0,
            last: None,
            closing: false,
        };
        committer.begin();
        committer
    }

    /// A ledger was handed over.
    fn begin(&self) {
        let mut counts = lock(self.links.answers.own_counts());
        counts.stopped = false;
        if let Some(ledger) = &self.ledger {
            counts.live_messages = ledger.totals.messages;
            counts.live_bytes = ledger.totals.bytes;
            ledger.merger.begin();
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
                    error!(
                        database = self.links.answers.number,
                        "the committer panicked"
                    );
                    self.stop(ledger);
                    let in_hand = std::mem::take(&mut self.in_hand);
                    let unanswered = in_hand.into_iter().map(|(number, client, token)| Answer {
                        number,
                        client,
                        reply: unwritable(token),
                    });
                    self.links.answers.refuse(unanswered.collect());
                }
            }
        }
        self.ledger.is_some()
    }

    /// Takes what is queued, and waits until it is time for a batch. False when the store closes and all is done.
    fn fill(&mut self) -> bool {
        while !self.is_time() {
            if let Some(ledger) = &mut self.ledger
                && !ledger.syncer.is_idle()
            {
                ledger.syncer.wait(LOOK_EVERY);
            } else if self.closing {
                return false;
            } else {
                let envelope = self.links.requests.take();
                self.take(envelope);
            }
        }
        if !self.window.is_zero() {
            let deadline = Instant::now() + self.window;
            while self.pending.len() < self.requests_max
                && !self.closing
                && let Some(envelope) = self.links.requests.take_by(deadline)
            {
                self.take(envelope);
            }
        }
        true
    }

    /// Whether what is waiting is to be written now.
    fn is_time(&mut self) -> bool {
        if let Some(mut ledger) = self.ledger.take() {
            if ledger.syncer.hear() {
                self.ledger = Some(ledger);
            } else {
                self.stop(ledger);
            }
        }
        loop {
            let room = self.requests_max.saturating_sub(self.pending.len());
            let mut arrived = std::mem::take(&mut self.arrived);
            let requests = &self.links.requests;
            requests.take_some(room.min(TAKE_AT_ONCE), &mut arrived);
            let is_all = arrived.is_empty();
            arrived.drain(..).for_each(|envelope| self.take(envelope));
            self.arrived = arrived;
            if is_all {
                break;
            }
        }
        let waiting = self.pending.len();
        let enough = EARLY_REQUESTS.min(self.requests_max);
        match &self.ledger {
            Some(ledger) if !ledger.syncer.is_idle() => {
                waiting >= enough && !ledger.syncer.is_full()
            }
            _ => waiting > 0,
        }
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
            _ => {
                self.taken += 1;
                self.pending.push_back((self.taken, envelope));
            }
        }
    }

    /// False: the database takes no more writes.
    fn write_batch(&mut self, ledger: &mut Ledger) -> bool {
        self.batches += 1;
        self.put_in_order();
        let answers = &self.links.answers;
        let refuses_appends = answers.condition.is_refusing();
        let mut batch = Batch::new(ledger, self.batches, self.in_order);
        self.in_hand.clear();
        while self.in_order > 0
            && let Some((number, envelope)) = self.pending.pop_front()
        {
            if batch.tally.requests.is_multiple_of(LOOK_AHEAD as u64) {
                self.look_ahead(ledger);
            }
            self.in_order -= 1;
            let token = envelope.request.token();
            let client = envelope.client;
            // Before it is tried, so that a panic leaves nobody waiting.
            self.in_hand
                .extend(token.map(|token| (number, client, token)));
            if refuses_appends
                && let Write::Append {
                    token,
                    name,
                    record,
                    ..
                } = envelope.request
            {
                let full = (FailureKind::DiskFull, (name, record));
                batch.refuse(number, client, token, full);
                continue;
            }
            match batch.apply(ledger, number, envelope) {
                Ok(Step::Taken) => {}
                Ok(Step::NotYet(envelope)) => {
                    self.in_hand.pop();
                    self.pending.push_front((number, envelope));
                    self.in_order += 1;
                    break;
                }
                Err(source) => {
                    error!(%source, "no sequence can be reserved: nothing is written until the disk takes writes again");
                    self.in_hand.clear();
                    answers.note_stopped();
                    answers.refuse(batch.abandon());
                    return false;
                }
            }
        }
        self.commit(batch, ledger)
    }

    /// Has the next batch begin at the front. What is left of the last one is a batch of its own: whoever came later does
    /// not go before it.
    fn put_in_order(&mut self) {
        if self.in_order > 0 {
            return;
        }
        let mut bytes = 0;
        let of_batch = self.pending.iter().take_while(|(_, envelope)| {
            let fits = bytes < self.bytes_max;
            bytes += envelope.request.record_len();
            fits
        });
        self.in_order = of_batch.count();
        let of_batch = &mut self.pending.make_contiguous()[..self.in_order];
        of_batch.sort_by_key(|(_, envelope)| {
            let place = envelope.request.place();
            (place.is_none(), place)
        });
    }

    /// Has what the next requests of the batch need come into the cache.
    fn look_ahead(&self, ledger: &Ledger) {
        for (_, envelope) in self.pending.iter().take(self.in_order.min(LOOK_AHEAD)) {
            if let Write::Append { name, record, .. } = &envelope.request {
                black_box((name.as_bytes().first().copied(), record.first().copied()));
            }
            if let Some(user) = envelope.request.place() {
                ledger.tails.look_at(user);
            }
        }
    }

    fn commit(&mut self, batch: Batch, ledger: &mut Ledger) -> bool {
        let answers = &self.links.answers;
        let requests = batch.tally.requests;
        let began = Instant::now();
        answers.note_begun(began);
        let committed = match wait_for_workers(&ledger.tables, self.last) {
            Ok(()) => {
                self.last = Some(batch.as_last(Instant::now()));
                let committed = batch.commit(ledger, began);
                committed.map_err(|uncommitted| (uncommitted.error, uncommitted.answers))
            }
            Err(error) => Err((error, batch.abandon())),
        };
        // From here on the answers themselves say what became of each.
        self.in_hand.clear();
        let unanswered = match committed {
            Ok(written) => {
                if written.stand.is_moved() {
                    let left = written.stand.before.path.clone();
                    ledger.burial.journal_left(left);
                }
                match ledger.syncer.hand_over(written) {
                    Ok(()) => {
                        ledger.rest();
                        return true;
                    }
                    // It told why when it ended.
                    Err(unanswered) => unanswered,
                }
            }
            Err((error, unanswered)) => {
                answers.tell_why(&error, requests);
                unanswered
            }
        };
        answers.note_stopped();
        answers.refuse(unanswered);
        false
    }

    /// Gives the ledger up, and tells the watch when the handle on the database is gone.
    fn stop(&mut self, ledger: Ledger) {
        self.links.answers.note_stopped();
        drop(ledger);
        // The watch ends before the committers: then nobody heals, and nothing is left to heal.
        let notice = Notice::Failed(self.links.answers.number);
        let _ended = self.links.notices.send(notice);
        self.refuse_pending();
    }

    fn refuse_pending(&mut self) {
        let mut unanswered = Vec::with_capacity(self.pending.len());
        let mut seen_lost = 0;
        self.in_order = 0;
        for (number, envelope) in self.pending.drain(..) {
            match envelope.request.token() {
                Some(token) => unanswered.push(Answer {
                    number,
                    client: envelope.client,
                    reply: unwritable(token),
                }),
                None => {
                    seen_lost += u64::from(matches!(envelope.request, Write::Seen { .. }));
                }
            }
        }
        lock(self.links.answers.own_counts()).seen_lost += seen_lost;
        self.links.answers.refuse(unanswered);
    }
}
