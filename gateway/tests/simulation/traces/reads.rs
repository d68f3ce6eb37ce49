//! What is read of the store for a connection, and what is not read any more.

use iris_gateway::shard::{Limits, Rate};
use iris_storage::{FailureKind, Reply, Request};

use super::*;

impl Trace {
    fn pages(&self) -> Vec<u64> {
        let token_of = |request: &Request| match request {
            Request::Page { token, .. } => Some(*token),
            _ => None,
        };
        self.store.iter().filter_map(token_of).collect()
    }

    /// The page that is asked for, and no other.
    fn take_only_page(&mut self) -> u64 {
        let pages = self.pages();
        let [page] = pages[..] else {
            panic!("{} pages", pages.len());
        };
        self.store.retain(|request| request.token() != Some(page));
        page
    }

    /// What the shard does not want any more.
    fn take_cancelled(&mut self) -> Vec<u64> {
        let mut cancelled = Vec::new();
        self.store.retain(|request| match request {
            Request::Cancel { token, .. } => {
                cancelled.push(*token);
                false
            }
            _ => true,
        });
        cancelled
    }

    fn take_depth(&mut self) -> u64 {
        let is_depth = |request: &Request| matches!(request, Request::Account { .. });
        let at = self.store.iter().position(is_depth).expect("a depth");
        let request = self.store.remove(at);
        request.token().expect("an account has a token")
    }

    fn page_is_empty(&mut self, token: u64) {
        self.shard.stored(Reply::Page {
            token,
            messages: Vec::new(),
            next: 1,
            end: true,
            lost: 0,
        });
        self.effects();
    }

    fn is_cancelled(&mut self, token: u64) {
        let error = FailureKind::Cancelled;
        self.shard.stored(Reply::Failed { token, error });
        self.effects();
    }
}

#[test]
fn an_empty_inbox_costs_no_page() {
    let mut trace = Trace::new(Limits::default());
    let sender = trace.framed("bert");
    let reader = trace.shard.accepted();
    trace.received(reader, &framed_login("anna"));
    let depth = trace.take_depth();
    trace.store_says_depth(depth, 0);
    assert!(trace.store.is_empty(), "{:?}", trace.store);
    trace.take_sent(reader);
    trace.received(sender, &framed_send(1, "anna"));
    assert!(trace.store.is_empty(), "it goes straight to her");
    assert!(!trace.take_sent(reader).is_empty());
}

#[test]
fn what_is_stored_while_the_depth_is_asked_for_is_read() {
    for ends_before in [true, false] {
        let mut trace = Trace::new(Limits::default());
        let sender = trace.framed("bert");
        let reader = trace.shard.accepted();
        trace.received(reader, &framed_login("anna"));
        let depth = trace.take_depth();
        trace.received(sender, &framed_send(1, "anna"));
        let token = trace.take_append();
        let appended = Reply::Appended { token, sequence: 7 };
        if ends_before {
            trace.shard.stored(appended);
            trace.store_says_depth(depth, 0);
        } else {
            trace.store_says_depth(depth, 0);
            trace.shard.stored(appended);
        }
        trace.effects();
        trace.take_only_page();
    }
}

#[test]
fn a_connection_has_one_page_under_way_whoever_it_has_been() {
    for a_reader_is_at_it in [true, false] {
        let mut trace = Trace::new(Limits::default());
        let id = trace.shard.accepted();
        trace.received(id, &classic_login("anna"));
        let of_anna = trace.take_only_page();
        for name in ["bert", "carl", "dora"] {
            trace.received(id, &classic_login(name));
            trace.shard.probed(id, Some(0));
            trace.effects();
        }
        assert_eq!(trace.take_cancelled(), [of_anna], "once");
        assert!(trace.pages().is_empty());
        if a_reader_is_at_it {
            trace.page_is_empty(of_anna);
        } else {
            trace.is_cancelled(of_anna);
        }
        let unused = u64::from(a_reader_is_at_it);
        assert_eq!(trace.shard.metrics.reads_unused, unused);
        let of_dora = trace.take_only_page();
        trace.page_is_empty(of_dora);
        assert!(trace.pages().is_empty());
        assert!(trace.take_cancelled().is_empty());
    }
}

#[test]
fn a_user_has_one_page_under_way_whatever_connections_it_had() {
    let mut trace = Trace::new(Limits::default());
    let older = trace.shard.accepted();
    trace.received(older, &classic_login("anna"));
    let first = trace.take_only_page();
    let newer = trace.shard.accepted();
    trace.received(newer, &classic_login("anna"));
    trace.shard.probed(older, Some(0));
    trace.effects();
    assert_eq!(trace.take_cancelled(), [first]);
    assert!(trace.pages().is_empty());
    trace.is_cancelled(first);
    trace.take_only_page();
}

#[test]
fn what_a_closing_connection_asked_is_cancelled_and_it_asks_no_more() {
    let mut trace = Trace::new(Limits::default());
    let classic = trace.shard.accepted();
    trace.received(classic, &classic_login("anna"));
    let page = trace.take_only_page();
    trace.shard.peer_ended(classic, CloseReason::PeerClosed);
    trace.effects();
    assert_eq!(trace.take_cancelled(), [page]);
    let framed = trace.shard.accepted();
    trace.received(framed, &framed_login("bert"));
    let depth = trace.take_depth();
    trace.shard.peer_ended(framed, CloseReason::PeerReset);
    trace.shard.ended(framed, CloseReason::PeerReset, None);
    trace.effects();
    assert_eq!(trace.take_cancelled(), [depth], "once");
    for token in [page, depth] {
        trace.is_cancelled(token);
    }
    trace.shard.ended(classic, CloseReason::PeerClosed, None);
    trace.effects();
    assert!(trace.pages().is_empty() && trace.take_cancelled().is_empty());
}

