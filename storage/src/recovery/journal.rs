//! The journal files of fjall 3.1.13, read without touching them.
//!
//! Pure reading, used while the store opens and by the offline commands. fjall itself takes a break in the middle of
//! a file for its end, cuts the file there, and says nothing; so every file is walked here first.
//!
//! The format, from fjall 3.1.13 (`src/journal/entry.rs`, `writer.rs`, `reader.rs`, `src/file.rs`), integers
//! little-endian. A file is a row of batches, then zeros up to the 64 MiB it was created with:
//! - start: `1u8 | items u32 | seqno u64`;
//! - item: `2u8 | value type u8 | compression u8 | keyspace u64 | key length u16 | value length u32 |
//!   length on disk u32 | key | value`;
//! - clear: `4u8 | keyspace u64`, counted as an item;
//! - end: `3u8 | xxh3-64 of the items as they lie there u64 | "FJL" 3u8`.
//!
//! The checksum leaves the start out. What it says is held against the items that follow and against the batch
//! before: the seqnos of a file rise.

use std::io;
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::fields::Fields;
use super::tree;
use super::window::Window;
use crate::record::{self, RECORD_LEN_MAX};
use crate::user::{MESSAGE_KEY_LEN, Place, USER_KEY_LEN};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const START_LEN: u64 = 1 + 4 + 8;
const ITEM_HEAD_LEN: u64 = 1 + 1 + 1 + 8 + 2 + 4 + 4;
const END_LEN: u64 = 1 + 8 + 4;
const CLEAR_LEN: u64 = 1 + 8;
const TRAILER: &[u8; 4] = b"FJL\x03";
const COMPRESSION_NONE: u8 = 0;
/// `lsm_tree::ValueType`: value 0, tombstone 1, weak tombstone 2. Pointers (4) never stand in a journal.
const VALUE_TYPE_MAX: u8 = 2;
/// Keyspaces are numbered from 1 in the order of their creation; there are a handful.
const KEYSPACE_MAX: u64 = 1 << 16;
/// fjall counts batches and little else with seqnos; nobody gets here by counting.
const SEQNO_MAX: u64 = 1 << 62;

/// A stretch of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    at: u64,
    len: usize,
}

/// A key and its value, or that it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    keyspace: u64,
    is_value: bool,
    key: Span,
    value: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Start { items: u32, seqno: u64 },
    Item(Item),
    Clear,
    End { checksum: u64 },
}

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

/// An item that passes its CRC, as a walk shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) keyspace: u64,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    /// Of its batch, as far as that is known.
    pub(crate) seqno: Option<u64>,
    /// Something before it in this file cannot be read.
    pub(crate) behind_damage: bool,
    /// Something between it and the item before cannot be read.
    pub(crate) after_gap: bool,
}

