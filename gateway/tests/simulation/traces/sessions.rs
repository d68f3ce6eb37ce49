//! Logins, takeovers, and what connections say meanwhile.

use iris_gateway::shard::{Effect, Limits};
use iris_protocol::framed;
use iris_protocol::{CloseReason, classic};
use iris_storage::{Request, record};

use super::*;

#[test]
fn a_connection_accepted_during_a_drain_is_closed() {
    let mut trace = Trace::new(Limits::default());
    trace.shard.drain();
    let id = trace.shard.accepted();
    trace.effects();
    assert!(trace.is_closed_for(id, CloseReason::Draining));
}

#[test]
fn the_time_to_log_in_is_not_put_off_by_what_is_no_login() {
    let limits = Limits::default();
    // A preface and frames that are passed over, byte by byte; a classic send that
    // never ends; a classic login without a name.
    let mut skipped = framed::PREFACE.to_vec();
    skipped.extend([0, 0, 0, 200, 0xf0, 0, 0, 0]);
    skipped.extend([0; 200]);
    for said in [&skipped[..], &[0x02, 0, 9, b'a', b'a', b'a'], &[0x01]] {
        let mut trace = Trace::new(limits.clone());
        let id = trace.shard.accepted();
        let mut bytes = said.iter();
        for _ in 0..55 {
            if let Some(byte) = bytes.next() {
                trace.received(id, &[*byte]);
            }
            trace.wait(limits.login_timeout_ms / 50);
        }
        assert!(
            trace.is_closed_for(id, CloseReason::LoginTimeout),
            "{said:?}"
        );
    }
}

#[test]
fn a_classic_connection_that_lost_its_user_stays() {
    let mut trace = Trace::new(Limits::default());
    let older = trace.classic("anna");
    let newer = trace.shard.accepted();
    trace.received(newer, &classic_login("anna"));
    trace.shard.probed(older, Some(0));
    trace.effects();
    assert!(trace.take_sent(newer).starts_with(classic::LOGIN_OK));
    trace.wait(600_000);
    assert_eq!(trace.shard.closing_reason(older), None);
    assert_eq!(trace.shard.closing_reason(newer), None);
}

#[test]
fn segments_held_during_a_login_are_read_in_order() {
    let mut trace = Trace::new(Limits::default());
    trace.classic("anna");
    // It waits for the older session to end, and says more meanwhile.
    let waiting = trace.shard.accepted();
    trace.received(waiting, &classic_login("anna"));
    let mut pipelined = classic_login("bert");
    pipelined.extend(classic_send("carl", b"first"));
    trace.received(waiting, &pipelined);
    trace.received(waiting, &classic_send("carl", b"second"));
    // A newer login overtakes it: it is free to become another user.
    let newest = trace.shard.accepted();
    trace.received(newest, &classic_login("anna"));
    let appended: Vec<Vec<u8>> = trace
        .store
        .iter()
        .filter_map(|request| match request {
            Request::Append { record, .. } => {
                let mut record = record.clone();
                record::seal(&mut record, 1, 1).expect("a sound record");
                let view = record::view(&record).expect("a sound record");
                Some(view.payload.to_vec())
            }
            _ => None,
        })
        .collect();
    assert_eq!(appended, [b"first".to_vec(), b"second".to_vec()]);
}

#[test]
fn a_peer_that_logs_in_for_ever_and_takes_no_answer_is_not_read_further() {
    let limits = Limits {
        outbox_bytes_max: 4_000,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits.clone());
    let id = trace.classic("anna");
    let mut logins = 0;
    for _ in 0..10_000 {
        trace.wait(1);
        trace.received(id, &classic_login("anna"));
        logins += 1;
        trace.shard.probed(id, Some(0));
        trace.effects();
        trace.store_replies();
        if trace.asked.last() == Some(&Effect::Pause(id)) {
            break;
        }
    }
    assert!(
        logins < 2_000,
        "every login is answered, though none is taken"
    );
    // A peer that ends its side after that, and never takes anything, is no leak.
    trace.shard.peer_ended(id, CloseReason::PeerClosed);
    trace.effects();
    assert_eq!(trace.shard.closing_reason(id), None);
    trace.shard.send_failed(id, CloseReason::Unreachable);
    trace.effects();
    assert!(trace.is_closed_for(id, CloseReason::Unreachable));
}

#[test]
fn a_peer_that_logs_in_often_and_takes_its_answers_is_read() {
    let limits = Limits {
        outbox_bytes_max: 100,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits);
    let id = trace.classic("anna");
    let mut answers = 0;
    for round in 0..1_000 {
        trace.wait(1);
        trace.received(id, &classic_login("anna"));
        trace.shard.probed(id, Some(0));
        trace.store_replies();
        if round % 50 == 49 {
            answers += trace.take_sent(id).len() / classic::LOGIN_OK.len();
            // What was held is read: each login of it asks the kernel again.
            for _ in 0..50 {
                trace.shard.probed(id, Some(0));
                trace.store_replies();
                answers += trace.take_sent(id).len() / classic::LOGIN_OK.len();
            }
        }
    }
    assert_eq!(answers, 1_000);
}
