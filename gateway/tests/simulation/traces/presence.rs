//! Changes of users told to their followers: newest state, bounded rate, bounded memory, over many turns.

use iris_gateway::shard::{Key, Limits};
use iris_protocol::CloseReason;
use iris_protocol::framed::{self, DecodeLimits, Decoded, Frame, Presence};

use super::*;

impl Trace {
    fn follows(&mut self, follower: Key, user: &str) {
        let mut out = Vec::new();
        framed::encode::follow(&mut out, user.as_bytes());
        self.received(follower, &out);
        self.store_replies();
    }

    /// The user comes or goes.
    fn toggles(&mut self, user: &str, session: &mut Option<Key>) {
        match session.take() {
            Some(id) => self.shard.ended(id, CloseReason::PeerClosed, None),
            None => *session = Some(self.framed(user)),
        }
        self.effects();
        self.store_replies();
    }

    /// What a follower is told now: whether they are online.
    fn told(&mut self, follower: Key) -> Vec<bool> {
        let bytes = self.take_sent(follower);
        let mut rest = &bytes[..];
        let mut told = Vec::new();
        while !rest.is_empty() {
            let Ok(Decoded::Frame(frame, len)) = framed::decode(rest, &DecodeLimits::READER) else {
                panic!("the server sent {rest:?}");
            };
            if let Frame::Presence { state, .. } = frame {
                told.push(state == Presence::Online);
            }
            rest = &rest[len..];
        }
        told
    }

    fn tell_all(&mut self) {
        while self.shard.tell_followers() {}
    }
}

#[test]
fn a_follower_that_takes_nothing_holds_the_newest_state_of_each_user() {
    let mut trace = Trace::new(Limits::default());
    let follower = trace.framed("anna");
    let users: Vec<String> = (0..100).map(|n| format!("{n:0>250}")).collect();
    let mut sessions = vec![None; users.len()];
    for user in &users {
        trace.follows(follower, user);
    }
    trace.take_sent(follower);
    for round in 0..51 {
        for (user, session) in users.iter().zip(&mut sessions) {
            trace.toggles(user, session);
        }
        trace.tell_all();
        trace.wait(1_000);
        trace.shard.measure();
        let bytes = trace.shard.metrics.outbox_bytes;
        assert!(bytes < 50_000, "round {round}: {bytes} bytes in outboxes");
    }
    trace.tell_all();
    let told = trace.told(follower);
    assert!(told.len() < 2 * users.len(), "{} notices", told.len());
    assert!(
        told[told.len() - users.len() + 20..]
            .iter()
            .all(|online| *online)
    );
    assert!(trace.told(follower).is_empty());
}

#[test]
fn a_user_that_comes_and_goes_all_the_time_is_told_of_once_a_second() {
    let mut trace = Trace::new(Limits::default());
    let follower = trace.framed("anna");
    trace.follows(follower, "bert");
    trace.take_sent(follower);
    let mut session = None;
    trace.toggles("bert", &mut session);
    trace.tell_all();
    assert_eq!(
        trace.told(follower),
        [true],
        "the first change is told at once"
    );
    let mut told = 0;
    for _ in 0..100 {
        trace.toggles("bert", &mut session);
        trace.wait(100);
        trace.tell_all();
        told += trace.told(follower).len();
    }
    assert!((9..=10).contains(&told), "{told} notices in ten seconds");
    trace.toggles("bert", &mut session);
    trace.wait(2_000);
    trace.tell_all();
    assert_eq!(trace.told(follower).last(), Some(&session.is_some()));
}

#[test]
fn many_followers_are_told_over_many_turns_and_of_what_is_new_meanwhile() {
    let mut trace = Trace::new(Limits::default());
    let followers: Vec<Key> = (0..200)
        .map(|n| trace.framed(&format!("follower-{n}")))
        .collect();
    for follower in &followers {
        trace.follows(*follower, "bert");
        trace.take_sent(*follower);
    }
    let mut session = None;
    trace.toggles("bert", &mut session);
    let mut before = 0;
    for turn in 0..200 / 16 {
        assert!(trace.shard.tell_followers());
        let told = trace.shard.metrics.follow_changes - before;
        before += told;
        assert_eq!(told, 16, "turn {turn}");
        if turn == 4 {
            trace.toggles("bert", &mut session);
        }
    }
    trace.tell_all();
    for (n, follower) in followers.iter().enumerate() {
        assert_eq!(trace.told(*follower), [n < 80], "follower {n}");
    }
    trace.wait(1_100);
    trace.tell_all();
    for follower in &followers {
        assert_eq!(trace.told(*follower), [false]);
    }
    trace.wait(10_000);
    assert!(!trace.shard.is_telling());
}
