//! The journal that a database writes to just now, by a descriptor of our own, so that it can be synced without fjall's
//! lock on it.
//!
//! Owner: the committer looks; the sync thread syncs what was seen. fjall numbers its journals and leaves one for the
//! next under the lock that a commit takes. So right after a commit, what it wrote stands in the journal that was the
//! newest before, or in the one that has come since.
//!
//! Invariant: what was written is synced through a descriptor that was opened before its sync could have failed anybody
//! else: Linux tells each descriptor once of a page that could not be written, but those that were opened afterwards never.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::recovery;

/// One journal file.
pub(crate) struct Journal {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    file: File,
}

impl Journal {
    fn open(database: &Path, number: u64) -> io::Result<Journal> {
        let path = database.join(format!("{number}.jnl"));
        let file = File::open(&path)?;
        Ok(Journal { number, path, file })
    }

    /// Everything that was written to it before is on the disk afterwards.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether anything was written to it. Each batch begins with a byte that is not zero.
    fn is_begun(&self) -> io::Result<bool> {
        let mut first = [0];
        Ok(self.file.read_at(&mut first, 0)? == 1 && first != [0])
    }
}

/// In which journals a batch may stand.
#[derive(Clone)]
pub(crate) struct Stand {
    /// The newest one before the batch was written.
    pub(crate) before: Arc<Journal>,
    /// The newest one afterwards, most often the same.
    pub(crate) after: Arc<Journal>,
}

impl Stand {
    /// Whether the database has gone on to another journal about when the batch was written.
    pub(crate) fn is_moved(&self) -> bool {
        self.before.number != self.after.number
    }
}

/// The newest journal of a database.
pub(crate) struct Newest {
    database: PathBuf,
    journal: Arc<Journal>,
}

impl Newest {
    /// Of a database that is open, and that nobody writes to.
    pub(crate) fn open(database: &Path) -> io::Result<Newest> {
        let newest = recovery::list(database)?.pop();
        let (number, _) = newest.ok_or_else(|| io::Error::other("a database without a journal"))?;
        Ok(Newest {
            database: database.to_path_buf(),
            journal: Arc::new(Journal::open(database, number)?),
        })
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Right after a commit: where it stands. A journal that is not begun holds no batch, and may be what a failed
    /// attempt to go on to it has left behind. To have missed one, the committer would have to fill one with one batch.
    pub(crate) fn look(&mut self) -> io::Result<Stand> {
        let before = Arc::clone(&self.journal);
        match Journal::open(&self.database, before.number + 1) {
            Ok(next) if next.is_begun()? => self.journal = Arc::new(next),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let after = Arc::clone(&self.journal);
        Ok(Stand { before, after })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_journal_counts_from_its_first_byte_on() {
        let database = tempfile::tempdir().expect("a folder");
        let name = |number: u64| database.path().join(format!("{number}.jnl"));
        assert!(Newest::open(database.path()).is_err());
        for number in [8, 9, 10] {
            fs::write(name(number), [1]).expect("written");
        }
        let mut newest = Newest::open(database.path()).expect("opened");
        let mut look = || {
            let stand = newest.look().expect("looked");
            stand.before.sync().expect("synced");
            stand.after.sync().expect("synced");
            (stand.before.number, stand.after.number)
        };
        assert_eq!(look(), (10, 10));
        // Made, made as long as fjall makes it, and written to.
        fs::write(name(11), []).expect("written");
        assert_eq!(look(), (10, 10));
        fs::write(name(11), [0; 5]).expect("written");
        assert_eq!(look(), (10, 10));
        // Meanwhile the older ones may go.
        fs::remove_file(name(10)).expect("removed");
        fs::write(name(11), [1, 0]).expect("written");
        assert_eq!(look(), (10, 11));
        assert_eq!(look(), (11, 11));
    }
}
