//! Bounds: what peers may make a shard hold or remember.

use iris_gateway::shard::budget::alone::{self, Plain};
use iris_gateway::shard::budget::{Budget, Budgets};
use iris_gateway::shard::{Effect, Key, Limits};
use iris_protocol::CloseReason;
use iris_protocol::framed;
use iris_storage::Request;

use super::*;

/// Readers that never read are sent more than there is memory for, in messages of some size.
fn never_reading_stays_in_budget(payload: &[u8], messages: u64) {
    let output = Plain::default();
    output.max.set(2 << 20);
    let budgets = Budgets {
        input: alone::budgets(1 << 30, 0).input,
        output: Budget::new(Box::new(output.clone())),
    };
    let mut trace = Trace::within(Limits::default(), budgets);
    let names: Vec<String> = (0..40).map(|n| format!("reader-{n}")).collect();
    let readers: Vec<Key> = names.iter().map(|name| trace.framed(name)).collect();
    let healthy = trace.framed("healthy");
    let sender = trace.classic("sender");
    for delivery in 1..=messages {
        for name in &names {
            trace.received(sender, &classic_send(name, payload));
            trace.store_replies();
        }
        let leased = output.leased.get();
        assert!(leased <= output.max.get(), "{leased} bytes of outboxes");
        trace.received(sender, &classic_send("healthy", payload));
        trace.store_replies();
        trace.take_sent(healthy);
        trace.received(healthy, &framed_ack(delivery));
    }
    assert!(trace.shard.metrics.output_spills >= 20);
    assert_eq!(
        trace.shard.metrics.delivered, messages,
        "who reads is served"
    );
    assert!(trace.shard.metrics.stored > 0);
    for reader in readers {
        assert_eq!(trace.shard.closing_reason(reader), None);
    }
}

#[test]
fn readers_that_never_read_stay_in_the_budget_of_outboxes() {
    never_reading_stays_in_budget(&[7; 1_000], 200);
}

#[test]
fn what_is_noted_of_small_messages_counts_as_well() {
    never_reading_stays_in_budget(b"small", 1_500);
}

#[test]
fn answers_to_those_who_take_none_stay_in_the_budget_of_outboxes() {
    let output = Plain::default();
    output.max.set(1 << 20);
    let budgets = Budgets {
        input: alone::budgets(1 << 30, 0).input,
        output: Budget::new(Box::new(output.clone())),
    };
    let mut trace = Trace::within(Limits::default(), budgets);
    let mut pings = Vec::new();
    (0..50).for_each(|nonce| framed::encode::ping(&mut pings, nonce));
    let ids: Vec<Key> = (0..20)
        .map(|n| trace.framed(&format!("user-{n}")))
        .collect();
    for _ in 0..500 {
        for id in &ids {
            trace.received(*id, &pings);
        }
        let leased = output.leased.get();
        assert!(leased <= output.max.get(), "{leased} bytes of outboxes");
    }
    assert_eq!(trace.shard.metrics.output_pauses, 20);
}

#[test]
fn answers_are_remembered_up_to_their_number_behind_one_that_waits() {
    let limits = Limits {
        remembered_answers_max: 8,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits);
    let sender = trace.framed("anna");
    trace.framed("bert");
    // Bert does not acknowledge this one; Carl is away.
    trace.received(sender, &framed_send(1, "bert"));
    for sequence in 2..=20 {
        trace.received(sender, &framed_send(sequence, "carl"));
        trace.store_replies();
    }
    // The newest 8 are, and at most a quarter more.
    for (sequence, duplicates) in [(1, 1), (13, 2), (20, 3), (10, 3), (2, 3)] {
        trace.received(sender, &framed_send(sequence, "carl"));
        trace.store_replies();
        assert_eq!(
            trace.shard.metrics.duplicates_dropped, duplicates,
            "send {sequence}"
        );
    }
}

