//! What a database must at least show when it is opened again: the file `SYNCED-N` beside it.
//!
//! Owner: the database's sync thread, which writes it after each sync, and syncs the file itself about once a second. So
//! a killed process leaves it exact, and a power cut not much older: a lower bound. It also carries what FORMAT says,
//! because nothing can be found in a data folder without its key.
//!
//! Layout, integers little-endian: `"IRISSYN3" | key of the names u128 | databases u64 | number of the database u64 | sequence u64 |
//! journals u64`, for each of 16 journals, oldest first, `number u64 | messages u64 | messages' seqno u64 | users' seqno u64` (zeros where there are
//! fewer), then `crc32 u32`; the CRC covers all before it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::fields::Fields;
use super::list;
use crate::folder::Folder;
use crate::name_key::NameKey;
use crate::synced_file;

const MAGIC: &[u8; 8] = b"IRISSYN3";
/// The journals of a database are bounded by `journal_bytes_max`: four or five, and some more while one keyspace is
/// behind with its tables.
const JOURNALS_MAX: usize = 16;
const LEN: usize = 8 + 16 + 4 * 8 + JOURNALS_MAX * 4 * 8 + 4;
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What was synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) name_key: NameKey,
    pub(crate) databases: u64,
    pub(crate) number: u64,
    /// The highest sequence of a message that was synced.
    pub(crate) sequence: u64,
    /// The journal files there were, oldest first; of very many the newest.
    pub(crate) journals: Vec<Noted>,
}

/// What is known of a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) number: u64,
    /// Messages that were written to it, at most.
    pub(crate) messages: u64,
    /// The highest seqno in it of a message and of an account, at least: that of its last batch may be missing.
    pub(crate) messages_seqno: u64,
    pub(crate) users_seqno: u64,
}

impl Synced {
    /// Reads the file; `None` if it is missing, or fails its CRC.
    pub(crate) fn read(path: &Path) -> Option<Synced> {
        let content = synced_file::read(path).ok()?;
        let (checked, crc) = content.split_last_chunk::<4>()?;
        if content.len() != LEN || crc32fast::hash(checked) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut fields = Fields(checked.strip_prefix(MAGIC)?);
        let mut synced = Synced {
            name_key: NameKey::new(fields.u128()?),
            databases: fields.u64()?,
            number: fields.u64()?,
            sequence: fields.u64()?,
            journals: Vec::new(),
        };
        for _ in 0..fields.u64()? {
            synced.journals.push(Noted {
                number: fields.u64()?,
                messages: fields.u64()?,
                messages_seqno: fields.u64()?,
                users_seqno: fields.u64()?,
            });
        }
        Some(synced)
    }

    /// Reads the mark of a database; `None` too if it is another's.
    pub(crate) fn of(folder: &Folder, number: usize) -> Option<Synced> {
        let synced = Synced::read(&folder.synced_path(number))?;
        (synced.name_key == folder.name_key() && synced.number == number as u64).then_some(synced)
    }

    /// What is known of this journal.
    pub(crate) fn noted(&self, number: u64) -> Option<&Noted> {
        self.journals.iter().find(|noted| noted.number == number)
    }

    fn encode(&self) -> [u8; LEN] {
        let mut content = [0; LEN];
        let (magic, fields) = content.split_at_mut(MAGIC.len());
        magic.copy_from_slice(MAGIC);
        let (key, fields) = fields.split_at_mut(16);
        key.copy_from_slice(&self.name_key.number().to_le_bytes());
        let head = [
            self.databases,
            self.number,
            self.sequence,
            self.journals.len() as u64,
        ];
        let journals = self.journals.iter().flat_map(|noted| {
            [
                noted.number,
                noted.messages,
                noted.messages_seqno,
                noted.users_seqno,
            ]
        });
        for (place, field) in fields
            .chunks_exact_mut(8)
            .zip(head.into_iter().chain(journals))
        {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let (checked, crc) = content.split_at_mut(LEN - 4);
        crc.copy_from_slice(&crc32fast::hash(checked).to_le_bytes());
        content
    }
}

/// A batch that is on disk.
pub(crate) struct Batch {
    /// The newest journal before and after it was written.
    pub(crate) stand: [u64; 2],
    /// The highest of a message up to here.
    pub(crate) sequence: u64,
    /// So many it added.
    pub(crate) messages: u64,
    /// The highest of messages and of users that stood in memory then.
    pub(crate) seqnos: [Option<u64>; 2],
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
        let path = folder.synced_path(number);
        let before = Synced::of(folder, number);
        let file = synced_file::to_write().open(path)?;
        file.set_len(LEN as u64)?;
        let mut mark = Mark {
            file,
            database: folder.database_path(number),
            synced: Synced {
                name_key: folder.name_key(),
                databases: folder.databases() as u64,
                number: number as u64,
                sequence,
                journals: before.map(|before| before.journals).unwrap_or_default(),
            },
            synced_at: Instant::now(),
        };
        mark.look_at_journals()?;
        mark.write()?;
        mark.file.sync_all()?;
        Ok(mark)
    }

