//! A name under whose key the store keeps another user: its login ends with a reason of its own, and is not tried again
//! as if the store had failed.

use iris_protocol::framed::{Decoded, Frame};
use iris_protocol::{ErrorCode, RefusalReason};
use iris_storage::FailureKind;

use super::*;

impl Trace {
    /// The store keeps another user under this key, whatever was asked last.
    fn collides(&mut self) {
        let token = self.store.pop().and_then(|request| request.token());
        let token = token.expect("a request that is answered");
        let error = FailureKind::NameCollision;
        self.shard.stored(Reply::Failed { token, error });
        self.effects();
    }

    fn asks_nothing_more(&mut self) {
        self.wait(10_000);
        assert!(self.store.is_empty(), "{:?}", self.store);
    }
}

fn last_frame(bytes: &[u8]) -> Frame<'_> {
    let mut at = 0;
    let mut last = None;
    while let Ok(Decoded::Frame(frame, len)) =
        framed::decode(&bytes[at..], &framed::DecodeLimits::READER)
    {
        (last, at) = (Some(frame), at + len);
    }
    last.expect("a frame")
}

#[test]
fn a_framed_login_is_closed_and_not_tried_again() {
    let mut trace = Trace::new(Limits::default());
    let id = trace.shard.accepted();
    trace.received(id, &framed_login("zoe"));
    trace.collides();
    assert!(trace.is_closed_for(id, CloseReason::NameCollision));
    let sent = trace.take_sent(id);
    assert!(matches!(
        last_frame(&sent),
        Frame::Close {
            reason: CloseReason::NameCollision,
            ..
        }
    ));
    trace.asks_nothing_more();
    assert_eq!(trace.shard.metrics.name_collisions, 1);
    assert_eq!(trace.shard.metrics.store_failures, 0);
    trace.shard.ended(id, CloseReason::PeerClosed, None);
    let counted = trace.shard.metrics.closed[CloseReason::NameCollision.index()];
    assert_eq!((counted, trace.shard.users_len()), (1, 0));
}

#[test]
fn a_classic_session_is_closed_when_its_inbox_is_asked_for() {
    let mut trace = Trace::new(Limits::default());
    let id = trace.shard.accepted();
    trace.received(id, &classic_login("zoe"));
    trace.collides();
    assert!(trace.is_closed_for(id, CloseReason::NameCollision));
    trace.asks_nothing_more();
    assert_eq!(trace.shard.metrics.name_collisions, 1);
}

#[test]
fn what_was_sent_to_a_session_that_collides_is_refused() {
    let mut trace = Trace::new(Limits::default());
    let reader = trace.shard.accepted();
    trace.received(reader, &classic_login("zoe"));
    let page = trace.store.pop().and_then(|request| request.token());
    let sender = trace.framed("bert");
    trace.received(sender, &framed_send(1, "zoe"));
    let append = trace.take_append();
    for token in [page.expect("a page"), append] {
        let error = FailureKind::NameCollision;
        trace.shard.stored(Reply::Failed { token, error });
        trace.effects();
    }
    let refused = trace.shard.metrics.refused[RefusalReason::BadTarget.index()];
    assert_eq!((refused, trace.shard.metrics.name_collisions), (1, 2));
    assert!(trace.is_closed_for(reader, CloseReason::NameCollision));
}

#[test]
fn a_message_to_an_absent_name_is_refused_as_a_bad_target() {
    let mut trace = Trace::new(Limits::default());
    let sender = trace.framed("bert");
    trace.received(sender, &framed_send(1, "zoe"));
    trace.collides();
    let refused = trace.shard.metrics.refused[RefusalReason::BadTarget.index()];
    assert_eq!((refused, trace.shard.metrics.name_collisions), (1, 1));
    assert_eq!(trace.shard.metrics.store_failures, 0);
}

#[test]
fn who_follows_such_a_name_is_told_and_follows_nobody() {
    let mut trace = Trace::new(Limits::default());
    let id = trace.framed("bert");
    let mut follow = Vec::new();
    framed::encode::follow(&mut follow, b"zoe");
    trace.received(id, &follow);
    trace.collides();
    let sent = trace.take_sent(id);
    assert!(matches!(
        last_frame(&sent),
        Frame::Error {
            code: ErrorCode::BadName,
            subject: b"zoe",
            ..
        }
    ));
    assert_eq!(trace.shard.metrics.name_collisions, 1);
    assert_eq!(trace.shard.users_len(), 1, "zoe is forgotten");
}
