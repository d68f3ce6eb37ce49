//! The search for damaged blocks in the tables of a database, one table at a time.
//!
//! Used by `iris-watch` while the database is open, and by a thread that cannot open one. Tables are never changed, so
//! they can be read beside everything else; one that is gone meanwhile was merged, and so was sound. Memory: that of the
//! list of tables.

use std::io;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::tree::{MESSAGES_ID, TableName, USERS_ID};
use super::{blocks, manifest};

/// A search under way, or at its end.
pub(crate) struct Search {
    database: PathBuf,
    /// Those that are still to be read, the next one last.
    left: Vec<TableName>,
    found: Vec<TableName>,
}

impl Search {
    /// Begins with the newest tables: these are what is merged most often.
    pub(crate) fn begin(database: &Path) -> Search {
        let mut left = Vec::new();
        for keyspace in [USERS_ID, MESSAGES_ID] {
            match manifest::tables(&database.join(format!("keyspaces/{keyspace}"))) {
                Ok(ids) => left.extend(ids.into_iter().map(|id| TableName { keyspace, id })),
                Err(fault) => {
                    warn!(path = %fault.path.display(), what = fault.what, "the tables cannot be listed");
                }
            }
        }
        left.reverse();
        Search {
            database: database.to_path_buf(),
            left,
            found: Vec::new(),
        }
    }

    /// Reads one table. False at the end.
    pub(crate) fn step(&mut self) -> bool {
        let Some(name) = self.left.pop() else {
            return false;
        };
        let path = name.path(&self.database);
        match blocks::sieve(&path) {
            Ok(sieved) if sieved.damaged == 0 => {}
            Ok(sieved) => {
                error!(table = %path.display(), blocks = sieved.damaged, bytes = sieved.damaged_bytes, "a table is damaged");
                self.found.push(name);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                // What cannot be read at all is no better than damage.
                error!(table = %path.display(), %error, "a table cannot be read");
                self.found.push(name);
            }
        }
        !self.left.is_empty()
    }

    /// The damaged ones so far.
    pub(crate) fn found(&self) -> &[TableName] {
        &self.found
    }
}