#[test]
fn who_logs_in_again_too_often_is_read_later_and_to_the_end() {
    let limits = Limits {
        relogins: Rate {
            burst: 20,
            per_second: 10,
        },
        ..Limits::default()
    };
    let mut trace = Trace::new(limits);
    let id = trace.classic("user-0");
    let mut logins = Vec::new();
    for n in 1..=50 {
        logins.extend(classic_login(&format!("user-{n}")));
    }
    trace.received(id, &logins);
    let mut welcomed = Vec::new();
    for ms in (0..4_000).step_by(100) {
        if ms == 900 {
            assert!((28..=32).contains(&welcomed.len()), "{welcomed:?}");
        }
        // As many as there are to be had at this moment.
        for _ in 0..30 {
            trace.shard.begin_turn();
            trace.shard.read_waiting();
            trace.shard.probed(id, Some(0));
            trace.effects();
            trace.store_replies();
            let sent = trace.take_sent(id);
            welcomed.extend(vec![ms; sent.len() / classic::LOGIN_OK.len()]);
        }
        trace.wait(100);
    }
    assert_eq!(welcomed.len(), 50, "{welcomed:?}");
    assert!(trace.shard.metrics.relogins_delayed > 0);
    assert_eq!(trace.shard.user_name(id).as_deref(), Some("user-50"));
}

#[test]
fn one_sender_has_its_share_of_the_way_to_the_store_then_waits_and_others_are_taken() {
    let limits = Limits {
        store_pending_bytes_max: 1 << 20,
        unanswered_sends_max: 1_000_000,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits.clone());
    let (greedy, modest) = (trace.framed("anna"), trace.framed("bert"));
    for sequence in 1..=500 {
        trace.received(greedy, &framed_send(sequence, "carl"));
        // The store says nothing.
        trace.wait(10);
    }
    assert_eq!(trace.shard.metrics.senders_held_up, 1);
    trace.shard.measure();
    let pending = trace.shard.metrics.store_pending_bytes;
    let share = limits.store_pending_bytes_max / 32;
    assert!((share..share + 1_000).contains(&pending), "{pending}");
    trace.received(modest, &framed_send(1, "carl"));
    trace.shard.measure();
    assert!(trace.shard.metrics.store_pending_bytes > pending, "taken");
    assert_eq!(trace.shard.metrics.senders_held_up, 1);
    // The store goes on, and so does the sender, to the end.
    for _ in 0..500 {
        trace.store_replies();
        trace.shard.begin_turn();
        trace.shard.read_waiting();
        trace.effects();
    }
    assert_eq!(trace.shard.metrics.stored, 501);
    assert!(trace.shard.metrics.refused.iter().all(|count| *count == 0));
}

/// A framed sender to users who are away, whose messages have no room at the store, and one more delivery for it.
fn held_up() -> (Trace, Key, Key) {
    let limits = Limits {
        store_pending_bytes_max: 64 << 10,
        unanswered_sends_max: 1_000_000,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits);
    let (sender, friend) = (trace.framed("anna"), trace.framed("bert"));
    for sequence in 1..=20 {
        trace.received(sender, &framed_send(sequence, "carl"));
    }
    assert_eq!(trace.shard.metrics.senders_held_up, 1);
    trace.received(friend, &framed_send(1, "anna"));
    assert!(!trace.take_sent(sender).is_empty(), "it goes on receiving");
    (trace, sender, friend)
}

#[test]
fn who_is_held_up_is_heard_where_it_says_something_else_than_a_send() {
    let (mut trace, sender, friend) = held_up();
    let mut said = framed_send(21, "carl");
    said.extend(framed_ack(1));
    framed::encode::ping(&mut said, 7);
    said.extend(framed_send(22, "carl"));
    // Cut anywhere.
    let (begin, end) = said.split_at(said.len() - 60);
    trace.received(sender, begin);
    trace.received(sender, end);
    assert_eq!(trace.shard.metrics.delivered, 1, "its ack");
    let mut pong = Vec::new();
    framed::encode::pong(&mut pong, 7);
    assert_eq!(trace.take_sent(sender), pong);
    assert!(!trace.take_sent(friend).is_empty(), "the answer");
    let before = trace.shard.metrics.stored;
    for _ in 0..40 {
        trace.store_replies();
        trace.shard.begin_turn();
        trace.shard.read_waiting();
        trace.effects();
    }
    assert_eq!(trace.shard.metrics.stored - before, 22);
    let sent = trace.take_sent(sender);
    assert!(sent.windows(pong.len()).all(|part| part != pong), "once");
}

#[test]
fn who_is_held_up_is_received_from_up_to_a_bound() {
    let (mut trace, sender, _) = held_up();
    let mut sequence = 100;
    while !trace.asked.contains(&Effect::Pause(sender)) {
        sequence += 1;
        assert!(sequence < 10_000, "nobody stops it");
        trace.received(sender, &framed_send(sequence, "carl"));
    }
    trace.shard.measure();
    let held = trace.shard.metrics.partial_bytes;
    assert!((100 << 10..=200 << 10).contains(&held), "{held}");
}

#[test]
fn a_user_that_is_held_up_still_is_after_it_has_come_again() {
    let (mut trace, sender, _) = held_up();
    let received = trace.shard.metrics.received_framed;
    trace.shard.ended(sender, CloseReason::PeerReset, None);
    trace.effects();
    let again = trace.shard.accepted();
    trace.received(again, &framed_login("anna"));
    trace.received(again, &framed_send(500, "carl"));
    assert_eq!(trace.shard.metrics.received_framed, received);
    for _ in 0..5 {
        trace.store_replies();
    }
    assert_eq!(trace.shard.metrics.received_framed, received + 1);
}
