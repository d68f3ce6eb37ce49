//! Ends that are told by one operation, by another, or by none.

use iris_gateway::shard::Limits;
use iris_protocol::CloseReason;

use super::*;

#[test]
fn what_was_said_before_a_send_failed_is_read() {
    let mut trace = Trace::new(Limits::default());
    let reader = trace.classic("anna");
    let sender = trace.classic("bert");
    trace.shard.send_failed(sender, CloseReason::PeerReset);
    trace.effects();
    assert_eq!(trace.shard.closing_reason(sender), None);
    trace.received(sender, &classic_send("anna", b"the last word"));
    // The receive tells the end, if not why.
    trace.shard.peer_ended(sender, CloseReason::PeerClosed);
    trace.effects();
    assert!(trace.is_closed_for(sender, CloseReason::PeerReset));
    assert_eq!(trace.take_sent(reader), b"the last word");
}

#[test]
fn a_connection_on_which_a_send_failed_ends_without_further_word() {
    for phase in ["before its login", "logged in", "waiting"] {
        let mut trace = Trace::new(Limits::default());
        let id = match phase {
            "before its login" => trace.shard.accepted(),
            "logged in" => trace.classic("anna"),
            _ => {
                trace.classic("anna");
                let id = trace.shard.accepted();
                trace.received(id, &classic_login("anna"));
                id
            }
        };
        trace.shard.send_failed(id, CloseReason::Unreachable);
        trace.effects();
        trace.wait(3_000);
        assert!(
            trace.is_closed_for(id, CloseReason::Unreachable),
            "{phase}: within three seconds"
        );
    }
}

#[test]
fn a_connection_that_moves_ends_when_its_socket_is_gone() {
    let mut trace = Trace::of_cores(2, Limits::default());
    let name = (0..100).map(|number| format!("user-{number}"));
    for name in name {
        let id = trace.shard.accepted();
        trace.received(id, &classic_login(&name));
        if trace.shard.moving_to(id).is_none() {
            continue;
        }
        trace.shard.socket_gone(id);
        trace.effects();
        assert!(trace.is_closed_for(id, CloseReason::Internal));
        return;
    }
    panic!("no user has a home elsewhere");
}

/// A classic connection that becomes a user of the other core, and whose LOGIN_OK is not taken.
fn moving_with_unsent_bytes() -> (Trace, Key) {
    let mut trace = Trace::of_cores(2, Limits::default());
    let homes = |trace: &mut Trace, moves: bool| {
        (0..100)
            .map(|number| format!("user-{number}"))
            .find(|name| {
                let id = trace.shard.accepted();
                trace.received(id, &classic_login(name));
                let is_it = trace.shard.moving_to(id).is_some() == moves;
                trace.shard.ended(id, CloseReason::PeerClosed, Some(0));
                trace.effects();
                is_it
            })
            .expect("users of both cores")
    };
    let (here, elsewhere) = (homes(&mut trace, false), homes(&mut trace, true));
    let id = trace.shard.accepted();
    trace.received(id, &classic_login(&here));
    // LOGIN_OK is not taken; the kernel says what the peer has, and the connection moves.
    trace.received(id, &classic_login(&elsewhere));
    trace.shard.probed(id, Some(0));
    trace.effects();
    assert!(trace.shard.moving_to(id).is_some());
    (trace, id)
}

#[test]
fn a_move_whose_last_bytes_are_not_taken_ends_as_a_slow_reader() {
    let (mut trace, id) = moving_with_unsent_bytes();
    trace.wait(11_000);
    assert!(trace.is_closed_for(id, CloseReason::SlowReader));
}

