//! A look at everything in a database: every account, every record, who has what.
//!
//! Used by the offline commands, on a database that nobody writes to. Memory: one inbox's stretch, and the largest few.

use fjall::{Readable, Snapshot};

use crate::account;
use crate::database::Tables;
use crate::inbox;
use crate::name_key::NameKey;
use crate::record;
use crate::request::FailureKind;
use crate::rows::Rows;
use crate::user::{UserKey, message_key, next_user, split_message_key};

/// Inboxes that are told by name.
const LARGEST_MAX: usize = 10;

/// What a look at everything found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Users the store has heard of.
    pub users: u64,
    /// Of these, those whose name was lost with their account.
    pub users_unnamed: u64,
    /// Messages that can be delivered.
    pub messages: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Messages that stand between the heads and the tails, by their ordinals.
    pub messages_counted: u64,
    /// Bytes of their records.
    pub bytes_counted: u64,
    /// Messages that are counted and not there: destroyed because they had expired, or lost.
    pub messages_missing: u64,
    /// Records that fail their checks.
    pub messages_damaged: u64,
    /// Accounts that fail their checks, or whose name does not fit their key.
    pub accounts_damaged: u64,
    /// Users with messages and no account.
    pub users_without_account: u64,
    /// Inboxes with a message twice, or out of its order.
    pub inboxes_out_of_order: u64,
    /// Inboxes of which a part cannot be read.
    pub inboxes_broken: u64,
    /// When the oldest message was sent, Unix milliseconds; `None` without messages.
    pub oldest_ms: Option<u64>,
    /// The largest inboxes, by messages.
    pub largest: Vec<Inbox>,
}

/// A user's inbox in figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inbox {
    /// The user; empty if the name was lost.
    pub name: String,
    /// Messages in it.
    pub messages: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

impl Survey {
    /// What is wrong, in words; empty if all is sound.
    pub fn faults(&self) -> Vec<String> {
        [
            (self.messages_damaged, "records fail their checks"),
            (self.accounts_damaged, "accounts fail their checks"),
            (
                self.users_without_account,
                "users have messages and no account",
            ),
            (self.inboxes_out_of_order, "inboxes are out of order"),
            (self.inboxes_broken, "inboxes cannot be read as a whole"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
    }

    /// Adds what was found in another database.
    pub(crate) fn add(&mut self, other: Survey) {
        self.users += other.users;
        self.users_unnamed += other.users_unnamed;
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.messages_counted += other.messages_counted;
        self.bytes_counted += other.bytes_counted;
        self.messages_missing += other.messages_missing;
        self.messages_damaged += other.messages_damaged;
        self.accounts_damaged += other.accounts_damaged;
        self.users_without_account += other.users_without_account;
        self.inboxes_out_of_order += other.inboxes_out_of_order;
        self.inboxes_broken += other.inboxes_broken;
        self.oldest_ms = match (self.oldest_ms, other.oldest_ms) {
            (Some(own), Some(other)) => Some(own.min(other)),
            (own, other) => own.or(other),
        };
        for inbox in other.largest {
            self.rank(inbox);
        }
    }

    fn rank(&mut self, inbox: Inbox) {
        self.largest.push(inbox);
        self.largest
            .sort_by(|a, b| b.messages.cmp(&a.messages).then(a.name.cmp(&b.name)));
        self.largest.truncate(LARGEST_MAX);
    }
}

/// Looks at everything.
pub(crate) fn survey(tables: &Tables, name_key: NameKey) -> Result<Survey, FailureKind> {
    let snapshot = tables.database.snapshot();
    let mut survey = Survey::default();
    for guard in snapshot.iter(&tables.users) {
        let Ok((key, value)) = guard.into_inner() else {
            return Err(FailureKind::Unreadable);
        };
        // Rows of ours that belong to no user have other keys.
        let Ok(user) = UserKey::try_from(&*key) else {
            continue;
        };
        let stored = account::decode(&value).ok();
        let sound = stored.filter(|stored| {
            let name = str::from_utf8(stored.name).unwrap_or_default();
            stored.name.is_empty() || name_key.hash(name).key() == user
        });
        match sound {
            Some(stored) => look_at(tables, &snapshot, user, &stored, &mut survey)?,
            None => survey.accounts_damaged += 1,
        }
    }
    survey.users_without_account = without_account(tables, &snapshot)?;
    Ok(survey)
}

fn look_at(
    tables: &Tables,
    snapshot: &Snapshot,
    user: UserKey,
    stored: &account::Stored<'_>,
    survey: &mut Survey,
) -> Result<(), FailureKind> {
    let mut inbox = Inbox {
        name: String::from_utf8_lossy(stored.name).into_owned(),
        ..Inbox::default()
    };
    let account = &stored.account;
    let tail = inbox::tail(tables, snapshot, user, account)?;
    let (mut found, mut damaged) = (0, 0);
    let (mut ordinal, mut in_order) = (account.burned_messages, true);
    let mut rows = Rows::from(tables, snapshot, user, account.head);
    for row in rows.by_ref() {
        let row = row?;
        found += 1;
        match record::view(&row.value) {
            Ok(view) => {
                in_order &= view.ordinal > ordinal;
                ordinal = view.ordinal;
                inbox.messages += 1;
                inbox.bytes += row.value.len() as u64;
                let oldest = survey.oldest_ms.get_or_insert(view.sent_at_ms);
                *oldest = (*oldest).min(view.sent_at_ms);
            }
            Err(_) => damaged += 1,
        }
    }
    let counted = tail.ordinal.saturating_sub(account.burned_messages);
    survey.users += 1;
    survey.users_unnamed += u64::from(stored.name.is_empty());
    survey.messages += inbox.messages;
    survey.bytes += inbox.bytes;
    survey.messages_counted += counted;
    survey.bytes_counted += tail.cumulative_bytes.saturating_sub(account.burned_bytes);
    survey.messages_missing += counted.saturating_sub(found);
    survey.messages_damaged += damaged;
    survey.inboxes_out_of_order += u64::from(!in_order);
    survey.inboxes_broken += u64::from(rows.is_broken());
    if inbox.messages > 0 {
        survey.rank(inbox);
    }
    Ok(())
}

/// Goes from user to user through the messages.
fn without_account(tables: &Tables, snapshot: &Snapshot) -> Result<u64, FailureKind> {
    let mut without = 0;
    let mut from = message_key([0; 12], 0);
    while let Some(guard) = snapshot.range(&tables.messages, from..).next() {
        let Ok(key) = guard.key() else {
            // Told as a broken inbox, if there is an account; nobody can tell the others.
            return Ok(without);
        };
        let (user, _) = split_message_key(&key).ok_or(FailureKind::Damaged)?;
        let account = snapshot.get(&tables.users, user);
        without += u64::from(account.map_err(|_| FailureKind::Unreadable)?.is_none());
        match next_user(user) {
            Some(next) => from = message_key(next, 0),
            None => break,
        }
    }
    Ok(without)
}
