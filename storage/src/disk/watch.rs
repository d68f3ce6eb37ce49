//! The thread that watches the disk and heals what failed on it.
//!
//! A committer whose write failed gives up its handle and says so here; from then on it answers everything with a
//! failure, at once. This thread waits until the disk takes writes again, closes the database, mends its files, opens
//! it, and gives it back: to the readers in its place, to the committer as a ledger that remembers nothing.
//!
//! Where a block of a table cannot be read, by a reader or by a merge, it reads all tables of that database, one between
//! two looks at everything else, and takes the database up again without those that are damaged; what is sound in them is
//! put back while it is opened.
//!
//! Invariants: a database is closed only when a probe says that the disk takes writes, since until then it can at
//! least be read; the counter of sequences outlives all of this, so none comes twice; nothing here holds up a
//! committer or a reader for longer than a page takes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tracing::{error, info, warn};

use super::ballast::Ballast;
use super::condition::Condition;
use super::mend;
use super::space::{Order, Space, free_bytes};
use crate::client::{Envelope, Write};
use crate::database::{self, Tables};
use crate::databases::Databases;
use crate::entrance::{Entrance, Fifo};
use crate::folder::Folder;
use crate::ledger::LedgerSource;
use crate::options::StoreOptions;
use crate::priority;
use crate::recovery::{Search, TableName};

/// Between two looks at the disk. At a gigabyte a second, a quarter of one is written in between: half the default of
/// `free_bytes_min`.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Before the first try to heal, and the most between two. Each try writes and syncs a page.
const TRY_AFTER_MIN: Duration = Duration::from_millis(50);
const TRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// A database that fails again within this time after it was healed has not been healed.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// Between two searches for damaged blocks, at least; and so many times as long as one takes.
const SEARCH_AGAIN_AFTER: Duration = Duration::from_secs(10);
const SEARCH_PART: u32 = 20;
/// What must be free to open a database: the files it writes when it opens, with room to spare.
const OPENING_BYTES: u64 = 1 << 20;

/// What the watch is told.
pub(crate) enum Notice {
    /// The committer of this database has given it up.
    Failed(usize),
    /// The store closes.
    Close,
}

/// The watch's state.
pub(crate) struct Watch {
    pub(crate) notices: Receiver<Notice>,
    pub(crate) options: StoreOptions,
    pub(crate) folder: Arc<Folder>,
    pub(crate) databases: Arc<Databases>,
    pub(crate) writes: Arc<[Entrance<Fifo<Write>>]>,
    pub(crate) ledgers: LedgerSource,
    pub(crate) condition: Arc<Condition>,
    pub(crate) space: Space,
    pub(crate) ballast: Ballast,
    /// By number: how it stands with a database that has failed.
    pub(crate) patients: Vec<Patient>,
    /// A database was opened, whose workers are not yet told to stand back: they name themselves when they run.
    pub(crate) workers_are_new: bool,
}

/// A database in its illnesses.
#[derive(Default)]
pub(crate) struct Patient {
    failed_at: Option<Instant>,
    healed_at: Option<Instant>,
    tries: u32,
    next_try_at: Option<Instant>,
    search: Option<(Search, Instant)>,
    next_search_at: Option<Instant>,
    /// Tables without which it is to be opened the next time.
    damaged: Vec<TableName>,
}

impl Patient {
    /// Begins a search for damaged blocks, unless one was made just now.
    fn suspect(&mut self, database: &Path, now: Instant) {
        if self.search.is_none() && self.next_search_at.is_none_or(|at| at <= now) {
            self.search = Some((Search::begin(database), now));
        }
    }

