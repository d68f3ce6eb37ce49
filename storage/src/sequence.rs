//! The counter that gives every message its sequence, never the same one twice.
//!
//! Owner: the store's committers, which share it under a lock. The file SEQUENCE holds a *reserve*: a number that is above every sequence ever given
//! out. It is raised by [`BLOCK`], replaced as a whole and synced, before the first sequence of a block is given
//! out; an opened counter goes on from the reserve it finds.
//!
//! Why that is right: whatever the crash, and whatever it left of the database (a batch whose sync failed and
//! that shows up after all, a journal that was cut in the middle, a table whose last messages were reclaimed),
//! each sequence in use was below the reserve on disk when it was given out, the reserve only grows, and the
//! next sequence is at least the reserve. Nothing is derived from what the database remembers. The price: each
//! open leaves up to a block unused; 2^44 opens use up the numbers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::error::StoreError;
use crate::metrics::lock;
use crate::synced_file;

/// Sequences reserved at once: one sync of the file for each million messages.
pub(crate) const BLOCK: u64 = 1 << 20;
/// First sequence of a data folder. 0 stays free, to mean "from the head" in a request.
const FIRST: u64 = 1;
const MAGIC: &[u8; 8] = b"IRISSEQ1";
const FILE_LEN: usize = 8 + 8 + 4;

/// The one counter of a store, in the hands of all its committers. The lock is held for an addition, and once in a
/// million sequences for a sync.
#[derive(Clone, Debug)]
pub(crate) struct Sequences(Arc<Mutex<SequenceCounter>>);

impl Sequences {
    pub(crate) fn new(counter: SequenceCounter) -> Sequences {
        Sequences(Arc::new(Mutex::new(counter)))
    }

    /// See [`SequenceCounter::next`].
    pub(crate) fn next(&self) -> io::Result<u64> {
        lock(&self.0).next()
    }
}

/// Gives out sequences.
#[derive(Debug)]
pub(crate) struct SequenceCounter {
    path: PathBuf,
    next: u64,
    reserve: u64,
}

impl SequenceCounter {
    /// Whether the file is there.
    pub(crate) fn exists(path: &Path) -> bool {
        path.exists()
    }

    /// Begins the sequences of a new data folder.
    pub(crate) fn create(path: &Path) -> Result<SequenceCounter, StoreError> {
        SequenceCounter {
            path: path.to_path_buf(),
            next: FIRST,
            reserve: FIRST,
        }
        .with_block()
    }

    /// Goes on after everything that was ever given out.
    pub(crate) fn open(path: &Path) -> Result<SequenceCounter, StoreError> {
        let reserve = SequenceCounter::look(path)?;
        SequenceCounter {
            path: path.to_path_buf(),
            next: reserve,
            reserve,
        }
        .with_block()
    }

    /// The reserve in the file.
    pub(crate) fn look(path: &Path) -> Result<u64, StoreError> {
        let content = synced_file::read(path).map_err(|source| StoreError::Unwritable {
            path: path.to_path_buf(),
            action: "reading",
            source,
        })?;
        decode(&content).ok_or_else(|| StoreError::Damaged {
            path: path.to_path_buf(),
            what: "not a sequence file, or its CRC does not match".to_string(),
        })
    }

    /// Makes sure that no sequence up to this one is given out again, also if the file is damaged or gone.
    pub(crate) fn raise_above(path: &Path, sequence: u64) -> Result<(), StoreError> {
        let reserve = SequenceCounter::look(path).unwrap_or(FIRST);
        let raised = reserve.max(sequence.saturating_add(1));
        synced_file::replace(path, &encode(raised)).map_err(|source| StoreError::Unwritable {
            path: path.to_path_buf(),
            action: "writing",
            source,
        })
    }

    /// The next sequence.
    ///
    /// # Errors
    /// If the reserve had to be raised and could not: nothing was given out.
    pub(crate) fn next(&mut self) -> io::Result<u64> {
        if self.next == self.reserve {
            self.raise_reserve()?;
        }
        let sequence = self.next;
        self.next += 1;
        Ok(sequence)
    }

    fn with_block(mut self) -> Result<SequenceCounter, StoreError> {
        match self.raise_reserve() {
            Ok(()) => Ok(self),
            Err(source) => Err(StoreError::Unwritable {
                path: self.path,
                action: "writing",
                source,
            }),
        }
    }

    fn raise_reserve(&mut self) -> io::Result<()> {
        let raised = self
            .reserve
            .checked_add(BLOCK)
            .ok_or_else(|| io::Error::other("the sequences of this data folder are used up"))?;
        synced_file::replace(&self.path, &encode(raised))?;
        self.reserve = raised;
        Ok(())
    }
}

fn encode(reserve: u64) -> Vec<u8> {
    let mut content = Vec::with_capacity(FILE_LEN);
    content.extend_from_slice(MAGIC);
    content.extend_from_slice(&reserve.to_le_bytes());
    content.extend_from_slice(&crc32fast::hash(&content).to_le_bytes());
    content
}

fn decode(content: &[u8]) -> Option<u64> {
    let (checked, crc) = content.split_last_chunk::<4>()?;
    if content.len() != FILE_LEN || crc32fast::hash(checked) != u32::from_le_bytes(*crc) {
        return None;
    }
    let reserve = checked.strip_prefix(MAGIC)?;
    Some(u64::from_le_bytes(reserve.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_sequence_is_never_given_out_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("SEQUENCE");
        let mut last = 0;
        let mut counter = SequenceCounter::create(&path).expect("created");
        assert_eq!(counter.next().expect("one"), FIRST);
        for _ in 0..3 {
            for _ in 0..BLOCK + 10 {
                let sequence = counter.next().expect("one");
                assert!(sequence > last);
                last = sequence;
            }
            // Nothing is told at a crash; so nothing is told here.
            counter = SequenceCounter::open(&path).expect("opened");
        }
        assert!(counter.next().expect("one") > last);
    }

    #[test]
    fn a_damaged_file_is_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("SEQUENCE");
        for bit in 0..FILE_LEN * 8 {
            let mut content = encode(12345);
            content[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, content).expect("written");
            assert!(
                matches!(
                    SequenceCounter::open(&path),
                    Err(StoreError::Damaged { .. })
                ),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn no_sequence_without_a_reserve_on_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("SEQUENCE");
        let mut counter = SequenceCounter::create(&path).expect("created");
        counter.next = counter.reserve;
        folder.close().expect("removed");
        assert!(counter.next().is_err());
        assert!(counter.next().is_err());
    }
}
