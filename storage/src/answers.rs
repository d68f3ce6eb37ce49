//! How the replies of a database go out: counted, in one piece and with one wake for each client.
//!
//! Owner: its committer and its sync thread, with one each. Invariant: the counts are there before the replies are:
//! whoever is told and looks sees what it was told.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tracing::error;

use crate::disk::Condition;
use crate::metrics::{CommitterCounts, Counts, lock};
use crate::outlets::{Delivery, Outlet, Outlets, Spent};
use crate::request::{FailureKind, Reply};
use crate::written::{Answer, Written};

/// The way back to the clients.
#[derive(Clone)]
pub(crate) struct Answers {
    /// Of the database.
    pub(crate) number: usize,
    pub(crate) outlets: Outlets,
    pub(crate) counts: Arc<Counts>,
    pub(crate) condition: Arc<Condition>,
}

impl Answers {
    pub(crate) fn own_counts(&self) -> &Mutex<CommitterCounts> {
        &self.counts.committers[self.number]
    }

    /// A batch is being written from this moment on.
    pub(crate) fn note_begun(&self, began: Instant) {
        lock(self.own_counts()).under_way.push_back(began);
    }

    /// The database takes no more writes. Before the first answer that says so: whoever is refused and looks finds out why.
    pub(crate) fn note_stopped(&self) {
        let mut counts = lock(self.own_counts());
        counts.stopped = true;
        counts.under_way.clear();
    }

    /// What made it stop.
    pub(crate) fn tell_why(&self, source: &fjall::Error, requests: u64) {
        error!(%source, database = self.number, requests,
            "a batch was not written: nothing is, until the disk takes writes again");
        if matches!(source, fjall::Error::Poisoned) {
            // One of the database's own threads had failed: a merge may have met a damaged block.
            self.condition.note_unreadable(self.number);
        }
    }

    /// These are done, the oldest first.
    pub(crate) fn acknowledge(&self, batches: &mut [Written]) {
        self.count(batches);
        let mut outgoing = Outgoing::to(&self.outlets);
        for written in batches.iter_mut() {
            for answer in written.answers.drain(..) {
                outgoing.answer(answer);
            }
            for (client, spent) in written.spent.drain(..) {
                outgoing.give_back(client, spent);
            }
        }
        outgoing.send();
        for beat in batches
            .iter_mut()
            .flat_map(|written| written.beats.drain(..))
        {
            // Who no longer waits need not hear of it.
            let _gone = beat.try_send(());
        }
    }

    /// Of a batch that came to nothing, or of no batch: whatever was to be said, it is a failure.
    pub(crate) fn refuse(&self, mut answers: Vec<Answer>) {
        for answer in &mut answers {
            if !matches!(answer.reply, Reply::Failed { .. }) {
                answer.reply = unwritable(answer.reply.token());
            }
        }
        count_failures(&mut lock(self.own_counts()).failed, &answers);
        let mut outgoing = Outgoing::to(&self.outlets);
        for answer in answers {
            outgoing.answer(answer);
        }
        outgoing.send();
    }

    fn count(&self, batches: &[Written]) {
        let mut counts = lock(self.own_counts());
        let failed_before = counts.failed;
        for written in batches {
            let tally = &written.tally;
            counts.under_way.pop_front();
            counts.commits += 1;
            let took_us = u64::try_from(written.began.elapsed().as_micros()).unwrap_or(u64::MAX);
            counts.commit_us.saturating_record(took_us);
            counts.commit_requests.saturating_record(tally.requests);
            counts.appended += tally.appended;
            counts.appended_bytes += tally.appended_bytes;
            counts.burned += tally.burned;
            counts.expired += tally.expired;
            counts.dropped += tally.dropped;
            counts.live_messages = written.totals.messages;
            counts.live_bytes = written.totals.bytes;
            counts.seen += tally.seen;
            counts.seen_lost += tally.seen_lost;
            counts.tail_misses = written.tail_misses;
            count_failures(&mut counts.failed, &written.answers);
        }
        let unreadable = FailureKind::Unreadable as usize;
        if counts.failed[unreadable] > failed_before[unreadable] {
            self.condition.note_unreadable(self.number);
        }
    }
}

/// Replies on their way out, one delivery for each client.
struct Outgoing<'a> {
    outlets: &'a Outlets,
    by_client: Vec<Option<(Arc<Outlet>, Delivery)>>,
}

impl Outgoing<'_> {
    fn to(outlets: &Outlets) -> Outgoing<'_> {
        Outgoing {
            outlets,
            by_client: Vec::new(),
        }
    }

    fn answer(&mut self, Answer { client, reply, .. }: Answer) {
        if self.by_client.len() <= client {
            self.by_client.resize_with(client + 1, || None);
        }
        let of_client = &mut self.by_client[client];
        if of_client.is_none()
            && let Some(outlet) = self.outlets.of(client)
        {
            let delivery = outlet.empty();
            *of_client = Some((outlet, delivery));
        }
        if let Some((_, delivery)) = of_client {
            delivery.replies.push_back(reply);
        }
    }

    /// To a client that gets a reply, too; whoever gets none is not woken for it.
    fn give_back(&mut self, client: usize, spent: Spent) {
        if let Some(Some((_, delivery))) = self.by_client.get_mut(client) {
            delivery.spent.push(spent);
        }
    }

    fn send(self) {
        for (outlet, delivery) in self.by_client.into_iter().flatten() {
            outlet.deliver(delivery);
        }
    }
}

/// What a request is told that was not done because the disk takes no writes.
pub(crate) fn unwritable(token: u64) -> Reply {
    Reply::Failed {
        token,
        error: FailureKind::Unwritable,
    }
}

fn count_failures(counts: &mut [u64; FailureKind::ALL.len()], answers: &[Answer]) {
    for answer in answers {
        if let Reply::Failed { error, .. } = answer.reply
            && let Some(count) = counts.get_mut(error as usize)
        {
            *count += 1;
        }
    }
}
