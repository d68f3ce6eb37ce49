//! Reading one user's inbox: the account, the end, the head, a page.
//!
//! Used by the committer and by the readers, each with a snapshot of its own, so that account and messages are of
//! one moment; around what the database cannot read, see `rows`. Invariants: nothing below the head is ever returned; no record is returned that fails its CRC or
//! has expired; what is skipped is counted. Depth and bytes are differences of the running totals that stand in
//! the records, so they need no counter that a crash could leave wrong. They stay exact when records are damaged:
//! the place and the length of a record are known without its content.

use bytes::Bytes;
use fjall::{Readable, Snapshot};
use tracing::error;

use crate::account::{self, Account, Tail};
use crate::database::Tables;
use crate::record;
use crate::request::{FailureKind, Record, StoredMessage};
use crate::rows::{self, Row, Rows};
use crate::user::UserKey;

/// Records a page looks at beyond those it returns: bounds its time where many have expired.
const SKIPPED_MAX: usize = 10_000;

/// A number of messages and the bytes of their records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Sum {
    fn add(&mut self, record_len: usize) {
        self.messages += 1;
        self.bytes += record_len as u64;
    }
}

/// What an inbox holds: all that stands between its head and its tail.
pub(crate) fn live(account: &Account, tail: &Tail) -> Sum {
    Sum {
        messages: tail.ordinal.saturating_sub(account.burned_messages),
        bytes: tail.cumulative_bytes.saturating_sub(account.burned_bytes),
    }
}

/// What stands first in an inbox, as far as it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    /// Where the first message is that has not expired, or where one would be.
    pub(crate) head: u64,
    /// When that message expires, Unix milliseconds; `u64::MAX` if never, 0 if that is not known: no message was
    /// found, it fails its checks, or so many had expired that the search was ended.
    pub(crate) expires_at_ms: u64,
}

/// What is known of the messages before a head, from those that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstKept {
    /// What was ever stored before the head.
    Sound(Sum),
    /// No committed record that is kept is sound; this many damaged ones are.
    NoneSound(Sum),
}

/// What may go from the front of an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oldest {
    /// What is before this head: as much as was asked for, or all that is committed if that is less.
    Before(u64),
    /// Nothing is committed.
    None,
    /// Too little: one stands there that must stay.
    Stays,
}

/// What is asked of a page.
pub(crate) struct PageLimits {
    pub(crate) from: u64,
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
}

/// A stretch of an inbox.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) messages: Vec<StoredMessage>,
    pub(crate) next: u64,
    pub(crate) end: bool,
    pub(crate) lost: u32,
    pub(crate) expired: u32,
    /// Something was met that the database cannot read.
    pub(crate) broken: bool,
}

/// The user's account; `None` if the store never heard of the user, who then has no messages either.
pub(crate) fn account(
    tables: &Tables,
    snapshot: &Snapshot,
    user: UserKey,
    name: &str,
) -> Result<Option<Account>, FailureKind> {
    Ok(stored(tables, snapshot, user, name)?.map(|(account, _, _)| account))
}

/// The account, and where the inbox ended as the committer of the life named last knew it.
pub(crate) fn stored(
    tables: &Tables,
    snapshot: &Snapshot,
    user: UserKey,
    name: &str,
) -> Result<Option<(Account, Tail, u64)>, FailureKind> {
    if !account::name_is_sound(name) {
        return Err(FailureKind::BadRequest);
    }
    let Some(value) = snapshot.get(&tables.users, user).map_err(unreadable)? else {
        return Ok(None);
    };
    let stored = account::decode(&value)?;
    // An account that was made for messages whose own is lost has no name: it is the first's whose key it is.
    if !stored.name.is_empty() && stored.name != name.as_bytes() {
        return Err(FailureKind::NameCollision);
    }
    Ok(Some((stored.account, stored.tail, stored.tail_life)))
}

/// The end of the inbox. Damaged records at the end are counted by their place; what cannot be read at all there is
/// not, unless the account tells of it.
pub(crate) fn tail(
    tables: &Tables,
    snapshot: &Snapshot,
    user: UserKey,
    account: &Account,
) -> Result<Tail, FailureKind> {
    let Some((sequence, value)) = rows::newest(tables, snapshot, user, account.head)? else {
        return Ok(Tail {
            sequence: account.head.saturating_sub(1),
            ordinal: account.burned_messages,
            cumulative_bytes: account.burned_bytes,
        });
    };
    let mut tail = Tail {
        sequence,
        ordinal: account.burned_messages,
        cumulative_bytes: account.burned_bytes,
    };
    if let Ok(view) = record::view(&value) {
        tail.ordinal = view.ordinal;
        tail.cumulative_bytes = view.cumulative_bytes;
        return Ok(tail);
    }
    // The last sound one tells, and how many come after it.
    for row in Rows::from(tables, snapshot, user, account.head) {
        let row = row?;
        match record::view(&row.value) {
            Ok(view) => {
                tail.ordinal = view.ordinal;
                tail.cumulative_bytes = view.cumulative_bytes;
            }
            Err(_) => {
                tail.ordinal = tail.ordinal.saturating_add(1);
                tail.cumulative_bytes =
                    tail.cumulative_bytes.saturating_add(row.value.len() as u64);
            }
        }
    }
    Ok(tail)
}

