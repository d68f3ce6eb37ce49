//! The messages of an outbox that its reader has not acknowledged: how they are noted,
//! found, marked as stored and done with.
//!
//! Owner: the outbox; see its invariants.

use super::super::limits::{PROBE_MESSAGES, PROBE_STEP_BYTES};
use super::super::slots::Key;
use super::super::unacked::{Entry, Ms48, NO_REPLY, Passport, ReplyTo, Stored, Unacked};
use super::Outbox;

/// Bytes of names that are done with before the others move to the front.
const COMPACT_AFTER: usize = 256;

impl Outbox {
    /// Notes that the bytes pushed last were a message, whose payload is their tail.
    #[inline(always)]
    pub fn track(
        &mut self,
        sender: &str,
        payload_len: u32,
        stored: Stored,
        passport: Passport,
        now_ms: u64,
    ) {
        self.senders.push(sender.len() as u8);
        self.senders.extend_from_slice(sender.as_bytes());
        self.awaited += u32::from(passport.reply.is_some());
        let weight = 1 + (payload_len / PROBE_STEP_BYTES).min(PROBE_MESSAGES);
        self.unasked = self.unasked.saturating_add(weight as u16);
        if stored != Stored::No && self.unstored as usize == self.unacked.len() {
            self.unstored += 1;
        }
        let reply = passport.reply.unwrap_or(ReplyTo {
            core: NO_REPLY,
            user: Key::NONE,
        });
        self.unacked.push(Entry {
            end: self.end,
            origin: passport.origin,
            sent_at_ms: Ms48::of(passport.sent_at_ms),
            expires_at_ms: passport.expires_at_ms,
            stored: stored.pack(),
            reply_user: reply.user,
            payload_len,
            pushed_at_ms: now_ms as u32,
            reply_core: reply.core,
        });
    }

    /// Takes the oldest message off the queue: its reader has it.
    pub fn pop_acked(&mut self) -> Option<Unacked> {
        let entry = *self.oldest()?;
        self.awaited -= u32::from(entry.is_awaited());
        self.drop_oldest(1);
        Some(entry.view())
    }

    /// Takes the messages off the queue that end at `position` or before, if of all
    /// messages here none is in the store and nobody waits for an answer. Says how
    /// many. They are not looked at, since by now most are in no near cache.
    pub fn drop_plain_until(&mut self, position: u64) -> u64 {
        if self.awaited > 0 || self.unstored > 0 {
            return 0;
        }
        let count = self.unacked.count_until(|entry| entry.end <= position);
        self.drop_oldest(count);
        count as u64
    }

    fn drop_oldest(&mut self, count: usize) {
        self.unacked.drop_front(count);
        if self.unacked.is_empty() {
            self.clear_unacked();
            return;
        }
        self.unstored = self.unstored.saturating_sub(count as u32);
        let mut gone = self.senders_gone as usize;
        for _ in 0..count {
            gone += 1 + usize::from(self.senders[gone]);
        }
        if gone >= COMPACT_AFTER && gone * 2 >= self.senders.len() {
            self.senders.drain(..gone);
            gone = 0;
        }
        self.senders_gone = gone as u32;
    }

    pub(super) fn clear_unacked(&mut self) {
        self.unacked.clear();
        self.senders.clear();
        self.senders_gone = 0;
        self.unstored = 0;
        self.awaited = 0;
    }

    /// Takes the oldest message off the queue if it was sent and cannot return from here: what it
    /// still stands for is a step. It is acknowledged by this delivery number, or else by the
    /// stream position behind it; in one session all are by the same.
    pub fn fold_oldest(&mut self, delivery: Option<u64>) -> Option<Unacked> {
        let oldest = self.oldest()?;
        let head = match oldest.view().stored {
            Stored::At(sequence) => sequence + 1,
            Stored::Failed(_) => 0,
            Stored::No | Stored::Appending(_) => return None,
        };
        if oldest.end > self.sent {
            return None;
        }
        self.steps.push(delivery.unwrap_or(oldest.end), head);
        self.pop_acked()
    }

