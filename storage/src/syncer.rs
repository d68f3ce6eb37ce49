//! The thread of a database that syncs what its committer has written, and only then answers: `iris-sync-N`.
//!
//! The committer writes a batch and hands it over; while it is being synced, the next one is made and written. Whatever
//! has come by the time of a sync is answered by that sync. fjall's lock on the journal is not needed for it: the thread
//! syncs the file by a descriptor of its own ([`crate::journal`]).
//!
//! Invariants: nothing is acknowledged before its sync returned; batches are synced and answered in the order they were
//! written; after a failed sync nothing is acknowledged any more, and all that was or will be handed over is answered as
//! unwritable, also if this thread panics; once a `Syncer` is dropped, everything was answered and no handle on the
//! database is left.
//!
//! Queue: what was written and not yet synced, bounded by [`UNSYNCED_BATCHES_MAX`] and [`UNSYNCED_BYTES_MAX`]; when that
//! is full the committer writes nothing more.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, unbounded};
use tracing::{error, warn};

use crate::answers::Answers;
use crate::database::Tables;
use crate::journal::Stand;
use crate::priority;
use crate::recovery::synced::{self, Mark};
use crate::written::{Answer, Written};

/// Batches that may be written and not synced: those of a sync that takes some ten milliseconds, because the disk is busy
/// with a merge. A sync that takes longer is not made up for by more of them; what comes then waits in the queue, and is
/// refused there.
const UNSYNCED_BATCHES_MAX: usize = 32;
/// Their bytes (one batch more may go over it): what the next sync has to write takes some ten milliseconds at most.
const UNSYNCED_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What became of a sync.
enum Outcome {
    Synced { batches: usize, bytes: u64 },
    Failed,
}

/// The thread as the committer holds it.
pub(crate) struct Syncer {
    /// None while it ends.
    to_sync: Option<Sender<Written>>,
    outcomes: Receiver<Outcome>,
    unsynced_batches: usize,
    unsynced_bytes: u64,
    has_failed: bool,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn open(tables: &Tables, mark: Mark, answers: Answers) -> io::Result<Syncer> {
        let (to_sync, written) = bounded(UNSYNCED_BATCHES_MAX);
        let (outcomes_sent, outcomes) = unbounded();
        let name = format!("iris-sync-{}", answers.number);
        let mut round = Round {
            written,
            outcomes: outcomes_sent,
            group: Vec::new(),
            tables: tables.clone(),
            mark,
            answers,
        };
        let thread = thread::Builder::new().name(name).spawn(move || {
            priority::stand_back();
            round.run();
        })?;
        Ok(Syncer {
            to_sync: Some(to_sync),
            outcomes,
            unsynced_batches: 0,
            unsynced_bytes: 0,
            has_failed: false,
            thread: Some(thread),
        })
    }

    /// Hands over what was just written. Not when it is full.
    ///
    /// # Errors
    /// If the thread has died: the answers come back.
    pub(crate) fn hand_over(&mut self, written: Written) -> Result<(), Vec<Answer>> {
        let Some(to_sync) = &self.to_sync else {
            return Err(written.answers);
        };
        let bytes = written.bytes;
        let sent = to_sync.send(written);
        sent.map_err(|refused| refused.0.answers)?;
        self.unsynced_batches += 1;
        self.unsynced_bytes += bytes;
        Ok(())
    }

    /// Whether nothing is written that is not synced.
    pub(crate) fn is_idle(&self) -> bool {
        self.unsynced_batches == 0
    }

    /// Whether no more is to be written.
    pub(crate) fn is_full(&self) -> bool {
        self.unsynced_batches >= UNSYNCED_BATCHES_MAX || self.unsynced_bytes >= UNSYNCED_BYTES_MAX
    }

    /// Hears what has been synced; false once a sync has failed.
    pub(crate) fn hear(&mut self) -> bool {
        loop {
            match self.outcomes.try_recv() {
                Ok(outcome) => self.note(&outcome),
                Err(TryRecvError::Empty) => return !self.has_failed,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Waits until something has been synced, but no longer than this.
    pub(crate) fn wait(&mut self, timeout: Duration) {
        match self.outcomes.recv_timeout(timeout) {
            Ok(outcome) => self.note(&outcome),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.has_failed = true,
        }
    }

    fn note(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Synced { batches, bytes } => {
                self.unsynced_batches -= batches;
                self.unsynced_bytes -= bytes;
            }
            Outcome::Failed => self.has_failed = true,
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.to_sync = None;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// The thread's own.
struct Round {
    written: Receiver<Written>,
    outcomes: Sender<Outcome>,
    /// What the sync under way is for.
    group: Vec<Written>,
    tables: Tables,
    /// What is synced, for the next opening.
    mark: Mark,
    answers: Answers,
}

impl Round {
    fn run(&mut self) {
        while let Ok(first) = self.written.recv() {
            self.group.push(first);
            self.group.extend(self.written.try_iter());
            let outcome = Outcome::Synced {
                batches: self.group.len(),
                bytes: self.group.iter().map(|written| written.bytes).sum(),
            };
            let synced = catch_unwind(AssertUnwindSafe(|| {
                self.sync()?;
                self.answers.acknowledge(&mut self.group);
                self.rest();
                Ok(())
            }));
            match synced {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let requests = self.group.iter().map(|written| written.tally.requests);
                    self.answers.tell_why(&error, requests.sum());
                    return self.fail();
                }
                Err(_) => {
                    error!(database = self.answers.number, "the sync thread panicked");
                    return self.fail();
                }
            }
            self.group.clear();
            // It goes before this thread does only while it waits for this one to end.
            let _ended = self.outcomes.send(outcome);
        }
    }

    /// Makes the group durable, if anything in it must be.
    fn sync(&mut self) -> fjall::Result<()> {
        if !self.group.iter().any(|written| written.needs_sync) {
            return Ok(());
        }
        let stands = || self.group.iter().map(|written| &written.stand);
        let mut synced_to = None;
        for journal in stands().flat_map(|stand| [&stand.before, &stand.after]) {
            if synced_to.is_none_or(|number| number < journal.number) {
                journal.sync()?;
                synced_to = Some(journal.number);
            }
        }
        if stands().any(Stand::is_moved) {
            // Between the commit and the look for a new journal one of the database's own threads may have heard, instead
            // of us, that it could not be written. Then the database takes no more writes.
            self.tables.check()?;
        }
        for written in &self.group {
            self.tables.durable.note(written.next_seqno);
        }
        let noted = self.group.iter().map(|written| synced::Batch {
            stand: [written.stand.before.number, written.stand.after.number],
            sequence: written.totals.last_sequence,
            messages: written.tally.appended,
            seqnos: written.seqnos,
        });
        if let Err(error) = self.mark.note(noted) {
            // It says less than is true then; that is all.
            warn!(%error, "what is synced could not be noted");
        }
        Ok(())
    }

    /// Between two syncs, when nobody waits for this one any more.
    fn rest(&mut self) {
        if let Err(error) = self.mark.rest() {
            warn!(%error, "the mark of what is synced was not synced itself");
        }
    }

    /// Answers everything as a failure, until the committer has heard of it.
    fn fail(&mut self) {
        self.answers.note_stopped();
        // What a panic came after has no answers left.
        for written in std::mem::take(&mut self.group) {
            self.answers.refuse(written.answers);
        }
        let _ended = self.outcomes.send(Outcome::Failed);
        for written in &self.written {
            self.answers.refuse(written.answers);
        }
    }
}
