//! Room in an inbox: what has expired is passed over, the oldest give way if that is the rule, or there is none; and nobody
//! takes more of it than a share.
//!
//! Owner: the committer; a part of the batch in the making. Invariants: a head only moves forward, never past the
//! last message there is, and always together with the totals; whatever a head passes is counted under what made
//! it move. The search goes through what is committed: where that does not suffice, because the batch itself
//! wrote what is asked about, the batch is committed first and the request asked again.

use crate::account::Account;
use crate::batch::Batch;
use crate::inbox::{self, FirstKept, Oldest, Sum};
use crate::ledger::Ledger;
use crate::quota::{Overflow, Room};
use crate::request::FailureKind;
use crate::sample::Stretch;
use crate::shares::{Largest, Sender, Senders};
use crate::tails::Inbox;
use crate::user::UserKey;

/// A record that is to be appended.
#[derive(Clone, Copy)]
pub(crate) struct Incoming {
    pub(crate) sender: Sender,
    pub(crate) record_len: u64,
}

/// Why a record does not fit, and what would have to go.
struct Lack {
    reason: FailureKind,
    sum: Sum,
    /// Whose messages may go for it, if any may.
    from: Whose,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Those of whoever holds as much of the inbox as the sender.
    NotLess,
    /// The sender's own.
    Own,
}

impl Batch {
    /// Whether one more record of this length fits, now that room was made for it as far as that may be. False: the
    /// batch must be committed first. A user who is not known has no inbox yet.
    pub(crate) fn make_room(
        &mut self,
        ledger: &mut Ledger,
        user: UserKey,
        is_known: bool,
        incoming: Incoming,
    ) -> Result<bool, FailureKind> {
        ledger.watch_senders();
        if !is_known {
            let holding = Holding {
                room: &ledger.room,
                of_store: ledger.senders.as_ref(),
                live: Sum::default(),
                of_inbox: None,
            };
            let lack = holding.lack(incoming);
            return lack.map_or(Ok(true), |lack| Err(lack.reason));
        }
        if !self.watch_senders(ledger, user)? {
            return Ok(false);
        }
        if lack(ledger, user, incoming).is_none() {
            return Ok(true);
        }
        if !self.pass_expired(ledger, user)? {
            return Ok(false);
        }
        while let Some(lack) = lack(ledger, user, incoming) {
            let live = live(ledger, user);
            let gives_way = ledger.room.quotas.overflow == Overflow::DropOldest
                && lack.sum.messages <= live.messages
                && lack.sum.bytes <= live.bytes;
            if !gives_way {
                return Err(lack.reason);
            }
            let gone = match self.oldest(ledger, user, incoming.sender, &lack)? {
                Oldest::Before(head) => self.move_head(ledger, user, head)?,
                Oldest::None if self.wrote_to(ledger, user) => None,
                Oldest::None => return Err(lack.reason),
                Oldest::Stays if lack.from == Whose::Own => return Err(lack.reason),
                Oldest::Stays => return Err(FailureKind::InboxShare),
            };
            let Some(gone) = gone else {
                return Ok(false);
            };
            self.tally.dropped += gone.messages;
        }
        Ok(true)
    }

    /// What may go from the front for a record of this sender.
    fn oldest(
        &self,
        ledger: &mut Ledger,
        user: UserKey,
        sender: Sender,
        lack: &Lack,
    ) -> Result<Oldest, FailureKind> {
        let head = ledger.head(user);
        let inbox = ledger.tails.recall(user);
        let senders = inbox.and_then(|inbox| inbox.senders.as_deref());
        let (names, max) = (&ledger.names, ledger.room.quotas.of_inbox());
        let may_go = |record: &[u8]| {
            // One that is no record any more is nobody's.
            let Some(other) = names.sender(record) else {
                return true;
            };
            match lack.from {
                Whose::Own => other == sender,
                Whose::NotLess => senders.is_none_or(|all| all.may_displace(sender, other, max)),
            }
        };
        let tables = &ledger.tables;
        inbox::oldest(tables, &self.snapshot, user, head, lack.sum, may_go)
    }