/// Who is shown what a walk finds.
pub(crate) type Show<'a> = dyn FnMut(Found<'_>) -> io::Result<()> + 'a;

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

    /// The lowest sequence of a message in what follows the last sound batch, as far as it can be read.
    pub(crate) fn first_sequence_behind(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut lowest: Option<u64> = None;
        self.walk_from(from, true, &mut |found| {
            if let Some(sequence) = sequence_of(found.key) {
                lowest = Some(lowest.map_or(sequence, |lowest| lowest.min(sequence)));
            }
            Ok(())
        })?;
        Ok(lowest)
    }

    /// Shows every item whose value passes its own CRC (each value of ours begins with one), also those behind
    /// damage. Returns how many bytes could not be read.
    pub(crate) fn walk(&mut self, show: &mut Show<'_>) -> io::Result<u64> {
        self.walk_from(0, false, show)
    }

    fn walk_from(
        &mut self,
        from: u64,
        mut behind_damage: bool,
        show: &mut Show<'_>,
    ) -> io::Result<u64> {
        let mut at = from;
        let mut seqno = None;
        let mut unreadable = 0;
        let mut after_gap = behind_damage;
        // End of the last thing that is known to be right.
        let mut intact_to = from;
        while self.window.nonzero(at)?.is_some() {
            let sound = self.batch(at, seqno, |_| {})?;
            if let Some(batch) = sound {
                seqno = Some(batch.seqno);
                unreadable += at - intact_to;
                intact_to = batch.end;
            } else {
                // Its items follow one by one, each on its own CRC.
                behind_damage = true;
                after_gap = true;
            }
            let mut reached = at;
            let mut ended = false;
            let mut of_batch = None;
            while !ended && let Some((entry, end)) = self.entry(reached)? {
                match entry {
                    Entry::Start { .. } if reached != at => break,
                    Entry::Start { seqno, .. } => of_batch = Some(seqno),
                    Entry::Clear => {}
                    Entry::Item(item) => match self.intact(&item)? {
                        Some((key, value)) => {
                            show(Found {
                                seqno: of_batch,
                                keyspace: item.keyspace,
                                key: &key,
                                value: &value,
                                behind_damage,
                                after_gap,
                            })?;
                            after_gap = false;
                            if sound.is_none() {
                                unreadable += reached - intact_to;
                                intact_to = end;
                            }
                        }
                        None => after_gap |= sound.is_none(),
                    },
                    Entry::End { .. } => ended = true,
                }
                reached = end;
            }
            if ended {
                at = reached;
                continue;
            }
            after_gap = true;
            at = match self.next_intact(intact_to.max(at + 1))? {
                Some(next) => next,
                None => break,
            };
        }
        let end = self.last_nonzero(intact_to)?;
        Ok(unreadable + end - intact_to)
    }

    /// Where the zeros at the end begin.
    fn last_nonzero(&mut self, from: u64) -> io::Result<u64> {
        let mut end = from;
        let mut at = from;
        while at < self.window.len() {
            let stretch = self.window.stretch(at)?;
            if let Some(last) = stretch.iter().rposition(|byte| *byte != 0) {
                end = at + last as u64 + 1;
            }
            at += stretch.len().max(1) as u64;
        }
        Ok(end)
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

    /// The next place where a sound batch begins, or an item of ours that passes its CRC.
    fn next_intact(&mut self, from: u64) -> io::Result<Option<u64>> {
        self.next(from, |journal, at, tag| match tag {
            START => Ok(journal.batch(at, None, |_| {})?.is_some()),
            ITEM => match journal.entry(at)? {
                Some((Entry::Item(item), _)) => Ok(journal.intact(&item)?.is_some()),
                _ => Ok(false),
            },
            _ => Ok(false),
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

    /// Key and value, if the key looks like one of ours and the value passes its CRC.
    fn intact(&mut self, item: &Item) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        if !item.is_value {
            return Ok(None);
        }
        let value = self.window.bytes(item.value.at, item.value.len)?;
        if record::check_crc(value).is_err() {
            return Ok(None);
        }
        let value = value.to_vec();
        let key = self.window.bytes(item.key.at, item.key.len)?.to_vec();
        Ok(Some((key, value)))
    }

    /// The entry at a place, and where it ends; `None` if there is none that could have been written.
    fn entry(&mut self, at: u64) -> io::Result<Option<(Entry, u64)>> {
        let len = self.window.len();
        let head = self.window.bytes(at, ITEM_HEAD_LEN as usize)?;
        let mut fields = Fields(head);
        let Some(tag) = fields.u8() else {
            return Ok(None);
        };
        let read = || -> Option<(Entry, u64)> {
            match tag {
                START => {
                    let (items, seqno) = (fields.u32()?, fields.u64()?);
                    (items > 0).then_some((Entry::Start { items, seqno }, at + START_LEN))
                }
                ITEM => {
                    let (value_type, compression) = (fields.u8()?, fields.u8()?);
                    let keyspace = fields.u64()?;
                    let key_len = usize::from(fields.u16()?);
                    let (value_len, on_disk) = (fields.u32()?, fields.u32()?);
                    let value_len = usize::try_from(value_len).ok()?;
                    let could_be = value_type <= VALUE_TYPE_MAX
                        && compression == COMPRESSION_NONE
                        && keyspace <= KEYSPACE_MAX
                        && key_len > 0
                        && value_len <= RECORD_LEN_MAX
                        && on_disk as usize == value_len;
                    let key = Span {
                        at: at + ITEM_HEAD_LEN,
                        len: key_len,
                    };
                    let value = Span {
                        at: key.at + key_len as u64,
                        len: value_len,
                    };
                    let end = value.at + value_len as u64;
                    let item = Item {
                        keyspace,
                        is_value: value_type == 0,
                        key,
                        value,
                    };
                    (could_be && end <= len).then_some((Entry::Item(item), end))
                }
                CLEAR => {
                    let keyspace = fields.u64()?;
                    (keyspace <= KEYSPACE_MAX).then_some((Entry::Clear, at + CLEAR_LEN))
                }
                END => {
                    let checksum = fields.u64()?;
                    let trailer = fields.0.get(..TRAILER.len())?;
                    (trailer == TRAILER).then_some((Entry::End { checksum }, at + END_LEN))
                }
                _ => None,
            }
        };
        Ok({ read }())
    }
}

/// The sequence in a message's key; `None` for any other key.
fn sequence_of(key: &[u8]) -> Option<u64> {
    let key: &[u8; MESSAGE_KEY_LEN] = key.try_into().ok()?;
    let (_, sequence) = key.split_first_chunk::<USER_KEY_LEN>()?;
    Some(u64::from_be_bytes(sequence.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(items: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in items {
            bytes.extend_from_slice(&[ITEM, 0, COMPRESSION_NONE]);
            bytes.extend_from_slice(&1u64.to_le_bytes());
            bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        }
        bytes
    }

    fn batch(seqno: u64, items: &[(&[u8], &[u8])]) -> Vec<u8> {
        let entries = entries(items);
        let mut bytes = vec![START];
        bytes.extend_from_slice(&(items.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&seqno.to_le_bytes());
        bytes.extend_from_slice(&entries);
        bytes.push(END);
        bytes.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&entries).to_le_bytes());
        bytes.extend_from_slice(TRAILER);
        bytes
    }

    fn value(n: u8, len: usize) -> Vec<u8> {
        let mut value = vec![n; len];
        record::write_crc(&mut value);
        value
    }

    /// Three batches of three items, each with a key of its own, and zeros.
    fn sample() -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut bytes = Vec::new();
        let mut keys = Vec::new();
        for n in 0..3u8 {
            let of_batch: Vec<(Vec<u8>, Vec<u8>)> = (0..3u8)
                .map(|m| {
                    (
                        vec![n * 3 + m + 1; MESSAGE_KEY_LEN],
                        value(n, 40 + usize::from(m)),
                    )
                })
                .collect();
            let items: Vec<(&[u8], &[u8])> = of_batch
                .iter()
                .map(|(key, value)| (&key[..], &value[..]))
                .collect();
            bytes.extend(batch(u64::from(n) + 5, &items));
            keys.extend(of_batch.into_iter().map(|(key, _)| key));
        }
        bytes.resize(bytes.len() + 1000, 0);
        (bytes, keys)
    }

    const PLACE: Place = Place {
        number: 0,
        databases: 1,
    };

    fn journal(bytes: &[u8]) -> (tempfile::TempDir, Journal) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0.jnl");
        std::fs::write(&path, bytes).expect("written");
        let journal = Journal::open(&path, PLACE).expect("opened");
        (folder, journal)
    }

    fn found(bytes: &[u8]) -> (Vec<Vec<u8>>, u64) {
        let (_folder, mut journal) = journal(bytes);
        let mut keys = Vec::new();
        let unreadable = journal
            .walk(&mut |found| {
                keys.push(found.key.to_vec());
                Ok(())
            })
            .expect("readable");
        (keys, unreadable)
    }

    #[test]
    fn what_fjall_writes_is_sound() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = fjall::Database::builder(folder.path())
            .open()
            .expect("opened");
        let keyspace = database
            .keyspace("messages", fjall::KeyspaceCreateOptions::default)
            .expect("a keyspace");
        for n in 0..50u8 {
            let mut write = database.batch();
            for m in 0..n + 1 {
                let key = [[n + 1; 10], [m; 10]].concat();
                write.insert(&keyspace, key, value(m, usize::from(n) * 10 + 4));
            }
            write.commit().expect("written");
        }
        keyspace.insert([0], value(1, 9)).expect("written");
        drop((keyspace, database));
        let path = folder.path().join("0.jnl");
        let mut journal = Journal::open(&path, PLACE).expect("opened");
        let look = journal.look(None).expect("readable");
        assert_eq!(look.ending, Ending::Clean);
        let mut keys = 0;
        let walked = journal.walk(&mut |found| {
            assert!(!found.behind_damage && !found.after_gap && found.keyspace == 1);
            keys += 1;
            Ok(())
        });
        assert_eq!((walked.expect("readable"), keys), (0, 50 * 51 / 2 + 1));
    }

    #[test]
    fn every_flipped_byte_is_seen_and_costs_one_item_at_most() {
        let (bytes, keys) = sample();
        let end = bytes.len() - 1000;
        assert_eq!(found(&bytes), (keys.clone(), 0));
        for at in 0..end {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x11;
            let (_folder, mut journal) = journal(&flipped);
            let look = journal.look(None).expect("readable");
            // A seqno that still rises changes nothing; it is not covered by the checksum.
            let in_seqno = (0..3).any(|n| {
                let from = n * (end / 3);
                (from + 5..from + 13).contains(&at)
            });
            assert!(look.ending != Ending::Clean || in_seqno, "byte {at}");
            let (left, _) = found(&flipped);
            let lost = keys.iter().filter(|key| !left.contains(key)).count();
            assert!(lost <= 1, "byte {at}: {lost} lost");
        }
    }

    #[test]
    fn what_stands_behind_a_hole_is_found() {
        let (bytes, keys) = sample();
        let end = bytes.len() - 1000;
        for from in (0..end - 60).step_by(7) {
            let mut holed = bytes.clone();
            holed[from..from + 60].fill(0);
            let (left, unreadable) = found(&holed);
            // No item is shorter than 79 bytes.
            assert!(
                left.len() >= keys.len() - 2,
                "hole at {from}: {} left",
                left.len()
            );
            assert!(left.iter().all(|key| keys.contains(key)), "hole at {from}");
            assert!(unreadable > 0 || left.len() == keys.len(), "hole at {from}");
        }
    }

    #[test]
    fn a_cut_is_the_end_and_no_damage() {
        let (bytes, _) = sample();
        let end = bytes.len() - 1000;
        for len in 0..end {
            let (_folder, mut journal) = journal(&bytes[..len]);
            let look = journal.look(None).expect("readable");
            assert_ne!(look.ending, Ending::Broken, "{len} bytes");
            assert_eq!(
                look.ending == Ending::Clean,
                len as u64 == look.sound_to,
                "{len} bytes"
            );
            assert!(look.sound_to <= len as u64);
        }
    }
}
