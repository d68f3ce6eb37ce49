//! Every item of a journal file that is intact, also those behind damage.
//!
//! Used while the store opens and by the offline commands. A sound batch counts as read. Where there is none, items
//! follow one by one, each on its own CRC; where they end, the next place is sought at which a batch or an item begins,
//! and what lies between is counted. Invariant: nothing is shown that does not pass its CRC.

use std::io;

use super::entry::{Entry, ITEM, Item, START};
use super::{Journal, sequence_of};
use crate::record;

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
}