    /// Begins to count the senders of a remembered user's inbox if it is crowded. False: the batch must be committed first.
    fn watch_senders(&self, ledger: &mut Ledger, user: UserKey) -> Result<bool, FailureKind> {
        let Some(inbox) = ledger.tails.recall(user) else {
            return Ok(true);
        };
        let live = inbox::live(&inbox.account, &inbox.tail);
        if inbox.senders.is_some() || !ledger.room.quotas.is_crowded(live) {
            return Ok(true);
        }
        if inbox.appended_in == self.number {
            return Ok(false);
        }
        let all = up_to(user, inbox, inbox.tail.sequence.saturating_add(1));
        // Where nothing can be read, nobody holds any as yet.
        let parts = all.senders(&ledger.tables, &self.snapshot, &ledger.names);
        let parts = parts.unwrap_or_default();
        inbox.senders = Some(Box::new(Senders::of(&parts)));
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
        let is_counted = remembered.senders.is_some() || ledger.senders.is_some();
        let sample = if is_counted {
            let stretch = Stretch {
                until: before,
                ..up_to(user, remembered, head)
            };
            let parts = stretch.senders(&ledger.tables, &self.snapshot, &ledger.names);
            // A burn is no less possible where nothing can be read: then it is everyone's in equal parts.
            parts.unwrap_or_default()
        } else {
            Vec::new()
        };
        remembered.account = Account {
            head,
            burned_messages: account.burned_messages + gone.messages,
            burned_bytes: account.burned_bytes + gone.bytes,
            last_seen_ms: account.last_seen_ms,
        };
        remembered.front_expires_at_ms = 0;
        let left = inbox::live(&remembered.account, &tail);
        if !ledger.room.quotas.is_crowded(left) {
            remembered.senders = None;
        } else if let Some(senders) = &mut remembered.senders {
            senders.forgo(gone, left, &sample);
        }
        ledger.forgo(gone, &sample);
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

/// What stands in a remembered user's inbox before this head.
fn up_to(user: UserKey, inbox: &Inbox, head: u64) -> Stretch {
    let (account, tail) = (&inbox.account, &inbox.tail);
    Stretch {
        user,
        from: account.head,
        to: head,
        before: Sum {
            messages: account.burned_messages,
            bytes: account.burned_bytes,
        },
        until: Sum {
            messages: tail.ordinal,
            bytes: tail.cumulative_bytes,
        },
    }
}

/// What is missing for a record in a remembered user's inbox; `None` if it fits.
fn lack(ledger: &mut Ledger, user: UserKey, incoming: Incoming) -> Option<Lack> {
    let inbox = ledger.tails.recall(user)?;
    let holding = Holding {
        room: &ledger.room,
        of_store: ledger.senders.as_ref(),
        live: inbox::live(&inbox.account, &inbox.tail),
        of_inbox: inbox.senders.as_deref(),
    };
    holding.lack(incoming)
}

/// Who holds what, as far as an append to an inbox has to know.
struct Holding<'a> {
    room: &'a Room,
    of_store: Option<&'a Largest>,
    live: Sum,
    of_inbox: Option<&'a Senders>,
}

impl Holding<'_> {
    /// Holds the record against the limits first, then against its sender's shares.
    fn lack(&self, incoming: Incoming) -> Option<Lack> {
        let Incoming { sender, record_len } = incoming;
        self.limits_lack(record_len).or_else(|| {
            let own = |(reason, sum)| Lack {
                reason,
                sum,
                from: Whose::Own,
            };
            self.share_lack(sender, record_len).map(own)
        })
    }

    fn limits_lack(&self, record_len: u64) -> Option<Lack> {
        let inbox = self.room.quotas.lack(self.live, record_len);
        let store = self.room.lack(record_len);
        let reason = if inbox != Sum::default() {
            FailureKind::InboxFull
        } else if store > 0 {
            FailureKind::StoreFull
        } else {
            return None;
        };
        Some(Lack {
            reason,
            sum: Sum {
                messages: inbox.messages,
                bytes: inbox.bytes.max(store),
            },
            from: Whose::NotLess,
        })
    }

    fn share_lack(&self, sender: Sender, record_len: u64) -> Option<(FailureKind, Sum)> {
        let quotas = &self.room.quotas;
        // Where the oldest give way, nobody is refused before the inbox is full.
        if quotas.overflow == Overflow::Refuse
            && let Some(senders) = self.of_inbox
        {
            let free = quotas.free(self.live);
            let lack = senders.lack(quotas.inbox_share(), sender, record_len, free);
            if lack != Sum::default() {
                return Some((FailureKind::InboxShare, lack));
            }
        }
        let held = self.of_store.map_or(0, |all| all.of(sender));
        let bytes = self.room.share_lack(held, record_len);
        let messages = 0;
        (bytes > 0).then_some((FailureKind::StoreShare, Sum { messages, bytes }))
    }
}