    /// Reads one more table. True if there is something to be done about what was found: at once if the database does
    /// not take writes, else when all have been read.
    fn search_on(&mut self) -> bool {
        let Some((search, began)) = &mut self.search else {
            return false;
        };
        let is_under_way = search.step();
        let found = search.found().iter();
        self.damaged.extend(
            found
                .filter(|name| !self.damaged.contains(name))
                .copied()
                .collect::<Vec<_>>(),
        );
        if !is_under_way {
            let now = Instant::now();
            let pause = now.duration_since(*began) * SEARCH_PART;
            self.next_search_at = Some(now + pause.max(SEARCH_AGAIN_AFTER));
            self.search = None;
        }
        !self.damaged.is_empty() && (self.failed_at.is_some() || !is_under_way)
    }

    fn fails(&mut self, now: Instant) {
        let was_healthy = self
            .healed_at
            .is_none_or(|healed| now.duration_since(healed) > HEALTHY_AFTER);
        if was_healthy {
            self.tries = 0;
        }
        self.failed_at = Some(now);
        self.try_later(now);
    }

    fn try_later(&mut self, now: Instant) {
        let after = TRY_AFTER_MIN * 2u32.saturating_pow(self.tries.min(16));
        self.tries += 1;
        self.next_try_at = Some(now + after.min(TRY_AFTER_MAX));
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next_try_at.is_some_and(|at| at <= now)
    }
}

