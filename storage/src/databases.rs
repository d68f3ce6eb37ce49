//! The open databases of a store, lent for a moment at a time.
//!
//! Shared by the readers and whoever else looks into a database besides its committer. Invariant: nobody but the
//! database's committer keeps a handle, so that a database can be closed, and opened again, while the store runs:
//! [`Databases::take`] waits for those who borrow (a page each), and then holds the last handle but the committer's.

use std::sync::{Arc, PoisonError, RwLock};

use crate::database::Tables;
use crate::reclaim::{Reclaim, ReclaimCounts};
use crate::user::{UserKey, database_of};

/// The databases by number.
pub(crate) struct Databases(Vec<Place>);

/// Where a database is while it is open.
struct Place {
    tables: RwLock<Option<Tables>>,
    /// Knows where the heads are for as long as the database is in its place.
    reclaim: Arc<Reclaim>,
}

impl Databases {
    pub(crate) fn new(opened: Vec<(Tables, Arc<Reclaim>)>) -> Databases {
        let place = |(tables, reclaim): (Tables, Arc<Reclaim>)| {
            reclaim.begin(&tables);
            Place {
                tables: RwLock::new(Some(tables)),
                reclaim,
            }
        };
        Databases(opened.into_iter().map(place).collect())
    }

    /// Which of them holds this user's inbox.
    pub(crate) fn number_of(&self, user: UserKey) -> usize {
        database_of(user, self.0.len())
    }

    /// Lends the database that holds this user's inbox; `None` if it is closed.
    pub(crate) fn lend_for<T>(&self, user: UserKey, read: impl FnOnce(&Tables) -> T) -> Option<T> {
        self.lend(self.number_of(user), read)
    }

    /// Lends a database; `None` if it is closed. What is made of it must not keep a handle on it.
    pub(crate) fn lend<T>(&self, number: usize, read: impl FnOnce(&Tables) -> T) -> Option<T> {
        let tables = self.0.get(number)?.tables.read();
        let tables = tables.unwrap_or_else(PoisonError::into_inner);
        tables.as_ref().map(read)
    }

    /// Empties a database's place.
    pub(crate) fn take(&self, number: usize) -> Option<Tables> {
        let place = self.0.get(number)?;
        place.reclaim.end();
        let tables = place.tables.write();
        tables.unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Fills an empty place.
    pub(crate) fn put(&self, number: usize, tables: Tables) {
        if let Some(place) = self.0.get(number) {
            place.reclaim.begin(&tables);
            let empty = place.tables.write();
            *empty.unwrap_or_else(PoisonError::into_inner) = Some(tables);
        }
    }

    /// Whether all are in their places.
    pub(crate) fn are_open(&self) -> bool {
        let is_open = |number| self.lend(number, |_| ()).is_some();
        (0..self.0.len()).all(is_open)
    }

    /// What decides in a database about the messages that its merges meet.
    pub(crate) fn reclaim(&self, number: usize) -> Option<Arc<Reclaim>> {
        self.0.get(number).map(|place| Arc::clone(&place.reclaim))
    }

    /// Closes them all: with the last handle on a database goes the database, after a last sync of its journal.
    pub(crate) fn close(&self) {
        for number in 0..self.0.len() {
            drop(self.take(number));
        }
    }

    /// What was destroyed by each.
    pub(crate) fn reclaimed(&self) -> impl Iterator<Item = &ReclaimCounts> {
        self.0.iter().map(|place| place.reclaim.counts())
    }
}
