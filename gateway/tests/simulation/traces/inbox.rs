//! The way into an inbox and out of it: spills, returns, drains, burns, and a store that fails.

use iris_gateway::shard::Limits;
use iris_protocol::CloseReason;
use iris_storage::{Reply, Request};

use super::*;

#[test]
fn what_is_acknowledged_while_it_is_being_stored_is_burned_once_it_is() {
    let (mut trace, reader, _) = Trace::with_unacked();
    trace.wait(2_500);
    let token = trace.take_append();
    trace.received(reader, &framed_ack(1));
    assert!(
        trace.store.is_empty(),
        "where it will stand is not known yet"
    );
    trace.shard.stored(Reply::Appended { token, sequence: 7 });
    trace.effects();
    let from = trace.store.iter().find_map(|request| match request {
        Request::Page { from, .. } => Some(*from),
        _ => None,
    });
    assert_eq!(from, Some(8), "she has it: it is not read back");
    assert_eq!(trace.take_burn().1, 8);
}

#[test]
fn a_depth_is_asked_for_when_nothing_is_on_its_way_to_the_inbox() {
    let (mut trace, reader, _) = Trace::with_unacked();
    // The older session's message returns to the inbox.
    let newer = trace.shard.accepted();
    trace.received(newer, &framed_login("anna"));
    assert!(trace.is_closed_for(reader, CloseReason::Replaced));
    trace
        .store
        .retain(|request| !matches!(request, Request::Seen { .. }));
    let token = trace.take_append();
    trace.shard.stored(Reply::Appended { token, sequence: 7 });
    trace.effects();
    let Some(Request::Account { token, .. }) = trace.store.pop() else {
        panic!("the depth, now that the message counts");
    };
    trace.shard.stored(Reply::Account {
        token,
        messages: 1,
        bytes: 0,
        last_seen_ms: 0,
    });
    trace.effects();
    // She takes it, and comes back while it is being burned.
    let Some(Request::Page { token, .. }) = trace.store.pop() else {
        panic!("a page");
    };
    trace.shard.stored(Reply::Page {
        token,
        messages: vec![stored_message(7, b"again")],
        next: 8,
        end: true,
        lost: 0,
    });
    trace.take_sent(newer);
    trace.received(newer, &framed_ack(1));
    let (token, head) = trace.take_burn();
    assert_eq!(head, 8);
    let newest = trace.shard.accepted();
    trace.received(newest, &framed_login("anna"));
    let asks_depth = |request: &Request| matches!(request, Request::Account { .. });
    assert!(
        !trace.store.iter().any(asks_depth),
        "it would count too many"
    );
    trace.shard.stored(Reply::Burned { token });
    trace.effects();
    assert!(trace.store.iter().any(asks_depth));
}

#[test]
fn a_reader_that_never_acknowledges_costs_the_store_nothing() {
    let mut trace = Trace::new(Limits::default());
    let reader = trace.framed("anna");
    let sender = trace.framed("bert");
    trace.received(sender, &framed_send(1, "anna"));
    trace.take_sent(reader);
    trace.wait(2_500);
    // It is stored, and she is up to date.
    trace.store_replies();
    trace.wait(60_000);
    assert!(trace.store.is_empty(), "{:?}", trace.store);
}

impl Trace {
    /// Replies with as much as is asked for of an inbox that ends with `last`; says where the next page begins.
    fn reply_with_page(&mut self, request: &Request, next: u64, last: u64) -> u64 {
        let Request::Page {
            token,
            messages_max,
            ..
        } = *request
        else {
            panic!("{request:?}");
        };
        let end = last.min(next + messages_max as u64 - 1);
        let page = (next..=end).map(|sequence| stored_message(sequence, b"hello"));
        self.shard.stored(Reply::Page {
            token,
            messages: page.collect(),
            next: end + 1,
            end: end == last,
            lost: 0,
        });
        end + 1
    }
}

