//! The records of one inbox in order, also around what the database cannot read.
//!
//! Used by the committers and the readers, each with a snapshot of its own. fjall's own iterator ends at a block that
//! fails its checksum: it drops the rest of that table without a word. From there on the tables are read one by one,
//! a stretch at a time: each steps over its own bad blocks, and what stands in memory is newer than all of them.
//!
//! Invariants: rows come in the order of their sequences, none twice; whatever can be read comes; where something
//! could not be read, the rows around it say so.

use std::collections::{BTreeMap, VecDeque};

use fjall::{AbstractTree, Guard, LsmError, Readable, Slice, Snapshot};
use tracing::error;

use crate::database::Tables;
use crate::request::FailureKind;
use crate::user::{UserKey, message_key, split_message_key};

/// Rows that are read at once around damage.
const STRETCH: usize = 1024;
/// Tries at a view of the tables that no flush or merge changes meanwhile; each takes some milliseconds.
const TRIES_MAX: usize = 5;

/// A record that is kept.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) sequence: u64,
    pub(crate) value: Slice,
    /// Between this row and the one before there may be some that cannot be read.
    pub(crate) after_break: bool,
}

/// Goes through an inbox from a sequence on.
pub(crate) struct Rows<'a> {
    tables: &'a Tables,
    snapshot: &'a Snapshot,
    user: UserKey,
    /// Where the next row is looked for.
    from: u64,
    state: State,
    broken: bool,
}

enum State {
    Plain(fjall::Iter),
    Around { rows: VecDeque<Row>, more: bool },
    Failed,
}

impl<'a> Rows<'a> {
    pub(crate) fn from(
        tables: &'a Tables,
        snapshot: &'a Snapshot,
        user: UserKey,
        from: u64,
    ) -> Rows<'a> {
        let range = message_key(user, from)..=message_key(user, u64::MAX);
        Rows {
            tables,
            snapshot,
            user,
            from,
            state: State::Plain(snapshot.range(&tables.messages, range)),
            broken: false,
        }
    }

    /// Whether something was met that cannot be read.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    fn stretch(&mut self) -> Result<Option<Row>, FailureKind> {
        let mut stretch = read_stretch(self.tables, self.snapshot, self.user, self.from, STRETCH)?;
        let first = stretch.rows.pop_front();
        self.state = State::Around {
            rows: stretch.rows,
            more: stretch.more,
        };
        Ok(first)
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, FailureKind>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = match &mut self.state {
            State::Plain(rows) => match rows.next()?.into_inner() {
                Ok((key, value)) => match split_message_key(&key) {
                    Some((_, sequence)) => Ok(Some(Row {
                        sequence,
                        value,
                        after_break: false,
                    })),
                    None => Err(FailureKind::Damaged),
                },
                Err(source) => {
                    error!(%source, from = self.from, "a table of the inbox store is damaged; it is read around");
                    self.broken = true;
                    self.stretch()
                }
            },
            State::Around { rows, more } => match rows.pop_front() {
                None if *more => self.stretch(),
                row => Ok(row),
            },
            State::Failed => Ok(None),
        };
        match row {
            Ok(row) => {
                let row = row?;
                self.from = row.sequence.saturating_add(1);
                Some(Ok(row))
            }
            Err(error) => {
                self.state = State::Failed;
                Some(Err(error))
            }
        }
    }
}

/// The newest row that can be read.
pub(crate) fn newest(
    tables: &Tables,
    snapshot: &Snapshot,
    user: UserKey,
    from: u64,
) -> Result<Option<(u64, Slice)>, FailureKind> {
    let range = message_key(user, from)..=message_key(user, u64::MAX);
    match snapshot.range(&tables.messages, range).next_back() {
        None => Ok(None),
        Some(guard) => match guard.into_inner() {
            Ok((key, value)) => {
                let (_, sequence) = split_message_key(&key).ok_or(FailureKind::Damaged)?;
                Ok(Some((sequence, value)))
            }
            Err(source) => {
                error!(%source, "the end of an inbox is damaged; what stands before it counts");
                let stretch = read_stretch(tables, snapshot, user, from, 0)?;
                Ok(stretch.newest)
            }
        },
    }
}

/// What lies between two rows of a table and cannot be read: `after < unreadable < before`.
struct Break {
    after: Option<u64>,
    before: Option<u64>,
}

impl Break {
    /// Whether the row at this sequence may follow something unreadable.
    fn may_precede(&self, sequence: u64) -> bool {
        self.after.is_none_or(|after| after < sequence)
            && self.before.is_none_or(|before| sequence <= before)
    }
}

struct Stretch {
    rows: VecDeque<Row>,
    more: bool,
    newest: Option<(u64, Slice)>,
}

/// Reads up to `rows_max` rows from a sequence on, from each table by itself.
fn read_stretch(
    tables: &Tables,
    snapshot: &Snapshot,
    user: UserKey,
    from: u64,
    rows_max: usize,
) -> Result<Stretch, FailureKind> {
    let tree = &tables.messages.tree;
    for _ in 0..TRIES_MAX {
        let version = tree.current_version();
        let mut read = Read {
            rows: BTreeMap::new(),
            breaks: Vec::new(),
            rows_max,
            newest: None,
        };
        let low = Slice::new(&message_key(user, from));
        let high = Slice::new(&message_key(user, u64::MAX));
        for table in version.iter_tables() {
            let range = &table.metadata.key_range;
            if *range.min() > high || *range.max() < low {
                continue;
            }
            // What was written after the snapshot was made has a later seqno.
            let seqno = snapshot.seqno();
            macro_rules! shown {
                ($rows:expr) => {
                    $rows.map(|row| {
                        row.map(|item| (item.key.seqno < seqno, item.key.user_key, item.value))
                    })
                };
            }
            read.table(shown!(table.range(low.clone()..=high.clone())));
            read.last_of_table(shown!(table.range(low.clone()..=high.clone()).rev()));
        }
        read.memory(tables, snapshot, user, from)?;
        if tree.current_version().id() == version.id() {
            return Ok(read.finish());
        }
    }
    // The caller's request fails, and may be asked again.
    Err(FailureKind::Unreadable)
}

