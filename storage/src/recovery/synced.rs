//! What a database must at least show when it is opened again: the file `SYNCED-N` beside it.
//!
//! Owner: the database's committer, which writes it after each sync, and syncs the file itself about once a second. So
//! a killed process leaves it exact, and a power cut not much older: a lower bound. It also carries what FORMAT says,
//! because nothing can be found in a data folder without its seed.
//!
//! Layout, integers little-endian: `"IRISSYN1" | seed u64 | databases u64 | sequence u64 | first journal u64 | last
//! journal u64 | crc32 u32`; the CRC covers all before it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::fields::Fields;
use super::list;
use crate::folder::Folder;

const MAGIC: &[u8; 8] = b"IRISSYN1";
const LEN: usize = 8 + 5 * 8 + 4;
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What was synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) seed: u64,
    pub(crate) databases: u64,
    /// The highest sequence of a message that was synced.
    pub(crate) sequence: u64,
    /// Numbers of the oldest and the newest journal file.
    pub(crate) first_journal: u64,
    pub(crate) last_journal: u64,
}

impl Synced {
    /// Reads the file; `None` if it is missing, or fails its CRC.
    pub(crate) fn read(path: &Path) -> Option<Synced> {
        let content = fs::read(path).ok()?;
        let (checked, crc) = content.split_last_chunk::<4>()?;
        if content.len() != LEN || crc32fast::hash(checked) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut fields = Fields(checked.strip_prefix(MAGIC)?);
        Some(Synced {
            seed: fields.u64()?,
            databases: fields.u64()?,
            sequence: fields.u64()?,
            first_journal: fields.u64()?,
            last_journal: fields.u64()?,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut content = Vec::with_capacity(LEN);
        content.extend_from_slice(MAGIC);
        for field in [
            self.seed,
            self.databases,
            self.sequence,
            self.first_journal,
            self.last_journal,
        ] {
            content.extend_from_slice(&field.to_le_bytes());
        }
        content.extend_from_slice(&crc32fast::hash(&content).to_le_bytes());
        content
    }
}

/// The file, open for writing. Dropping it syncs it.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
    database: PathBuf,
    synced: Synced,
    synced_at: Instant,
}

impl Mark {
    /// Goes on with a database's mark. `sequence`: the highest that it shows now.
    pub(crate) fn open(folder: &Folder, number: usize, sequence: u64) -> io::Result<Mark> {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.synced_path(number))?;
        file.set_len(LEN as u64)?;
        let mut mark = Mark {
            file,
            database: folder.database_path(number),
            synced: Synced {
                seed: folder.seed(),
                databases: folder.databases() as u64,
                sequence,
                first_journal: 0,
                last_journal: 0,
            },
            synced_at: Instant::now(),
        };
        mark.look_at_journals()?;
        mark.write()?;
        mark.file.sync_all()?;
        Ok(mark)
    }

    /// Notes that everything up to this sequence is on disk.
    pub(crate) fn note(&mut self, sequence: u64) -> io::Result<()> {
        self.synced.sequence = self.synced.sequence.max(sequence);
        let journal = |number: u64| self.database.join(format!("{number}.jnl"));
        if !journal(self.synced.first_journal).exists()
            || journal(self.synced.last_journal + 1).exists()
        {
            self.look_at_journals()?;
        }
        self.write()?;
        if self.synced_at.elapsed() >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.synced_at = Instant::now();
        self.file.sync_data()
    }

    fn write(&self) -> io::Result<()> {
        self.file.write_all_at(&self.synced.encode(), 0)
    }

    fn look_at_journals(&mut self) -> io::Result<()> {
        let journals = list(&self.database)?;
        let number = |journal: Option<&(u64, PathBuf)>| journal.map_or(0, |(number, _)| *number);
        self.synced.first_journal = number(journals.first());
        self.synced.last_journal = number(journals.last());
        Ok(())
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // Whatever it says is true; synced, it says more.
        if let Err(error) = self.sync() {
            tracing::warn!(%error, "the mark of what is synced was not synced itself");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_as_it_was_noted_and_a_damaged_one_is_none() {
        let data = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(data.path(), 2).expect("opened");
        let database = folder.database_path(0);
        fs::create_dir(&database).expect("made");
        for number in [3, 4] {
            fs::write(database.join(format!("{number}.jnl")), b"").expect("written");
        }
        let path = folder.synced_path(0);
        let mut mark = Mark::open(&folder, 0, 10).expect("opened");
        mark.note(12).expect("noted");
        mark.note(11).expect("noted");
        let expected = Synced {
            seed: folder.seed(),
            databases: 2,
            sequence: 12,
            first_journal: 3,
            last_journal: 4,
        };
        assert_eq!(Synced::read(&path), Some(expected));
        // The oldest went, and there is a newer one.
        fs::rename(database.join("3.jnl"), database.join("5.jnl")).expect("renamed");
        mark.note(13).expect("noted");
        let now = Synced::read(&path).expect("sound");
        assert_eq!(
            (now.sequence, now.first_journal, now.last_journal),
            (13, 4, 5)
        );
        let content = fs::read(&path).expect("read");
        for bit in 0..content.len() * 8 {
            let mut flipped = content.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).expect("written");
            assert_eq!(Synced::read(&path), None, "bit {bit}");
        }
    }
}
