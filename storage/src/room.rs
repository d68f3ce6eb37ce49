//! Room in an inbox: what has expired is passed over, the oldest give way if that is the rule, or there is none.
//!
//! Owner: the committer; a part of the batch in the making. Invariants: a head only moves forward, never past the
//! last message there is, and always together with the totals; whatever a head passes is counted under what made
//! it move. The search goes through what is committed: where that does not suffice, because the batch itself
//! wrote what is asked about, the batch is committed first and the request asked again.

use crate::account::Account;
use crate::batch::Batch;
use crate::inbox::{self, FirstKept, Sum};
use crate::ledger::Ledger;
use crate::quota::Overflow;
use crate::request::FailureKind;
use crate::user::UserKey;

impl Batch {
    /// Whether one more record of this length fits, now that room was made for it as far as that may be. False: the
    /// batch must be committed first. A user who is not known has no inbox yet.
    pub(crate) fn make_room(
        &mut self,
        ledger: &mut Ledger,
        user: UserKey,
        is_known: bool,
        record_len: u64,
    ) -> Result<bool, FailureKind> {
        if !is_known {
            return refusal(ledger, Sum::default(), record_len)
                .map_or(Ok(true), |(reason, _)| Err(reason));
        }
        if lack(ledger, user, record_len).is_none() {
            return Ok(true);
        }
        if !self.pass_expired(ledger, user)? {
            return Ok(false);
        }
        while let Some((reason, lack)) = lack(ledger, user, record_len) {
            let live = live(ledger, user);
            let gives_way = ledger.room.quotas.overflow == Overflow::DropOldest
                && lack.messages <= live.messages
                && lack.bytes <= live.bytes;
            if !gives_way {
                return Err(reason);
            }
            let head = ledger.head(user);
            let behind = inbox::behind_oldest(&ledger.tables, &self.snapshot, user, head, lack)?;
            let gone = match behind {
                Some(behind) => self.move_head(ledger, user, behind)?,
                None if self.wrote_to(ledger, user) => None,
                None => return Err(reason),
            };
            let Some(gone) = gone else {
                return Ok(false);
            };
            self.tally.dropped += gone.messages;
        }
        Ok(true)
    }

    /// Moves the head behind the messages at the front of an inbox that have expired. False: the batch must be
    /// committed first.
    fn pass_expired(&mut self, ledger: &mut Ledger, user: UserKey) -> Result<bool, FailureKind> {
        let Some(remembered) = ledger.tails.recall(user) else {
            return Ok(true);
        };
        if remembered.front_expires_at_ms > self.now_ms {
            return Ok(true);
        }
        let head = remembered.account.head;
        let front = inbox::front(&ledger.tables, &self.snapshot, user, head, self.now_ms)?;
        if front.expires_at_ms == 0 && self.wrote_to(ledger, user) {
            return Ok(false);
        }
        let Some(gone) = self.move_head(ledger, user, front.head)? else {
            return Ok(false);
        };
        self.tally.expired += gone.messages;
        if let Some(remembered) = ledger.tails.recall(user) {
            remembered.front_expires_at_ms = front.expires_at_ms;
        }
        Ok(true)
    }

    /// Moves the head of a remembered user, and says what is gone with that. `None`: the batch must be committed
    /// first.
    pub(crate) fn move_head(
        &mut self,
        ledger: &mut Ledger,
        user: UserKey,
        head: u64,
    ) -> Result<Option<Sum>, FailureKind> {
        let wrote_to = self.wrote_to(ledger, user);
        let Some(remembered) = ledger.tails.recall(user) else {
            return Ok(Some(Sum::default()));
        };
        let (account, tail) = (remembered.account, remembered.tail);
        // Never beyond what is there: a later message has a higher sequence, and must not be born burned.
        let head = head.min(tail.sequence + 1);
        if head <= account.head {
            return Ok(Some(Sum::default()));
        }
        let everything = Sum {
            messages: tail.ordinal,
            bytes: tail.cumulative_bytes,
        };
        let before = if head > tail.sequence {
            everything
        } else {
            match inbox::first_kept(&ledger.tables, &self.snapshot, user, head)? {
                FirstKept::Sound(before) => before,
                FirstKept::NoneSound(_) if wrote_to => return Ok(None),
                FirstKept::NoneSound(damaged) => Sum {
                    messages: everything.messages.saturating_sub(damaged.messages),
                    bytes: everything.bytes.saturating_sub(damaged.bytes),
                },
            }
        };
        // What is gone only grows, whatever a damaged record says.
        let gone = Sum {
            messages: before.messages.saturating_sub(account.burned_messages),
            bytes: before.bytes.saturating_sub(account.burned_bytes),
        };
        remembered.account = Account {
            head,
            burned_messages: account.burned_messages + gone.messages,
            burned_bytes: account.burned_bytes + gone.bytes,
            last_seen_ms: account.last_seen_ms,
        };
        remembered.front_expires_at_ms = 0;
        ledger.forgo(gone);
        self.needs_sync = true;
        self.touch(ledger, user);
        Ok(Some(gone))
    }

    fn wrote_to(&self, ledger: &mut Ledger, user: UserKey) -> bool {
        ledger
            .tails
            .recall(user)
            .is_some_and(|inbox| inbox.appended_in == self.number)
    }
}

fn live(ledger: &mut Ledger, user: UserKey) -> Sum {
    ledger.tails.recall(user).map_or(Sum::default(), |inbox| {
        inbox::live(&inbox.account, &inbox.tail)
    })
}

/// What is missing for a record in a remembered user's inbox, and why it would be refused; `None` if it fits.
fn lack(ledger: &mut Ledger, user: UserKey, record_len: u64) -> Option<(FailureKind, Sum)> {
    let live = live(ledger, user);
    refusal(ledger, live, record_len)
}

fn refusal(ledger: &Ledger, live: Sum, record_len: u64) -> Option<(FailureKind, Sum)> {
    let lack = ledger.room.quotas.lack(live, record_len);
    let store = ledger.room.lack(record_len);
    let both = Sum {
        messages: lack.messages,
        bytes: lack.bytes.max(store),
    };
    if lack != Sum::default() {
        Some((FailureKind::InboxFull, both))
    } else if store > 0 {
        Some((FailureKind::StoreFull, both))
    } else {
        None
    }
}