    /// Notes that these batches are on disk.
    pub(crate) fn note(&mut self, batches: impl Iterator<Item = Batch>) -> io::Result<()> {
        let oldest = self.synced.journals.first();
        let is_gone = |noted: &Noted| !self.database.join(format!("{}.jnl", noted.number)).exists();
        if oldest.is_none_or(is_gone) {
            self.look_at_journals()?;
        }
        for batch in batches {
            let [_, after] = batch.stand;
            let newest = self.synced.journals.last();
            if newest.is_none_or(|newest| newest.number < after) {
                self.look_at_journals()?;
            }
            self.add(&batch);
        }
        self.write()
    }

    /// Syncs the file itself, if that is due.
    pub(crate) fn rest(&mut self) -> io::Result<()> {
        if self.synced_at.elapsed() < SYNC_EVERY {
            return Ok(());
        }
        self.sync()
    }

    fn add(&mut self, batch: &Batch) {
        self.synced.sequence = self.synced.sequence.max(batch.sequence);
        let [before, after] = batch.stand;
        for noted in &mut self.synced.journals {
            if !(before..=after).contains(&noted.number) {
                continue;
            }
            // It may stand in either.
            noted.messages += batch.messages;
            if before == after {
                let [messages_seqno, users_seqno] = batch.seqnos.map(Option::unwrap_or_default);
                noted.messages_seqno = noted.messages_seqno.max(messages_seqno);
                noted.users_seqno = noted.users_seqno.max(users_seqno);
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.synced_at = Instant::now();
        self.file.sync_data()
    }

    fn write(&self) -> io::Result<()> {
        self.file.write_all_at(&self.synced.encode(), 0)
    }

    /// Forgets what was noted of those that are gone.
    fn look_at_journals(&mut self) -> io::Result<()> {
        let journals = list(&self.database)?.into_iter().map(|(number, _)| number);
        let mut journals: Vec<Noted> = journals
            .map(|number| {
                let noted = self.synced.noted(number).copied();
                noted.unwrap_or(Noted {
                    number,
                    ..Noted::default()
                })
            })
            .collect();
        let surplus = journals.len().saturating_sub(JOURNALS_MAX);
        journals.drain(..surplus);
        self.synced.journals = journals;
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
    use std::fs;

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
        let batch = |stand, sequence, messages, seqnos| Batch {
            stand,
            sequence,
            messages,
            seqnos,
        };
        let two = [
            batch([4, 4], 12, 5, [Some(7), None]),
            batch([4, 4], 11, 2, [None, Some(9)]),
        ];
        mark.note(two.into_iter()).expect("noted");
        let noted = |number, messages, messages_seqno, users_seqno| Noted {
            number,
            messages,
            messages_seqno,
            users_seqno,
        };
        let expected = Synced {
            name_key: folder.name_key(),
            databases: 2,
            number: 0,
            sequence: 12,
            journals: vec![noted(3, 0, 0, 0), noted(4, 7, 7, 9)],
        };
        assert_eq!(Synced::read(&path), Some(expected));
        // The oldest went, and there is a newer one. Nobody knows which of them has the batch.
        fs::rename(database.join("3.jnl"), database.join("5.jnl")).expect("renamed");
        // The one before was written before, though it is noted after the change.
        let three = [
            batch([4, 4], 13, 1, [Some(10), Some(10)]),
            batch([4, 5], 14, 1, [Some(11), Some(11)]),
            batch([5, 5], 15, 3, [Some(12), Some(11)]),
        ];
        mark.note(three.into_iter()).expect("noted");
        let now = Synced::read(&path).expect("sound");
        let journals = vec![noted(4, 9, 10, 10), noted(5, 4, 12, 11)];
        assert_eq!((now.sequence, &now.journals), (15, &journals));
        drop(mark);
        // Another life goes on with it.
        drop(Mark::open(&folder, 0, 15).expect("opened"));
        assert_eq!(Synced::read(&path).expect("sound").journals, journals);
        let content = fs::read(&path).expect("read");
        for bit in 0..content.len() * 8 {
            let mut flipped = content.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).expect("written");
            assert_eq!(Synced::read(&path), None, "bit {bit}");
        }
    }
}