#[test]
fn classic_connections_are_idle_when_they_neither_say_nor_take_anything() {
    let limits = Limits {
        classic_idle_timeout_ms: 1_000,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits);
    let silent = trace.classic("silent");
    let taking = trace.classic("taking");
    let framed = trace.framed("framed");
    for _ in 0..4 {
        trace.wait(600);
        trace.received(framed, &framed_send(trace.now_ms, "taking"));
        trace.take_sent(taking);
        trace.shard.probed(taking, Some(0));
        trace.effects();
    }
    assert!(trace.is_closed_for(silent, CloseReason::IdleTimeout));
    assert_eq!(trace.shard.closing_reason(taking), None);
    assert_eq!(trace.shard.closing_reason(framed), None);
    trace.wait(1_100);
    assert!(trace.is_closed_for(taking, CloseReason::IdleTimeout));
}

/// It is the gateway that does not read.
#[test]
fn a_connection_that_is_held_up_is_not_idle() {
    let limits = Limits {
        lane_batch_bytes_max: 100,
        idle_timeout_ms: 5_000,
        ..Limits::default()
    };
    let mut trace = Trace::of_cores(2, limits);
    let mut held_up = None;
    for number in 0..100 {
        let id = trace.shard.accepted();
        trace.received(id, &framed_login(&format!("user-{number}")));
        if trace.shard.moving_to(id).is_none() {
            trace.store_replies();
            trace.take_sent(id);
            held_up = Some(id);
            break;
        }
    }
    let id = held_up.expect("a user of this core");
    for sequence in 1..200 {
        trace.received(id, &framed_send(sequence, &format!("user-{sequence}")));
    }
    assert_eq!(trace.shard.metrics.lane_full_pauses, 1, "the lane is full");
    trace.wait(60_000);
    assert_eq!(trace.shard.closing_reason(id), None);
    while trace.shard.take_batch(1, Vec::new()).is_ok() || trace.shard.read_waiting() {
        trace.shard.begin_turn();
        trace.effects();
    }
    trace.wait(60_000);
    assert!(trace.is_closed_for(id, CloseReason::IdleTimeout));
}

/// Its socket is on its way to the other core when its time-out comes: it arrives there all the same.
#[test]
fn a_move_that_has_begun_after_a_failed_send_is_not_given_up() {
    let (mut trace, id) = moving_with_unsent_bytes();
    trace.shard.send_failed(id, CloseReason::PeerReset);
    trace.effects();
    trace.wait(60_000);
    assert!(trace.shard.moving_to(id).is_some());
    assert_eq!(trace.shard.closing_reason(id), None);
    trace.shard.handed_over(id, 0, 7, 0);
    assert!(trace.shard.has_batch(1), "the other core is told");
    assert_eq!(trace.shard.connections_len(), 0);
}

/// What it said before its peer finished is still to be read.
#[test]
fn a_login_that_is_delayed_is_not_lost_with_the_end_of_what_the_peer_says() {
    let limits = Limits {
        relogins: iris_gateway::shard::Rate {
            burst: 1,
            per_second: 10,
        },
        ..Limits::default()
    };
    let mut trace = Trace::new(limits);
    let id = trace.classic("anna");
    let newer = trace.shard.accepted();
    trace.received(newer, &classic_login("anna"));
    trace.shard.probed(id, Some(0));
    trace.effects();
    trace.received(id, &classic_login("bert"));
    trace.received(id, &classic_login("carl"));
    let mut last = classic_login("dora");
    last.extend(classic_send("anna", b"still said"));
    trace.received(id, &last);
    trace.shard.peer_ended(id, CloseReason::PeerClosed);
    trace.effects();
    assert_eq!(trace.shard.closing_reason(id), None);
    for _ in 0..20 {
        trace.wait(200);
        trace.shard.probed(id, Some(0));
        trace.shard.probed(newer, Some(0));
        trace.effects();
        trace.store_replies();
    }
    assert!(trace.is_closed_for(id, CloseReason::PeerClosed));
    assert_eq!(trace.take_sent(newer), classic::LOGIN_OK);
    trace.peer_has_the_answer(newer);
    assert_eq!(trace.take_sent(newer), b"still said");
}