impl Watch {
    /// Runs until the store closes.
    pub(crate) fn run(mut self) {
        loop {
            match self.notices.recv_timeout(self.patience()) {
                Ok(Notice::Failed(number)) => {
                    if let Some(patient) = self.patients.get_mut(number) {
                        patient.fails(Instant::now());
                    }
                }
                Ok(Notice::Close) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if std::mem::take(&mut self.workers_are_new) {
                        priority::workers_stand_back();
                    }
                }
            }
            self.look();
            self.call_on_databases();
            self.search();
            for number in 0..self.patients.len() {
                if self.patients[number].is_due(Instant::now()) {
                    self.heal(number);
                }
            }
        }
    }

    fn patience(&self) -> Duration {
        if self.patients.iter().any(|patient| patient.search.is_some()) {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let tries = self
            .patients
            .iter()
            .filter_map(|patient| patient.next_try_at);
        let next = tries.min().map(|at| at.saturating_duration_since(now));
        next.unwrap_or(LOOK_INTERVAL).min(LOOK_INTERVAL)
    }

    fn look(&mut self) {
        let free_bytes = match free_bytes(&self.options.path) {
            Ok(free_bytes) => free_bytes,
            // Whether it takes writes shows with the next one.
            Err(error) => return warn!(%error, "the disk does not say how much is free"),
        };
        let was_refusing = self.space.is_refusing();
        let order = self.space.look(free_bytes, self.ballast.is_held());
        let refusing = self.space.is_refusing();
        self.condition.note_space(free_bytes, refusing);
        let free_bytes_min = self.options.free_bytes_min;
        if refusing && !was_refusing {
            error!(
                free_bytes,
                free_bytes_min,
                "the disk is nearly full: messages to users who are away are refused until there is room again"
            );
        } else if was_refusing && !refusing {
            info!(
                free_bytes,
                free_bytes_min, "the disk has room again: messages are stored"
            );
        }
        match order {
            Order::Release => self.ballast.release(),
            // A sick disk is left alone.
            Order::Restore
                if self
                    .patients
                    .iter()
                    .all(|patient| patient.failed_at.is_none()) =>
            {
                self.ballast.restore();
            }
            Order::Restore | Order::Nothing => {}
        }
    }

    /// A database whose own threads have failed takes no more writes. Nobody has to lose a message to find that out.
    fn call_on_databases(&mut self) {
        for number in 0..self.patients.len() {
            if self.patients[number].failed_at.is_none()
                && let Some(Err(error)) = self.databases.lend(number, Tables::check)
            {
                error!(database = number, %error, "a database of the store has failed in the background");
                // A merge may have met a damaged block.
                self.condition.note_unreadable(number);
                self.stop(number);
            }
        }
    }

    /// Has the committer of a database give it up; then it is healed.
    fn stop(&self, number: usize) {
        // A committer that has ended has nothing to give up.
        let _ended = self.writes[number].put(Envelope {
            client: 0,
            request: Write::GiveUp,
        });
    }

    /// Looks for damaged tables where somebody met what cannot be read. A database is taken up again without them.
    fn search(&mut self) {
        let now = Instant::now();
        for number in 0..self.patients.len() {
            let patient = &mut self.patients[number];
            if self.condition.take_unreadable(number) {
                patient.suspect(&self.folder.database_path(number), now);
            }
            if !patient.search_on() {
                continue;
            }
            if patient.failed_at.is_some() {
                patient.next_try_at = Some(now);
            } else {
                self.stop(number);
            }
        }
    }

    fn heal(&mut self, number: usize) {
        let healed = catch_unwind(AssertUnwindSafe(|| self.try_heal(number)));
        let problem = match healed {
            Ok(Ok(())) => return,
            Ok(Err(problem)) => problem,
            Err(_) => "the database panicked".to_string(),
        };
        let patient = &mut self.patients[number];
        patient.try_later(Instant::now());
        warn!(database = number, tries = patient.tries, %problem, "the store cannot be taken up again yet");
    }

    fn try_heal(&mut self, number: usize) -> Result<(), String> {
        let said = |error: &dyn std::error::Error| error.to_string();
        let free = free_bytes(&self.options.path).map_err(|error| said(&error))?;
        if free < OPENING_BYTES {
            return Err(format!("only {free} bytes are free on the disk"));
        }
        mend::probe(&self.options.path).map_err(|error| said(&error))?;
        // Waits for the pages that are being read, then for the database's own threads. Closing it may sync what its
        // failed batch left over: allowed, since that was answered as a failure that may yet be found done.
        let closed = self.databases.take(number);
        drop(closed);
        mend::mend(&self.folder.database_path(number)).map_err(|error| said(&error))?;
        let reclaim = self.databases.reclaim(number);
        let reclaim = reclaim.ok_or("there is no such database")?;
        let damaged = self.patients[number].damaged.clone();
        let (tables, found) =
            database::open_one(&self.folder, number, &self.options, &reclaim, &damaged)
                .map_err(|error| said(&error))?;
        self.patients[number].damaged.clear();
        let ledger = self
            .ledgers
            .open(number, &tables)
            .map_err(|error| said(&error))?;
        self.databases.put(number, tables);
        let resume = Write::Resume(Box::new(ledger));
        // Its committer receives all the time, also while it has no database.
        let sent = self.writes[number].put(Envelope {
            client: 0,
            request: resume,
        });
        sent.map_err(|_| "its committer has ended".to_string())?;
        let patient = &mut self.patients[number];
        let now = Instant::now();
        let failed_for = patient.failed_at.take().map(|at| now.duration_since(at));
        patient.healed_at = Some(now);
        patient.next_try_at = None;
        self.workers_are_new = true;
        self.condition.note_healed(found);
        info!(
            database = number,
            tries = patient.tries,
            ?failed_for,
            "the store takes writes again"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_further_and_further_apart_until_a_healing_holds() {
        let mut patient = Patient::default();
        let start = Instant::now();
        patient.fails(start);
        assert!(!patient.is_due(start) && patient.is_due(start + TRY_AFTER_MIN));
        for _ in 0..20 {
            patient.try_later(start);
        }
        assert!(
            !patient.is_due(start + TRY_AFTER_MAX / 2) && patient.is_due(start + TRY_AFTER_MAX)
        );
        // Healed, and ill again at once: the waiting goes on from where it was.
        patient.healed_at = Some(start);
        patient.fails(start + HEALTHY_AFTER / 2);
        assert!(!patient.is_due(start + HEALTHY_AFTER / 2 + TRY_AFTER_MIN));
        patient.fails(start + HEALTHY_AFTER * 2);
        assert!(patient.is_due(start + HEALTHY_AFTER * 2 + TRY_AFTER_MIN));
    }
}
