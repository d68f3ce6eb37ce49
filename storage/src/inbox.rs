//! Reading one user's inbox: the account, the end, the head, a page.
//!
//! Used by the committer and by the readers, each with a snapshot of its own, so that account and messages are of
//! one moment. Invariants: nothing below the head is ever returned; no record is returned that fails its CRC or
//! has expired; what is skipped is counted. Depth and bytes are differences of the running totals that stand in
//! the records, so they need no counter that a crash could leave wrong. They stay exact when records are damaged:
//! the place and the length of a record are known without its content.

use std::ops::RangeInclusive;

use bytes::Bytes;
use fjall::{Guard, Readable, Slice, Snapshot};
use tracing::error;

use crate::account::{self, Account, Tail};
use crate::database::Tables;
use crate::record;
use crate::request::{FailureKind, Record, StoredMessage};
use crate::user::{MessageKey, UserKey, message_key, split_message_key};

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

/// What is known of the messages before a head, from those that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstKept {
    /// What was ever stored before the head.
    Sound(Sum),
    /// No committed record that is kept is sound; this many damaged ones are.
    NoneSound(Sum),
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

/// The end of the inbox. Damaged records at the end are counted by their place.
pub(crate) fn tail(
    tables: &Tables,
    snapshot: &Snapshot,
    user: UserKey,
    account: &Account,
) -> Result<Tail, FailureKind> {
    let mut newest = None;
    let mut damaged = Sum::default();
    let mut at = Sum {
        messages: account.burned_messages,
        bytes: account.burned_bytes,
    };
    for guard in snapshot
        .range(&tables.messages, kept(user, account.head))
        .rev()
    {
        let (sequence, value) = message(guard)?;
        newest.get_or_insert(sequence);
        if let Ok(view) = record::view(&value) {
            at = Sum {
                messages: view.ordinal,
                bytes: view.cumulative_bytes,
            };
            break;
        }
        damaged.add(value.len());
    }
    Ok(Tail {
        sequence: newest.unwrap_or_else(|| account.head.saturating_sub(1)),
        ordinal: at.messages.saturating_add(damaged.messages),
        cumulative_bytes: at.bytes.saturating_add(damaged.bytes),
    })
}

/// Looks at what stays if everything before `head` is burned.
pub(crate) fn first_kept(
    tables: &Tables,
    snapshot: &Snapshot,
    user: UserKey,
    head: u64,
) -> Result<FirstKept, FailureKind> {
    let mut damaged = Sum::default();
    for guard in snapshot.range(&tables.messages, kept(user, head)) {
        let (_, value) = message(guard)?;
        damaged.add(value.len());
        if let Ok(view) = record::view(&value) {
            // Of the totals up to here, those before the head remain: without this one and the damaged before it.
            return Ok(FirstKept::Sound(Sum {
                messages: view.ordinal.saturating_sub(damaged.messages),
                bytes: view.cumulative_bytes.saturating_sub(damaged.bytes),
            }));
        }
    }
    Ok(FirstKept::NoneSound(damaged))
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
    for guard in snapshot.range(&tables.messages, kept(user, page.next)) {
        let (sequence, value) = message(guard)?;
        let skipped = (page.lost + page.expired) as usize;
        let full = page.messages.len() >= messages_max
            || (!page.messages.is_empty() && bytes + value.len() > limits.bytes_max);
        if full || skipped >= SKIPPED_MAX {
            page.end = false;
            break;
        }
        page.next = sequence.saturating_add(1);
        match record::view(&value) {
            Err(_) => page.lost += 1,
            Ok(view) if view.is_expired(now_ms) => page.expired += 1,
            Ok(_) => {
                bytes += value.len();
                page.messages.push(StoredMessage {
                    sequence,
                    record: Record::from(Bytes::from(value)),
                });
            }
        }
    }
    Ok(page)
}

/// Keys of the messages of a user from a sequence on.
fn kept(user: UserKey, head: u64) -> RangeInclusive<MessageKey> {
    message_key(user, head)..=message_key(user, u64::MAX)
}

fn message(guard: Guard) -> Result<(u64, Slice), FailureKind> {
    let (key, value) = guard.into_inner().map_err(unreadable)?;
    let (_, sequence) = split_message_key(&key).ok_or(FailureKind::Damaged)?;
    Ok((sequence, value))
}

fn unreadable(source: fjall::Error) -> FailureKind {
    error!(%source, "the inbox store cannot be read");
    FailureKind::Unreadable
}