    /// The reader has all up to this delivery, or stream position: how many of those that were
    /// folded this settles, and how far the inbox can be burned for them.
    pub fn fold_acked(&mut self, upto: u64) -> (u64, u64) {
        self.steps.acknowledged(upto)
    }

    /// Whether it keeps as much for its way back into the inbox as is worth a question of its own.
    pub fn holds_much(&self) -> bool {
        self.retained_bytes() >= u64::from(PROBE_MESSAGES * PROBE_STEP_BYTES)
    }

    /// Whether any message is not acknowledged, be it folded.
    pub fn has_unacked(&self) -> bool {
        self.unacked_len() > 0 || !self.steps.is_empty()
    }

    /// How many messages are not acknowledged, without those that were folded.
    pub fn unacked_len(&self) -> usize {
        self.unacked.len()
    }

    /// How many of them are nowhere else.
    pub fn unstored_len(&self) -> usize {
        self.unacked.len() - self.unstored as usize
    }

    pub(super) fn oldest(&self) -> Option<&Entry> {
        self.unacked.get(0)
    }

    /// Stream position behind the oldest message that is not acknowledged.
    pub fn oldest_end(&self) -> Option<u64> {
        self.oldest().map(|entry| entry.end)
    }

    /// How long the oldest message that is nowhere else has waited for its
    /// acknowledgement.
    pub fn unstored_age_ms(&self, now_ms: u64) -> Option<u64> {
        let entry = self.unacked.get(self.unstored as usize)?;
        Some(u64::from((now_ms as u32).wrapping_sub(entry.pushed_at_ms)))
    }

    /// Changes where the message `from_back` places before the newest stands in
    /// the store; `false` if it is not here any more. What is stored needs no
    /// further answer.
    pub fn set_stored(&mut self, from_back: u64, stored: Stored) -> bool {
        let newest = self.unacked.len().checked_sub(1);
        let at = newest.and_then(|newest| newest.checked_sub(from_back as usize));
        let Some(entry) = at.and_then(|at| self.unacked.get_mut(at)) else {
            return false;
        };
        entry.stored = stored.pack();
        if matches!(stored, Stored::At(_)) && entry.is_awaited() {
            entry.reply_core = NO_REPLY;
            self.awaited -= 1;
        }
        true
    }

    /// Calls `visit` with each unacknowledged message, oldest first, and with the
    /// sender and payload of those that are nowhere else; it answers where the
    /// message stands in the store now.
    pub fn visit_unacked(
        &mut self,
        mut visit: impl FnMut(&Unacked, Option<(&str, &[u8])>) -> Stored,
    ) {
        let mut senders = &self.senders[self.senders_gone as usize..];
        let mut chunks = self.chunks.iter().peekable();
        for at in 0..self.unacked.len() {
            let Some(entry) = self.unacked.get_mut(at) else {
                break;
            };
            let (len, rest) = senders.split_first().expect("every message has a sender");
            let (sender, rest) = rest.split_at(usize::from(*len));
            senders = rest;
            if at < self.unstored as usize {
                entry.stored = visit(&entry.view(), None).pack();
                continue;
            }
            while chunks.peek().is_some_and(|chunk| chunk.end() < entry.end) {
                chunks.next();
            }
            let chunk = chunks
                .peek()
                .expect("chunks are kept while a message is nowhere else");
            let end = (entry.end - chunk.start) as usize;
            let payload = &chunk.bytes[end - entry.payload_len as usize..end];
            let sender =
                std::str::from_utf8(sender).expect("names were valid when they were pushed");
            entry.stored = visit(&entry.view(), Some((sender, payload))).pack();
        }
        while let Some(entry) = self.unacked.get(self.unstored as usize)
            && entry.view().stored != Stored::No
        {
            self.unstored += 1;
        }
    }

    /// Who waits for the answers to the oldest `count` messages.
    pub(in super::super) fn awaiting(&self, count: usize) -> impl Iterator<Item = ReplyTo> {
        (0..count)
            .map_while(|at| self.unacked.get(at))
            .filter_map(Entry::reply)
    }

    /// Messages in it whose senders wait for an answer.
    pub fn awaited(&self) -> u32 {
        self.awaited
    }
}