#[test]
fn a_storm_of_short_sessions_is_remembered_up_to_its_number() {
    let limits = Limits {
        departed_max: 100,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits);
    let sends_and_leaves = |trace: &mut Trace, name: &str, sequence: u64| {
        let id = trace.framed(name);
        trace.received(id, &framed_send(sequence, "carl"));
        trace.store_replies();
        trace.shard.ended(id, CloseReason::PeerClosed, None);
        trace.effects();
        trace.store_replies();
    };
    sends_and_leaves(&mut trace, "anna", 1);
    // One who comes and goes all the time counts once.
    for sequence in 1..=500 {
        sends_and_leaves(&mut trace, "bert", sequence);
    }
    sends_and_leaves(&mut trace, "anna", 1);
    assert_eq!(trace.shard.metrics.duplicates_dropped, 1);
    for n in 0..1_000 {
        sends_and_leaves(&mut trace, &format!("user-{n}"), 1);
        assert!(trace.shard.users_len() <= 100);
    }
    sends_and_leaves(&mut trace, "user-950", 1);
    assert_eq!(trace.shard.metrics.duplicates_dropped, 2);
    sends_and_leaves(&mut trace, "anna", 1);
    assert_eq!(trace.shard.metrics.duplicates_dropped, 2);
    trace.wait(61_000);
    assert_eq!(trace.shard.users_len(), 0);
}

#[test]
fn questions_are_bounded_though_notices_come() {
    let limits = Limits {
        inquiries_max: 4,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits);
    let follower = trace.framed("anna");
    let mut out = Vec::new();
    framed::encode::follow(&mut out, b"bert");
    trace.received(follower, &out);
    trace.store_replies();
    trace.take_sent(follower);
    // The store says nothing from here on, and Bert comes and goes.
    let mut asked = 0;
    for n in 0..50 {
        let bert = trace.shard.accepted();
        trace.received(bert, &classic_login("bert"));
        let mut out = Vec::new();
        framed::encode::presence_ask(&mut out, format!("user-{n}").as_bytes());
        trace.received(follower, &out);
        trace.shard.ended(bert, CloseReason::PeerClosed, None);
        trace.effects();
        trace.take_sent(follower);
        asked = trace
            .store
            .iter()
            .filter(|request| matches!(request, Request::Account { .. }))
            .count();
    }
    assert_eq!(asked, 4);
}

#[test]
fn sends_to_absent_users_cost_no_more_memory_than_their_limit() {
    let limits = Limits {
        store_pending_bytes_max: 1 << 20,
        unanswered_sends_max: 1_000_000,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits.clone());
    let sender = trace.framed("anna");
    // The store does nothing.
    let others: Vec<Key> = (0..10)
        .map(|n| trace.framed(&format!("other-{n}")))
        .collect();
    for sequence in 1..=10_000 {
        let to = format!("user-{sequence}");
        trace.received(sender, &framed_send(sequence, &to));
        trace.received(others[sequence as usize % 10], &framed_send(sequence, &to));
        if sequence % 50 == 0 {
            trace.wait(100);
        }
    }
    // An entry, its name twice, its place in the directory, a request.
    let users = trace.shard.users_len() as u64;
    assert!(users > 100, "{users}");
    assert!(
        users * 512 < limits.store_pending_bytes_max,
        "{users} entries"
    );
    trace.store_replies();
    trace.shard.measure();
    assert_eq!(trace.shard.metrics.store_pending_bytes, 0);
}

#[test]
fn a_connection_that_is_not_read_holds_few_segments_however_small() {
    let mut trace = Trace::new(Limits::default());
    let id = trace.shard.accepted();
    // It waits for the store to say how deep its inbox is.
    trace.received(id, &framed_login("anna"));
    let mut skipped = vec![0, 0, 2, 0, 0xf0, 0, 0, 0];
    skipped.resize(8 + 512, 0);
    for byte in skipped {
        if trace.asked.contains(&Effect::Pause(id)) {
            break;
        }
        trace.received(id, &[byte]);
    }
    assert!(trace.asked.contains(&Effect::Pause(id)), "nobody stops it");
    trace.store_replies();
    // A segment counts for more than its byte, so it takes more than one turn.
    while trace.asked.last() != Some(&Effect::Resume(id)) {
        trace.shard.begin_turn();
        assert!(trace.shard.read_waiting(), "its end is never reached");
        trace.effects();
    }
}

