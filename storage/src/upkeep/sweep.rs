//! Heads are moved past messages at the front of an inbox that have expired, whether its reader comes or not.
//!
//! A pass goes through all accounts, so many in each round, and looks at the front of each inbox. What it finds it
//! hands to the committer as a head, which counts what that passes. With the head moved, merges of tables destroy what
//! lies before it, and it no longer counts against any limit.

use std::ops::Bound;
use std::time::{Duration, Instant};

use fjall::{Readable, Slice};
use tracing::error;

use super::{Keeper, Round};
use crate::account;
use crate::client::{Envelope, Write};
use crate::clock;
use crate::database::Tables;
use crate::inbox;
use crate::request::FailureKind;
use crate::user::{UserHash, UserKey};

/// Accounts that are looked at while the database is borrowed: some milliseconds.
const ACCOUNTS_AT_ONCE: usize = 500;
/// A round of one database: at the default interval a fiftieth of a cpu, and about a million accounts in eight minutes.
/// Where the cpus are busy, or level 0 is full of tables to look into, a round gets less far, and takes no more of them:
/// 20,000 accounts in each round took a ninth of a cpu beside a flood.
const ROUND: Duration = Duration::from_millis(200);

/// Looks at one inbox in a round, each at up to ten thousand messages.
const LOOKS_AT_ONE: usize = 10;

/// A head behind what has expired.
struct Expired {
    user: UserKey,
    name: Box<str>,
    head: u64,
}

impl Round {
    pub(super) fn sweep(&self, keeper: &mut Keeper) {
        let began = Instant::now();
        while began.elapsed() < ROUND {
            if self.is_closing() {
                return;
            }
            let look = |tables: &_| look(tables, keeper.cursor, clock::now_ms());
            let (found, cursor) = match self.databases.lend(keeper.number, look) {
                Some(Ok(looked)) => looked,
                Some(Err(error)) => {
                    self.condition.note_unreadable(keeper.number);
                    return error!(%error, "expired messages cannot be looked for");
                }
                None => return,
            };
            for expired in found {
                let request = Write::Expire {
                    user: UserHash::of_key(expired.user),
                    name: expired.name,
                    head: expired.head,
                };
                let envelope = Envelope { client: 0, request };
                // A full queue: they are found again in the next pass.
                if self.writes[keeper.number].offer(envelope).is_err() {
                    return;
                }
            }
            keeper.cursor = cursor;
            if cursor.is_none() {
                return;
            }
        }
    }
}

/// Looks at the next accounts. The second is where to go on; `None` at the end of a pass.
fn look(
    tables: &Tables,
    cursor: Option<UserKey>,
    now_ms: u64,
) -> Result<(Vec<Expired>, Option<UserKey>), FailureKind> {
    let snapshot = tables.database.snapshot();
    let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
    let accounts = snapshot.range::<UserKey, _>(&tables.users, (from, Bound::Unbounded));
    let (mut found, mut last) = (Vec::new(), None);
    for guard in accounts.take(ACCOUNTS_AT_ONCE) {
        let (key, value): (Slice, Slice) = guard.into_inner().map_err(inbox::unreadable)?;
        let Ok(user) = UserKey::try_from(&*key) else {
            continue;
        };
        last = Some(user);
        // What fails its checks shows when its user comes.
        let Ok(stored) = account::decode(&value) else {
            continue;
        };
        let head = stored.account.head;
        let mut behind = head;
        for _ in 0..LOOKS_AT_ONE {
            let front = inbox::front(tables, &snapshot, user, behind, now_ms)?;
            if front.head == behind {
                break;
            }
            behind = front.head;
        }
        if behind > head
            && let Ok(name) = std::str::from_utf8(stored.name)
        {
            found.push(Expired {
                user,
                name: name.into(),
                head: behind,
            });
        }
    }
    Ok((found, last))
}
