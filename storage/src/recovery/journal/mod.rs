//! The journal files of fjall, read without touching them.
//!
//! Pure reading, used while the store opens and by the offline commands. fjall itself takes a break in the middle of
//! a file for its end, cuts the file there, and says nothing; so every file is walked here first: [`Journal::look`]
//! says where what is sound ends, [`Journal::walk`] shows what is intact, also behind damage. `entry` holds the format.
//!
//! The checksum of a batch leaves its start out. What that says is held against the items that follow and against the
//! batch before: the seqnos of a file rise.

mod entry;
mod walk;

use std::io;
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::tree;
use super::window::Window;
use crate::user::{MESSAGE_KEY_LEN, Place, USER_KEY_LEN};
use entry::{Entry, ITEM, START};

pub(crate) use walk::{Found, Show};

/// fjall counts batches and little else with seqnos; nobody gets here by counting.
const SEQNO_MAX: u64 = 1 << 62;

/// A batch whose checksum and count are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Batch {
    seqno: u64,
    end: u64,
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// After its last batch, with zeros behind it at most.
    Clean,
    /// With the beginning of a batch, as a crash in the middle of a write leaves it.
    Unfinished,
    /// There is more behind a place that cannot be read.
    Broken,
}

/// What a look at a whole file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// End of the last batch before anything that is wrong.
    pub(crate) sound_to: u64,
    /// Of that batch.
    pub(crate) seqno: Option<u64>,
    /// The highest sequence of a message in what is sound.
    pub(crate) sequence: u64,
    pub(crate) ending: Ending,
}

/// One journal file.
pub(crate) struct Journal {
    window: Window,
    /// A batch with another database's keys is none of its own.
    place: Place,
}

impl Journal {
    pub(crate) fn open(path: &Path, place: Place) -> io::Result<Journal> {
        Window::open(path).map(|window| Journal { window, place })
    }

    /// Holds every batch against its checksum. `seqno`: that of the last batch in the file before.
    pub(crate) fn look(&mut self, seqno: Option<u64>) -> io::Result<Look> {
        let mut look = Look {
            sound_to: 0,
            seqno,
            sequence: 0,
            ending: Ending::Clean,
        };
        while let Some(batch) = self.batch(look.sound_to, look.seqno, |key| {
            look.sequence = look.sequence.max(sequence_of(key).unwrap_or(0));
        })? {
            look.sound_to = batch.end;
            look.seqno = Some(batch.seqno);
        }
        if self.window.nonzero(look.sound_to)?.is_some() {
            let reached = self.follow(look.sound_to)?;
            look.ending = match self.next_batch(reached)? {
                Some(_) => Ending::Broken,
                None => Ending::Unfinished,
            };
        }
        Ok(look)
    }

    /// The batch at a place, if there is a sound one. Its keys are shown, before it is known whether it is sound.
    fn batch(
        &mut self,
        at: u64,
        after: Option<u64>,
        mut show_key: impl FnMut(&[u8]),
    ) -> io::Result<Option<Batch>> {
        let Some((Entry::Start { items, seqno }, mut at)) = self.entry(at)? else {
            return Ok(None);
        };
        if seqno > SEQNO_MAX || after.is_some_and(|after| seqno <= after) {
            return Ok(None);
        }
        let mut hasher = Xxh3::new();
        for _ in 0..items {
            match self.entry(at)? {
                Some((Entry::Item(item), end)) => {
                    hasher.update(self.window.bytes(at, (end - at) as usize)?);
                    let key = self.window.bytes(item.key.at, item.key.len)?;
                    if !tree::is_key(item.keyspace, key, self.place) {
                        return Ok(None);
                    }
                    show_key(key);
                    at = end;
                }
                Some((Entry::Clear, end)) => {
                    hasher.update(self.window.bytes(at, (end - at) as usize)?);
                    at = end;
                }
                _ => return Ok(None),
            }
        }
        Ok(match self.entry(at)? {
            Some((Entry::End { checksum }, end)) if checksum == hasher.digest() => {
                Some(Batch { seqno, end })
            }
            _ => None,
        })
    }

    /// How far entries follow one another from a place on, without regard to checksums.
    fn follow(&mut self, mut at: u64) -> io::Result<u64> {
        while let Some((entry, end)) = self.entry(at)? {
            at = end;
            if matches!(entry, Entry::End { .. }) {
                break;
            }
        }
        Ok(at)
    }

    /// The next place at or behind `from` where a whole sound batch begins.
    fn next_batch(&mut self, from: u64) -> io::Result<Option<u64>> {
        self.next(from, |journal, at, tag| {
            Ok(tag == START && journal.batch(at, None, |_| {})?.is_some())
        })
    }

    fn next(
        &mut self,
        from: u64,
        mut is_it: impl FnMut(&mut Journal, u64, u8) -> io::Result<bool>,
    ) -> io::Result<Option<u64>> {
        let mut at = from;
        while let Some(found) = self.window.nonzero(at)? {
            let tag = self.window.bytes(found, 1)?.first().copied().unwrap_or(0);
            if matches!(tag, START | ITEM) && is_it(self, found, tag)? {
                return Ok(Some(found));
            }
            at = found + 1;
        }
        Ok(None)
    }

    /// The entry at a place, and where it ends; `None` if there is none that could have been written.
    fn entry(&mut self, at: u64) -> io::Result<Option<(Entry, u64)>> {
        let file_len = self.window.len();
        let head = self.window.bytes(at, entry::HEAD_LEN_MAX)?;
        Ok(entry::read(head, at, file_len))
    }
}

/// The sequence in a message's key; `None` for any other key.
fn sequence_of(key: &[u8]) -> Option<u64> {
    let key: &[u8; MESSAGE_KEY_LEN] = key.try_into().ok()?;
    let (_, sequence) = key.split_first_chunk::<USER_KEY_LEN>()?;
    Some(u64::from_be_bytes(sequence.try_into().ok()?))
}

#[cfg(test)]
mod tests;