/// Whether what is said arrives bit by bit, or at once and is cut by the receive buffers.
fn who_says_much_lets_others_go_first(at_once: bool) {
    let share = 2;
    let mut trace = Trace::new(Limits {
        share_steps: share as u8,
        ..Limits::default()
    });
    let reader = trace.classic("carl");
    let (loud, quiet) = (trace.classic("anna"), trace.classic("bert"));
    let numbered = |number: u8| classic_send("carl", &[number; 1_000]);
    let heard = |bytes: Vec<u8>| -> Vec<u8> { bytes.chunks(1_000).map(|chunk| chunk[0]).collect() };
    trace.shard.begin_turn();
    for number in 0..20 {
        if at_once && number < 19 {
            trace.shard.received_cut(loud, &numbered(number));
        } else {
            trace.shard.received(loud, &numbered(number));
        }
    }
    trace.shard.received(quiet, &numbered(100));
    trace.shard.peer_ended(loud, CloseReason::PeerClosed);
    trace.effects();
    let mut all = heard(trace.take_sent(reader));
    assert_eq!(all.pop(), Some(100));
    assert_eq!(all.len(), share);
    while all.len() < 20 {
        assert_eq!(trace.shard.closing_reason(loud), None, "{all:?}");
        trace.shard.begin_turn();
        assert!(trace.shard.read_waiting());
        trace.effects();
        let of_turn = heard(trace.take_sent(reader));
        // One piece more than the share, since a piece is read as a whole; what it took too much it goes without later.
        assert!(of_turn.len() <= share + 2, "{of_turn:?}");
        all.extend(of_turn);
    }
    assert_eq!(all, (0..20).collect::<Vec<u8>>());
    assert!(!trace.shard.has_waiting());
    assert!(trace.is_closed_for(loud, CloseReason::PeerClosed));
}

#[test]
fn who_says_much_bit_by_bit_lets_others_go_first_and_is_heard_to_the_end_in_order() {
    who_says_much_lets_others_go_first(false);
}

#[test]
fn who_says_much_at_once_lets_others_go_first_and_is_heard_to_the_end_in_order() {
    who_says_much_lets_others_go_first(true);
}

#[test]
fn what_is_longer_than_many_shares_comes_to_its_end() {
    let mut trace = Trace::new(Limits {
        share_steps: 2,
        ..Limits::default()
    });
    let reader = trace.classic("carl");
    let loud = trace.classic("anna");
    trace.shard.begin_turn();
    // These use up its share, so the long one is held.
    for number in 0..4 {
        trace
            .shard
            .received(loud, &classic_send("carl", &[number; 1_000]));
    }
    let long = classic_send("carl", &[9; 60_000]);
    let (begin, rest) = long.split_at(60_000);
    for piece in begin.chunks(1_000) {
        trace.shard.received_cut(loud, piece);
    }
    trace.shard.received(loud, rest);
    trace.effects();
    let mut heard = trace.take_sent(reader).len();
    for _ in 0..100 {
        trace.shard.begin_turn();
        trace.shard.read_waiting();
        trace.effects();
        heard += trace.take_sent(reader).len();
    }
    assert_eq!(heard, 64_000);
    assert!(!trace.shard.has_waiting());
    trace.shard.measure();
    assert_eq!(trace.shard.metrics.partial_bytes, 0);
}

/// Four that have begun a long command: there is memory for two, for one more as only one may have more than its
/// share, and the last one waits.
fn four_long_commands() -> (Trace, [Key; 4], Vec<u8>) {
    let mut trace = Trace::within(Limits::default(), alone::budgets(200_000, 1 << 30));
    let long = classic_send("carl", &[7; 60_000]);
    let ids = ["anna", "bert", "dora", "emil"].map(|name| trace.classic(name));
    for id in ids {
        trace.received(id, &long[..40_000]);
        assert_eq!(trace.shard.closing_reason(id), None);
    }
    assert_eq!(trace.shard.metrics.input_waits, 1);
    assert_eq!(trace.asked.last(), Some(&Effect::Pause(ids[3])));
    (trace, ids, long[40_000..].to_vec())
}

