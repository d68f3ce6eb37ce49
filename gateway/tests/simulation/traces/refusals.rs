//! What cannot be stored is not acknowledged: full inboxes and times to live that
//! end while a message is in memory.

use iris_protocol::RefusalReason;
use iris_storage::{FailureKind, StoredMessage};

use super::*;

fn framed_send_within(sequence: u64, target: &str, ttl_seconds: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let target = target.as_bytes();
    framed::encode::send(&mut out, sequence, ttl_seconds, target, b"a message");
    out
}

impl Trace {
    fn is_full(&mut self, token: u64) {
        let error = FailureKind::InboxFull;
        self.shard.stored(Reply::Failed { token, error });
        self.effects();
    }

    fn refused(&self, reason: RefusalReason) -> u64 {
        self.shard.metrics.refused[reason.index()]
    }

    fn take_page(&mut self) -> u64 {
        let is_page = |request: &Request| matches!(request, Request::Page { .. });
        let at = self.store.iter().position(is_page).expect("a page");
        self.store.remove(at).token().expect("a page has a token")
    }

    fn page_ends(&mut self, token: u64, next: u64) {
        self.page_ends_with(token, Vec::new(), next);
    }

    fn page_ends_with(&mut self, token: u64, messages: Vec<StoredMessage>, next: u64) {
        self.shard.stored(Reply::Page {
            token,
            messages,
            next,
            end: true,
            lost: 0,
        });
        self.effects();
    }

    fn appends(&self) -> usize {
        let is_append = |request: &&Request| matches!(request, Request::Append { .. });
        self.store.iter().filter(is_append).count()
    }
}

#[test]
fn a_full_inbox_is_told_to_the_sender() {
    let mut trace = Trace::new(Limits::default());
    let sender = trace.framed("bert");
    trace.received(sender, &framed_send(1, "anna"));
    let token = trace.take_append();
    trace.is_full(token);
    assert_eq!(trace.refused(RefusalReason::InboxFull), 1);
    assert_eq!(trace.shard.metrics.stored, 0);
}

#[test]
fn a_spill_that_finds_the_inbox_full_is_refused_once_its_session_ends_without_it() {
    let (mut trace, reader, _) = Trace::with_unacked();
    trace.wait(2_500);
    let token = trace.take_append();
    trace.is_full(token);
    assert_eq!(
        trace.refused(RefusalReason::InboxFull),
        0,
        "its reader may yet acknowledge it"
    );
    trace.store_replies();
    trace.shard.ended(reader, CloseReason::PeerClosed, None);
    trace.effects();
    assert_eq!(trace.appends(), 0, "newer ones may be in the inbox by now");
    assert_eq!(trace.refused(RefusalReason::InboxFull), 1);
}

#[test]
fn a_spill_that_finds_the_inbox_full_is_delivered_if_its_reader_acknowledges_it() {
    let (mut trace, reader, _) = Trace::with_unacked();
    trace.wait(2_500);
    let token = trace.take_append();
    trace.is_full(token);
    trace.received(reader, &framed_ack(1));
    trace.shard.ended(reader, CloseReason::PeerClosed, None);
    trace.effects();
    assert_eq!(trace.shard.metrics.delivered, 1);
    assert_eq!(trace.refused(RefusalReason::InboxFull), 0);
}

#[test]
fn a_message_that_expires_in_a_session_does_not_return_to_the_inbox() {
    for waited_ms in [1_500, 2_500] {
        // The longer wait is one in which it would have been spilled.
        let mut trace = Trace::new(Limits::default());
        let reader = trace.framed("anna");
        let sender = trace.framed("bert");
        trace.received(sender, &framed_send_within(1, "anna", 1));
        assert!(!trace.take_sent(reader).is_empty());
        trace.wait(waited_ms);
        assert_eq!(trace.refused(RefusalReason::Expired), 0);
        trace.shard.ended(reader, CloseReason::PeerClosed, None);
        trace.effects();
        assert_eq!(trace.appends(), 0, "after {waited_ms} ms");
        assert_eq!(trace.refused(RefusalReason::Expired), 1);
    }
}

/// Only one append, whose token this is, stands between anna and the end of her drain: what bert sends is held.
fn near_the_end(limits: Limits, last_page: Vec<StoredMessage>) -> (Trace, Key, Key, u64) {
    let (mut trace, reader, sender) = Trace::with_unacked_within(limits);
    trace.wait(2_500);
    let token = trace.take_append();
    trace.received(sender, &framed_send(2, "anna"));
    let second = trace.take_append();
    trace.shard.stored(Reply::Appended { token, sequence: 5 });
    trace.effects();
    let page = trace.take_page();
    trace.page_ends_with(page, last_page, 6);
    (trace, reader, sender, second)
}

#[test]
fn a_message_that_expires_behind_the_end_of_a_drain_is_not_delivered() {
    let (mut trace, reader, sender, second) = near_the_end(Limits::default(), Vec::new());
    trace.received(sender, &framed_send_within(3, "anna", 1));
    trace.received(sender, &framed_send_within(4, "anna", 60));
    assert_eq!(trace.appends(), 0);
    trace.wait(1_500);
    trace.take_sent(reader);
    trace.shard.stored(Reply::Appended {
        token: second,
        sequence: 6,
    });
    trace.effects();
    let page = trace.take_page();
    trace.page_ends(page, 7);
    assert_eq!(trace.refused(RefusalReason::Expired), 1);
    let sent = trace.take_sent(reader);
    let copies = sent.windows(9).filter(|part| part == b"a message").count();
    assert_eq!(copies, 1, "the one that had not expired");
}

/// The same, with a message of bert's that is held.
fn held_at_the_end(limits: Limits, last_page: Vec<StoredMessage>) -> (Trace, Key, u64) {
    let (mut trace, _, sender, second) = near_the_end(limits, last_page);
    trace.received(sender, &framed_send(3, "anna"));
    assert_eq!(trace.appends(), 0, "it is held");
    (trace, sender, second)
}

#[test]
fn no_sender_waits_until_a_reader_has_room_for_the_end_of_a_drain() {
    let limits = Limits {
        outbox_bytes_max: 8 << 10,
        ..Limits::default()
    };
    // She takes none of it.
    let page = vec![stored_message(5, &[b'x'; 6 << 10])];
    let (mut trace, sender, token) = held_at_the_end(limits, page);
    trace.shard.stored(Reply::Appended { token, sequence: 6 });
    trace.effects();
    assert_eq!(trace.appends(), 1, "what was held");
    trace.take_append();
    trace.received(sender, &framed_send(4, "anna"));
    assert_eq!(trace.appends(), 1, "what is newer goes the same way");
}

#[test]
fn no_sender_waits_until_a_page_can_be_read() {
    let (mut trace, _, token) = held_at_the_end(Limits::default(), Vec::new());
    trace.shard.stored(Reply::Appended { token, sequence: 6 });
    trace.effects();
    let page = trace.take_page();
    trace.fail(page);
    assert_eq!(trace.appends(), 1, "what was held");
}
