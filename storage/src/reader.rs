//! The threads that read: pages and accounts.
//!
//! Each takes one request at a time from the queue they share, on a snapshot made after it was taken; so a
//! read sees every write whose reply was given before it was asked, and no sync is waited for. Invariant:
//! whatever was taken from the queue is answered, also if reading panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tracing::error;

use crate::client::{Envelope, Read};
use crate::clock;
use crate::database::Tables;
use crate::databases::Databases;
use crate::disk::Condition;
use crate::entrance::Exit;
use crate::fair_reads::FairReads;
use crate::inbox::{self, PageLimits};
use crate::metrics::{Counts, ReaderCounts, lock};
use crate::outlets::{Delivery, Outlets};
use crate::request::{FailureKind, Reply};
use crate::user::UserHash;

/// A reader's state.
pub(crate) struct Reader {
    pub(crate) number: usize,
    pub(crate) databases: Arc<Databases>,
    pub(crate) requests: Exit<FairReads>,
    pub(crate) outlets: Outlets,
    pub(crate) counts: Arc<Counts>,
    pub(crate) condition: Arc<Condition>,
}

impl Reader {
    /// Runs until the store is closed.
    pub(crate) fn run(self) {
        loop {
            let Envelope { client, request } = self.requests.take();
            let Some(token) = request.token() else {
                return;
            };
            let mut counts = ReaderCounts::default();
            let answered = catch_unwind(AssertUnwindSafe(|| self.answer(request, &mut counts)));
            let reply = match answered {
                Ok(Ok(reply)) => reply,
                Ok(Err(error)) => Reply::Failed { token, error },
                Err(_) => {
                    error!("a reader of the inbox store panicked");
                    Reply::Failed {
                        token,
                        error: FailureKind::Unreadable,
                    }
                }
            };
            self.count(&counts, &reply);
            let delivery = Delivery {
                replies: [reply].into(),
                spent: Vec::new(),
            };
            if let Some(outlet) = self.outlets.of(client) {
                outlet.deliver(delivery);
            }
        }
    }

    fn answer(&self, request: Read, counts: &mut ReaderCounts) -> Result<Reply, FailureKind> {
        let (user, reply) = match request {
            Read::Page {
                token,
                user,
                name,
                from,
                messages_max,
                bytes_max,
                ..
            } => {
                let limits = PageLimits {
                    from,
                    messages_max,
                    bytes_max,
                };
                let page = |tables: &_| page(tables, token, user, &name, &limits, counts);
                (user, self.databases.lend_for(user.key(), page))
            }
            Read::Account {
                token, user, name, ..
            } => {
                let account = |tables: &_| account(tables, token, user, &name, counts);
                (user, self.databases.lend_for(user.key(), account))
            }
            Read::Close => return Err(FailureKind::Closed),
        };
        if counts.broken > 0 || matches!(reply, Some(Err(FailureKind::Unreadable))) {
            let number = self.databases.number_of(user.key());
            self.condition.note_unreadable(number);
        }
        // Its database is closed just now.
        reply.unwrap_or(Err(FailureKind::Unreadable))
    }

    fn count(&self, counts: &ReaderCounts, reply: &Reply) {
        let Some(totals) = self.counts.readers.get(self.number) else {
            return;
        };
        let mut totals = lock(totals);
        totals.pages += counts.pages;
        totals.page_messages += counts.page_messages;
        totals.expired += counts.expired;
        totals.lost += counts.lost;
        totals.broken += counts.broken;
        totals.accounts += counts.accounts;
        if let Reply::Failed { error, .. } = reply
            && let Some(count) = totals.failed.get_mut(*error as usize)
        {
            *count += 1;
        }
    }
}

fn page(
    tables: &Tables,
    token: u64,
    user: UserHash,
    name: &str,
    limits: &PageLimits,
    counts: &mut ReaderCounts,
) -> Result<Reply, FailureKind> {
    let snapshot = tables.database.snapshot();
    let account = inbox::account(tables, &snapshot, user.key(), name)?;
    let page = inbox::page(
        tables,
        &snapshot,
        user.key(),
        account.as_ref(),
        limits,
        clock::now_ms(),
    )?;
    counts.pages = 1;
    counts.page_messages = page.messages.len() as u64;
    counts.expired = u64::from(page.expired);
    counts.lost = u64::from(page.lost);
    counts.broken = u64::from(page.broken);
    if page.lost > 0 {
        error!(
            ?user,
            lost = page.lost,
            "records of an inbox are damaged and were skipped"
        );
    }
    Ok(Reply::Page {
        token,
        messages: page.messages,
        next: page.next,
        end: page.end,
        lost: page.lost,
    })
}

fn account(
    tables: &Tables,
    token: u64,
    user: UserHash,
    name: &str,
    counts: &mut ReaderCounts,
) -> Result<Reply, FailureKind> {
    counts.accounts = 1;
    let snapshot = tables.database.snapshot();
    let Some(account) = inbox::account(tables, &snapshot, user.key(), name)? else {
        return Ok(Reply::Account {
            token,
            messages: 0,
            bytes: 0,
            last_seen_ms: 0,
        });
    };
    let tail = inbox::tail(tables, &snapshot, user.key(), &account)?;
    let live = inbox::live(&account, &tail);
    Ok(Reply::Account {
        token,
        messages: live.messages,
        bytes: live.bytes,
        last_seen_ms: account.last_seen_ms,
    })
}