#[test]
fn a_long_command_waits_for_memory_and_is_read_whole() {
    let (mut trace, [first, second, third, fourth], rest) = four_long_commands();
    trace.received(third, &rest);
    assert_eq!(trace.asked.last(), Some(&Effect::Resume(fourth)));
    for id in [first, second, fourth] {
        trace.received(id, &rest);
    }
    assert_eq!(trace.shard.metrics.received_classic, 4);
    trace.shard.measure();
    assert_eq!(trace.shard.metrics.partial_bytes, 0);
}

#[test]
fn who_says_no_more_of_a_long_command_is_ended_while_memory_is_short() {
    let (mut trace, [silent, _, _, waits], rest) = four_long_commands();
    trace.wait(2_000);
    trace.shard.begin_turn();
    trace.effects();
    assert!(trace.is_closed_for(silent, CloseReason::Overloaded));
    assert_eq!(trace.shard.closing_reason(waits), None);
    trace.received(waits, &rest);
    assert_eq!(trace.shard.metrics.received_classic, 1);
}

#[test]
fn who_says_a_long_command_too_slowly_is_ended_while_memory_is_short() {
    let (mut trace, [first, second, slow, _], rest) = four_long_commands();
    for byte in &rest[..9] {
        for id in [first, second, slow] {
            trace.received(id, &[*byte]);
        }
        trace.wait(1_000);
        assert_eq!(trace.shard.closing_reason(slow), None);
    }
    trace.received(slow, &rest[..1]);
    trace.wait(1_000);
    trace.shard.begin_turn();
    trace.effects();
    assert!(trace.is_closed_for(slow, CloseReason::Overloaded));
    for id in [first, second] {
        assert_eq!(trace.shard.closing_reason(id), None);
    }
}

#[test]
fn half_frames_on_one_core_make_room_for_those_on_another() {
    let input = Plain::default();
    input.max.set(100_000);
    input.connections.set(20);
    let within = || Budgets {
        input: Budget::new(Box::new(input.clone())),
        output: alone::budgets(0, 1 << 30).output,
    };
    let mut there = Trace::within(Limits::default(), within());
    let mut here = Trace::within(Limits::default(), within());
    let half_frame = classic_send("carl", &[7; 60_000]);
    let hogs: Vec<Key> = (0..9).map(|n| there.classic(&format!("hog-{n}"))).collect();
    for hog in &hogs {
        there.received(*hog, &half_frame[..5_000]);
    }
    let quiet = there.classic("quiet");
    there.received(quiet, &half_frame[..500]);
    let others: Vec<Key> = (0..9).map(|n| here.classic(&format!("user-{n}"))).collect();
    for other in &others {
        here.received(*other, &half_frame[..2_000]);
    }
    there.wait(2_000);
    there.shard.begin_turn();
    there.effects();
    let closed = |hog: &&Key| there.is_closed_for(**hog, CloseReason::Overloaded);
    assert!((1..9).contains(&hogs.iter().filter(closed).count()));
    assert!(input.leased.get() <= input.max.get() / 2);
    assert_eq!(there.shard.closing_reason(quiet), None);
    for other in others {
        assert_eq!(here.shard.closing_reason(other), None);
    }
}

#[test]
fn many_half_frames_of_one_peer_end_its_own_connections_only() {
    let mut trace = Trace::within(Limits::default(), alone::budgets(100_000, 1 << 30));
    let others: Vec<Key> = (0..20)
        .map(|n| trace.classic(&format!("user-{n}")))
        .collect();
    let half_frame = classic_send("carl", &[7; 60_000]);
    let mut hogs = Vec::new();
    for n in 0..40 {
        hogs.push(trace.classic(&format!("hog-{n}")));
        trace.received(hogs[n], &half_frame[..4_000]);
        // Everybody else goes on, in halves as well.
        let said = classic_send("carl", &[7; 400]);
        for id in &others {
            trace.received(*id, &said[..200]);
        }
        for id in &others {
            trace.received(*id, &said[200..]);
        }
        trace.shard.measure();
        assert!(trace.shard.metrics.partial_bytes <= 100_000);
    }
    for id in others {
        assert_eq!(trace.shard.closing_reason(id), None);
    }
    let closed = |id: &&Key| trace.is_closed_for(**id, CloseReason::Overloaded);
    assert!(hogs.iter().filter(closed).count() >= 15);
    assert_eq!(trace.shard.metrics.received_classic, 40 * 20);
}