/// A row of a table: whether the snapshot shows it, its key and its value.
type TableRow = Result<(bool, Slice, Slice), LsmError>;

struct Read {
    rows: BTreeMap<u64, Slice>,
    breaks: Vec<Break>,
    rows_max: usize,
    newest: Option<(u64, Slice)>,
}

impl Read {
    /// Takes the first rows of a table, and where it cannot be read.
    fn table(&mut self, rows: impl Iterator<Item = TableRow>) {
        let mut last = None;
        let mut in_break = false;
        let mut taken = 0;
        for row in readable(rows) {
            // One more than is asked for: so the break before it is known.
            if taken > self.rows_max {
                break;
            }
            let Some((sequence, value)) = row else {
                in_break = true;
                continue;
            };
            if in_break {
                in_break = false;
                self.breaks.push(Break {
                    after: last,
                    before: Some(sequence),
                });
            }
            last = Some(sequence);
            taken += 1;
            self.rows.insert(sequence, value);
            if self.rows.len() > self.rows_max + 1 {
                self.rows.pop_last();
            }
        }
        if in_break {
            self.breaks.push(Break {
                after: last,
                before: None,
            });
        }
    }

    fn last_of_table(&mut self, rows: impl Iterator<Item = TableRow>) {
        let last = readable(rows).flatten().next();
        self.newer(last);
    }

    fn newer(&mut self, row: Option<(u64, Slice)>) {
        let newest = self.newest.as_ref().map_or(0, |(sequence, _)| *sequence);
        if let Some((sequence, value)) = row
            && sequence >= newest
        {
            self.newest = Some((sequence, value));
        }
    }

    /// Takes what stands in memory. It is newer than every row of a table, so behind the newest of them the tables
    /// give nothing but errors, which fjall's iterator gets past while it begins.
    fn memory(
        &mut self,
        tables: &Tables,
        snapshot: &Snapshot,
        user: UserKey,
        from: u64,
    ) -> Result<(), FailureKind> {
        let in_tables = self.newest.as_ref().map(|(newest, _)| *newest);
        let behind = in_tables.map_or(from, |newest| newest.saturating_add(1).max(from));
        let range = || message_key(user, behind)..=message_key(user, u64::MAX);
        let mut backward = in_memory(snapshot.range(&tables.messages, range()).rev());
        self.newer(backward.next().transpose()?);
        for row in in_memory(snapshot.range(&tables.messages, range())) {
            let (sequence, value) = row?;
            self.rows.insert(sequence, value);
            if self.rows.len() > self.rows_max {
                break;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Stretch {
        let more = self.rows.len() > self.rows_max;
        while self.rows.len() > self.rows_max {
            self.rows.pop_last();
        }
        let breaks = self.breaks;
        let rows = self.rows.into_iter().map(|(sequence, value)| Row {
            sequence,
            value,
            after_break: breaks.iter().any(|it| it.may_precede(sequence)),
        });
        Stretch {
            rows: rows.collect(),
            more,
            newest: self.newest,
        }
    }
}

/// Blocks in a row that cannot be read, in one inbox: 64 MiB of them.
const ERRORS_MAX: usize = 16_384;

/// The rows of a table; `None` where it cannot be read. It ends where the same block fails twice: that is the
/// table's index, without which nothing in it is found.
fn readable(rows: impl Iterator<Item = TableRow>) -> impl Iterator<Item = Option<(u64, Slice)>> {
    let mut failed: Option<LsmError> = None;
    let mut errors = 0;
    let steps = rows.map_while(move |row| match row {
        Ok((visible, key, value)) => {
            failed = None;
            let row = split_message_key(&key).map(|(_, sequence)| Some((sequence, value)));
            Some(row.filter(|_| visible))
        }
        Err(error) => {
            errors += 1;
            let same = matches!(error, LsmError::ChecksumMismatch { .. })
                && failed
                    .as_ref()
                    .is_some_and(|failed| failed.to_string() == error.to_string());
            failed = Some(error);
            (!same && errors < ERRORS_MAX).then_some(Some(None))
        }
    });
    steps.flatten()
}

/// The rows of a range in which every error comes before the first row.
fn in_memory(
    rows: impl Iterator<Item = Guard>,
) -> impl Iterator<Item = Result<(u64, Slice), FailureKind>> {
    let mut errors = 0;
    let mut begun = false;
    rows.filter_map(move |guard| match guard.into_inner() {
        Ok((key, value)) => {
            begun = true;
            Some(match split_message_key(&key) {
                Some((_, sequence)) => Ok((sequence, value)),
                None => Err(FailureKind::Damaged),
            })
        }
        Err(_) if !begun && errors < ERRORS_MAX => {
            errors += 1;
            None
        }
        Err(_) => Some(Err(FailureKind::Unreadable)),
    })
}