#[test]
fn what_is_acknowledged_far_behind_is_burned_as_far_as_it_is_known() {
    const MESSAGES: u64 = 10_000;
    let limits = Limits {
        unacked_deliveries_max: 100,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits);
    let reader = trace.shard.accepted();
    trace.received(reader, &framed_login("anna"));
    let mut next = 1;
    while let Some(request) = trace.store.pop() {
        match request {
            Request::Account { token, .. } => trace.shard.stored(Reply::Account {
                token,
                messages: MESSAGES,
                bytes: 0,
                last_seen_ms: 0,
            }),
            page => next = trace.reply_with_page(&page, next, MESSAGES),
        }
        trace.take_sent(reader);
        trace.shard.measure();
        let held = trace.shard.metrics.outbox_bytes;
        assert!(held <= 64 << 10, "{held} bytes are held");
    }
    assert_eq!(next, MESSAGES + 1, "the drain waits for an acknowledgement");
    trace.received(reader, &framed_ack(MESSAGES / 2));
    let (token, head) = trace.take_burn();
    assert!((4_950..=5_001).contains(&head), "{head}");
    trace.shard.stored(Reply::Burned { token });
    trace.received(reader, &framed_ack(MESSAGES));
    assert_eq!(trace.take_burn().1, MESSAGES + 1);
    assert_eq!(trace.shard.metrics.delivered, MESSAGES);
}

#[test]
fn a_classic_reader_is_sent_its_inbox_however_late_its_tcp_acknowledges_and_what_that_has_is_burned()
 {
    const MESSAGES: u64 = 10_000;
    let limits = Limits {
        unacked_deliveries_max: 100,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits);
    let reader = trace.shard.accepted();
    trace.received(reader, &classic_login("anna"));
    trace.take_sent(reader);
    trace.peer_has_the_answer(reader);
    let (mut next, mut outstanding) = (1, 0);
    while let Some(page) = trace.store.pop() {
        next = trace.reply_with_page(&page, next, MESSAGES);
        outstanding += trace.take_sent(reader).len() as u32;
        trace.shard.probed(reader, Some(outstanding));
        trace.effects();
        trace.shard.measure();
        let held = trace.shard.metrics.outbox_bytes;
        assert!(held <= 64 << 10, "{held} bytes are held");
    }
    assert_eq!(next, MESSAGES + 1, "the drain waits for an acknowledgement");
    assert_eq!(u64::from(outstanding), MESSAGES * 5);
    assert_eq!(trace.shard.metrics.delivered, 0);
    trace.shard.probed(reader, Some(outstanding / 2 + 1));
    trace.effects();
    let (token, head) = trace.take_burn();
    assert!((4_950..=5_000).contains(&head), "{head}");
    trace.shard.stored(Reply::Burned { token });
    trace.shard.probed(reader, Some(0));
    trace.effects();
    assert_eq!(trace.take_burn().1, MESSAGES + 1);
    assert_eq!(trace.shard.metrics.delivered, MESSAGES);
}

#[test]
fn what_is_acknowledged_while_a_connection_closes_does_not_return() {
    let (mut trace, reader, _) = Trace::with_unacked();
    trace.shard.drain();
    trace.received(reader, &framed_ack(1));
    trace.shard.ended(reader, CloseReason::PeerClosed, None);
    trace.effects();
    assert_eq!(trace.shard.metrics.delivered, 1);
    assert_eq!(trace.shard.metrics.returned, 0);
}

#[test]
fn a_burn_that_fails_is_tried_once_more_and_holds_nothing_up() {
    let (mut trace, reader, sender) = Trace::with_unacked();
    trace.wait(2_500);
    let token = trace.take_append();
    trace.shard.stored(Reply::Appended { token, sequence: 7 });
    trace.received(reader, &framed_ack(1));
    let (token, head) = trace.take_burn();
    assert_eq!(head, 8);
    trace.fail(token);
    trace.shard.ended(reader, CloseReason::PeerClosed, None);
    trace.effects();
    let (token, head) = trace.take_burn();
    assert_eq!(head, 8);
    trace.fail(token);
    trace.shard.ended(sender, CloseReason::PeerClosed, None);
    trace.effects();
    trace.store_replies();
    trace.wait(200_000);
    assert_eq!(trace.shard.users_len(), 0);
}