/// Looks at what stays if everything before `head` is burned.
pub(crate) fn first_kept(
    tables: &Tables,
    snapshot: &Snapshot,
    user: UserKey,
    head: u64,
) -> Result<FirstKept, FailureKind> {
    let mut damaged = Sum::default();
    for row in Rows::from(tables, snapshot, user, head) {
        let row = row?;
        damaged.add(row.value.len());
        if let Ok(view) = record::view(&row.value) {
            // Of the totals up to here, those before the head remain: without this one and the damaged before it.
            return Ok(FirstKept::Sound(Sum {
                messages: view.ordinal.saturating_sub(damaged.messages),
                bytes: view.cumulative_bytes.saturating_sub(damaged.bytes),
            }));
        }
    }
    Ok(FirstKept::NoneSound(damaged))
}

/// Looks for the first message that has not expired. It looks at no more than [`SKIPPED_MAX`].
pub(crate) fn front(
    tables: &Tables,
    snapshot: &Snapshot,
    user: UserKey,
    head: u64,
    now_ms: u64,
) -> Result<Front, FailureKind> {
    let mut front = Front {
        head,
        expires_at_ms: 0,
    };
    for row in Rows::from(tables, snapshot, user, head).take(SKIPPED_MAX) {
        let row = row?;
        let Ok(view) = record::view(&row.value) else {
            break;
        };
        if !view.is_expired(now_ms) {
            front.expires_at_ms = match view.expires_at_ms {
                0 => u64::MAX,
                at_ms => at_ms,
            };
            break;
        }
        front.head = row.sequence.saturating_add(1);
    }
    Ok(front)
}

/// Looks for so much at the front of which every record may go.
pub(crate) fn oldest(
    tables: &Tables,
    snapshot: &Snapshot,
    user: UserKey,
    head: u64,
    lack: Sum,
    may_go: impl Fn(&[u8]) -> bool,
) -> Result<Oldest, FailureKind> {
    let (mut passed, mut oldest) = (Sum::default(), Oldest::None);
    for row in Rows::from(tables, snapshot, user, head) {
        if passed.messages >= lack.messages && passed.bytes >= lack.bytes {
            break;
        }
        let row = row?;
        if !may_go(&row.value) {
            return Ok(Oldest::Stays);
        }
        passed.add(row.value.len());
        oldest = Oldest::Before(row.sequence.saturating_add(1));
    }
    Ok(oldest)
}

/// Reads on from the head, or from where the last page ended.
pub(crate) fn page(
    tables: &Tables,
    snapshot: &Snapshot,
    user: UserKey,
    account: Option<&Account>,
    limits: &PageLimits,
    now_ms: u64,
) -> Result<Page, FailureKind> {
    let mut page = Page {
        next: limits.from,
        end: true,
        ..Page::default()
    };
    let Some(account) = account else {
        return Ok(page);
    };
    page.next = limits.from.max(account.head);
    let messages_max = limits.messages_max.max(1);
    let mut bytes = 0;
    // What the next sound record's ordinal should be; unknown in the middle of an inbox, until there was one.
    let mut expected = (page.next == account.head).then_some(account.burned_messages + 1);
    // Records that were there and not sound, since the last sound one.
    let mut unsound = 0;
    let mut passed = 0;
    let mut rows = Rows::from(tables, snapshot, user, page.next);
    for row in rows.by_ref() {
        let Row {
            sequence,
            value,
            after_break,
        } = row?;
        let view = record::view(&value);
        if let Ok(view) = &view {
            // Only beside damage: elsewhere a gap is what expired and was destroyed.
            if after_break && let Some(expected) = expected {
                let missing = view.ordinal.saturating_sub(expected);
                let missing = u32::try_from(missing.saturating_sub(unsound)).unwrap_or(u32::MAX);
                page.lost = page.lost.saturating_add(missing);
            }
            unsound = 0;
            expected = Some(view.ordinal.saturating_add(1));
        }
        let full = page.messages.len() >= messages_max
            || (!page.messages.is_empty() && bytes + value.len() > limits.bytes_max);
        if full || passed >= SKIPPED_MAX {
            page.end = false;
            // What was lost on the way to this one is counted, and is not to be counted again.
            page.next = sequence;
            break;
        }
        page.next = sequence.saturating_add(1);
        match view {
            Err(_) => {
                page.lost += 1;
                unsound += 1;
                passed += 1;
            }
            Ok(view) if view.is_expired(now_ms) => {
                page.expired += 1;
                passed += 1;
            }
            Ok(_) => {
                bytes += value.len();
                page.messages.push(StoredMessage {
                    sequence,
                    record: Record::from(Bytes::from_owner(value)),
                });
            }
        }
    }
    page.broken = rows.is_broken();
    Ok(page)
}

pub(crate) fn unreadable(source: fjall::Error) -> FailureKind {
    error!(%source, "the inbox store cannot be read");
    FailureKind::Unreadable
}
