//! Whose messages stand in a stretch of an inbox, from a few of them.
//!
//! Used by the committer, with the snapshot of its batch. A short stretch is read whole. In a long one the gap that holds most
//! messages is halved again and again, [`SEEKS`] times: records carry how many stand before them, so a dense part is
//! found wherever it lies between sequences. Invariant: what is found stands for exactly the stretch; nothing is found
//! of what cannot be read.

use fjall::Snapshot;

use crate::database::Tables;
use crate::inbox::Sum;
use crate::record;
use crate::request::FailureKind;
use crate::rows::Rows;
use crate::shares::{Names, Part, Sender};
use crate::user::UserKey;

/// Messages of a stretch that is read whole: about as dear as the seeks into a long one.
const WHOLE_MAX: u64 = 64;
/// Looks into a long stretch: at the end a gap is of an eighth or so. Each takes some microseconds.
const SEEKS: usize = 16;
/// Damaged records that a look gets past.
const PAST_DAMAGE_MAX: usize = 4;

/// A stretch of an inbox.
pub(crate) struct Stretch {
    pub(crate) user: UserKey,
    /// Its first sequence.
    pub(crate) from: u64,
    /// The sequence behind it.
    pub(crate) to: u64,
    /// What was ever stored before it.
    pub(crate) before: Sum,
    /// What was ever stored up to its end.
    pub(crate) until: Sum,
}

/// A message in the stretch.
struct Found {
    sequence: u64,
    sender: Sender,
    /// What was ever stored before it.
    before: Sum,
    record_len: u64,
    /// From here to the next that was found there is nothing.
    bare_from: u64,
}

impl Stretch {
    /// The senders and what each holds of it, as far as that is found out.
    pub(crate) fn senders(
        &self,
        tables: &Tables,
        snapshot: &Snapshot,
        names: &Names,
    ) -> Result<Vec<Part>, FailureKind> {
        let messages = self.until.messages.saturating_sub(self.before.messages);
        let rows = |from| {
            Rows::from(tables, snapshot, self.user, from).map_while(|row| match row {
                Ok(row) if row.sequence >= self.to => None,
                row => Some(row.map(|row| self.found(row.sequence, &row.value, names))),
            })
        };
        if messages <= WHOLE_MAX {
            let each = rows(self.from).take(WHOLE_MAX as usize);
            let sound = each.filter_map(Result::transpose);
            return sound
                .map(|found| {
                    let found = found?;
                    let bytes = found.record_len;
                    Ok((found.sender, Sum { messages: 1, bytes }))
                })
                .collect();
        }
        self.of_long(|from| {
            let each = rows(from).take(PAST_DAMAGE_MAX);
            each.filter_map(Result::transpose).next().transpose()
        })
    }

    fn found(&self, sequence: u64, value: &[u8], names: &Names) -> Option<Found> {
        let view = record::view(value).ok()?;
        let record_len = value.len() as u64;
        Some(Found {
            sequence,
            sender: names.sender(value)?,
            before: Sum {
                messages: view.ordinal.saturating_sub(1),
                bytes: view.cumulative_bytes.saturating_sub(record_len),
            },
            record_len,
            bare_from: self.to,
        })
    }

    /// `look` finds the first message from a sequence on.
    fn of_long(
        &self,
        look: impl Fn(u64) -> Result<Option<Found>, FailureKind>,
    ) -> Result<Vec<Part>, FailureKind> {
        let mut all: Vec<Found> = look(self.from)?.into_iter().collect();
        for _ in 0..SEEKS {
            let Some(at) = self.widest(&all) else {
                break;
            };
            let middle = all[at].sequence + (all[at].bare_from - all[at].sequence) / 2;
            let bare_from = std::mem::replace(&mut all[at].bare_from, middle);
            if let Some(mut found) = look(middle)?
                && found.sequence < bare_from
            {
                found.bare_from = bare_from;
                all.insert(at + 1, found);
            }
        }
        let parts = (0..all.len()).map(|at| (all[at].sender, self.stood_for(&all, at)));
        Ok(parts.collect())
    }

    /// The one behind which most messages may be that were not looked at.
    fn widest(&self, all: &[Found]) -> Option<usize> {
        let is_open = |at: &usize| all[*at].bare_from - all[*at].sequence > 1;
        (0..all.len())
            .filter(is_open)
            .max_by_key(|at| self.stood_for(all, *at).messages)
            .filter(|at| self.stood_for(all, *at).messages > 1)
    }

    /// What one stands for: itself and all up to the next, the first also for what is before it.
    fn stood_for(&self, all: &[Found], at: usize) -> Sum {
        let next = all.get(at + 1).map_or(self.until, |next| next.before);
        let from = if at == 0 { self.before } else { all[at].before };
        Sum {
            messages: next.messages.saturating_sub(from.messages),
            bytes: next.bytes.saturating_sub(from.bytes),
        }
    }
}