/// A store that has healed is told what its reader has, though nothing more happens in the session.
#[test]
fn a_burn_that_fails_is_tried_again_while_its_reader_is_silent() {
    let (mut trace, reader, _) = Trace::with_unacked();
    trace.wait(2_500);
    let token = trace.take_append();
    trace.shard.stored(Reply::Appended { token, sequence: 7 });
    trace.received(reader, &framed_ack(1));
    let is_burn = |request: &Request| matches!(request, Request::Burn { .. });
    for _ in 0..5 {
        let (token, head) = trace.take_burn();
        assert_eq!(head, 8);
        trace.fail(token);
        assert!(!trace.store.iter().any(is_burn), "not at once");
        trace.wait(1_100);
        assert_eq!(trace.store.iter().filter(|it| is_burn(it)).count(), 1);
    }
    let (token, _) = trace.take_burn();
    trace.shard.stored(Reply::Burned { token });
    trace.effects();
    trace.wait(5_000);
    assert!(!trace.store.iter().any(is_burn));
}

#[test]
fn a_page_that_fails_is_asked_for_again() {
    let mut trace = Trace::new(Limits::default());
    let reader = trace.shard.accepted();
    trace.received(reader, &classic_login("anna"));
    for _ in 0..3 {
        let Some(Request::Page { token, .. }) = trace.store.pop() else {
            panic!("a page");
        };
        trace.fail(token);
        assert!(trace.store.is_empty(), "not at once");
        trace.wait(1_500);
    }
    assert_eq!(trace.store.len(), 1);
}

#[test]
fn a_login_waits_a_while_for_a_store_that_cannot_be_read() {
    let asked = |trace: &mut Trace| match trace.store.pop() {
        Some(Request::Account { token, .. }) => token,
        other => panic!("not the depth: {other:?}"),
    };
    for heals in [true, false] {
        let mut trace = Trace::new(Limits::default());
        let reader = trace.shard.accepted();
        trace.received(reader, &framed_login("anna"));
        for _ in 0..2 {
            let token = asked(&mut trace);
            trace.fail(token);
            assert!(trace.store.is_empty(), "not at once");
            assert!(trace.take_sent(reader).is_empty(), "it may heal");
            trace.wait(1_500);
        }
        let token = asked(&mut trace);
        if heals {
            trace.store_says_depth(token, 3);
        } else {
            trace.fail(token);
        }
        let welcome = trace.take_sent(reader);
        let expected = if heals { 3 } else { 0 };
        match framed::decode(&welcome, &framed::DecodeLimits::READER) {
            Ok(framed::Decoded::Frame(framed::Frame::Welcome(welcome), _)) => {
                assert_eq!(welcome.inbox_messages, expected);
            }
            other => panic!("no welcome: {other:?}"),
        }
        assert!(matches!(trace.store.pop(), Some(Request::Page { .. })));
    }
}

#[test]
fn a_refused_send_may_be_tried_again() {
    let mut trace = Trace::new(Limits::default());
    let sender = trace.framed("bert");
    trace.received(sender, &framed_send(1, "anna"));
    let token = trace.take_append();
    trace.fail(token);
    trace.received(sender, &framed_send(1, "anna"));
    trace.take_append();
    assert_eq!(trace.shard.metrics.duplicates_dropped, 0);
}

#[test]
fn a_drain_reads_no_further_than_its_session_has_room() {
    let limits = Limits {
        outbox_bytes_max: 20_000,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits.clone());
    let reader = trace.shard.accepted();
    trace.received(reader, &classic_login("anna"));
    let mut sequence = 0;
    while let Some(request) = trace.store.pop() {
        let Request::Page { token, .. } = request else {
            panic!("a page");
        };
        sequence += 1;
        assert!(sequence < 100, "it takes none of what it gets");
        let message = stored_message(sequence, &[b'.'; 1_000]);
        trace.shard.stored(Reply::Page {
            token,
            messages: vec![message],
            next: sequence + 1,
            end: false,
            lost: 0,
        });
        trace.effects();
    }
    assert!(sequence >= 10, "room for half an outbox");
    assert!(sequence <= 11, "{sequence} pages of one message");
}
