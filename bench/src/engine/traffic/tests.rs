//! When the users of each pace write, without a network: what they write comes when a test
//! delivers it.

use std::collections::{BTreeMap, VecDeque};

use super::Pace;
use super::state::State;
use crate::dialect::{Heard, Outcome, Protocol};
use crate::engine::clients::Handler;
use crate::engine::clock;
use crate::engine::names::Names;
use crate::engine::post::Post;
use crate::engine::streams::Topology;

/// A message on its way.
struct Flying {
    from: u32,
    to: u32,
    payload: Vec<u8>,
}

/// Users of the classic protocol.
struct World {
    state: State,
    post: Post,
    flying: VecDeque<Flying>,
}

impl World {
    fn start(users: u32, pace: Pace, sizes: &str) -> Self {
        let sizes = sizes.parse().expect("sizes");
        let mut world = Self {
            state: State::new(Topology::Mesh { users }, sizes),
            post: Post::new(Protocol::Classic, Names::fresh()),
            flying: VecDeque::new(),
        };
        for user in 0..users {
            world.post.log_in(user, user);
            world.post.connected(user);
        }
        world.state.start(pace, u64::MAX, &mut world.post);
        world.take_written();
        world
    }

    /// Takes what was written since; answers who wrote, once for each message.
    fn take_written(&mut self) -> Vec<u32> {
        let mut writers = Vec::new();
        while let Some((from, chunk)) = self.post.next_due() {
            let mut rest = &chunk[..];
            while let Some((&command, behind)) = rest.split_first() {
                if command != iris_protocol::classic::SEND {
                    let name = behind.iter().position(|&byte| byte < 0x20);
                    rest = &behind[name.unwrap_or(behind.len())..];
                    continue;
                }
                let (target, behind) = field(behind);
                let (payload, behind) = field(behind);
                let target = str::from_utf8(target).expect("a name");
                let (_, to) = target.split_once('.').expect("a name of ours");
                self.flying.push_back(Flying {
                    from,
                    to: to.parse().expect("a number"),
                    payload: payload.to_vec(),
                });
                writers.push(from);
                rest = behind;
            }
            self.post.sent(from, chunk);
        }
        writers
    }

    /// Delivers one message; answers it and who wrote what thereupon.
    fn deliver(&mut self) -> (Flying, Vec<u32>) {
        let message = self.flying.pop_front().expect("a message is in flight");
        let heard = Heard::Delivered {
            payload: 0..message.payload.len(),
        };
        let now_ns = clock::now_ns();
        let Self { state, post, .. } = self;
        state.heard(message.to, heard, &message.payload, now_ns, post);
        (message, self.take_written())
    }

    fn in_flight_of(&self, user: u32) -> usize {
        self.flying
            .iter()
            .filter(|flying| flying.from == user)
            .count()
    }
}

fn field(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (len, rest) = bytes.split_first_chunk().expect("a length");
    rest.split_at(u16::from_be_bytes(*len).into())
}

#[test]
fn whoever_receives_replies_at_once_and_all_have_as_many_in_flight_as_they_began_with() {
    let mut world = World::start(20, Pace::Reply(3), "64");
    let mut most = 0;
    for _ in 0..5_000 {
        let (message, writers) = world.deliver();
        assert_eq!(writers, [message.to]);
        assert_eq!(world.flying.len(), 60);
        assert_eq!(world.state.streams.in_flight(), 60);
        most = most.max(world.in_flight_of(0));
    }
    // Some have more to say than others, which is what the shape is about.
    assert!(most > 6, "{most}");
    world.state.left = 0;
    while !world.flying.is_empty() {
        let (_, writers) = world.deliver();
        assert!(writers.is_empty(), "{writers:?}");
    }
    assert!(world.state.streams.faults().is_none());
}

#[test]
fn a_reply_that_is_refused_is_written_anew() {
    let mut world = World::start(5, Pace::Reply(2), "64");
    let refused = world.flying.pop_front().expect("in flight");
    let heard = Heard::Answered {
        number: 1,
        outcome: Outcome::Refused("busy".into()),
    };
    let World { state, post, .. } = &mut world;
    state.heard(refused.from, heard, &[], clock::now_ns(), post);
    assert_eq!(world.take_written(), [refused.from]);
    assert_eq!(world.state.streams.in_flight(), 10);
}

#[test]
fn the_eager_write_the_next_one_when_one_of_theirs_came() {
    let mut world = World::start(20, Pace::Eager(4), "64");
    for _ in 0..2_000 {
        let (message, writers) = world.deliver();
        assert_eq!(writers, [message.from]);
        assert_eq!(world.in_flight_of(message.from), 4);
    }
}

#[test]
fn the_gathered_write_when_seven_eighths_have_come() {
    let mut world = World::start(4, Pace::Window(16), "64");
    let mut came = [0; 4];
    for _ in 0..2_000 {
        let (message, writers) = world.deliver();
        let came = &mut came[message.from as usize];
        *came += 1;
        if *came == 14 {
            assert_eq!(writers, [message.from; 14]);
            *came = 0;
        } else {
            assert!(writers.is_empty(), "{writers:?}");
        }
    }
}

#[test]
fn one_in_five_writes_a_burst_when_the_one_before_has_come() {
    let mut world = World::start(10, Pace::Bursts(50), "64");
    assert_eq!(world.flying.len(), 2 * 50 + 8);
    let mut came = [0; 10];
    for _ in 0..5_000 {
        let (message, writers) = world.deliver();
        let came = &mut came[message.from as usize];
        *came += 1;
        if message.from % 5 != 4 {
            assert_eq!(writers, [message.from]);
        } else if *came == 50 {
            assert_eq!(writers, [message.from; 50]);
            *came = 0;
        } else {
            assert!(writers.is_empty(), "{writers:?}");
        }
    }
    let tally = world.state.recorder.finish(clock::now_ns());
    assert_eq!(tally.latency_ns.len() + tally.burst_ns.len(), 5_000);
    assert!(tally.latency_ns.len() > 300 && tally.burst_ns.len() > 3_000);
}

#[test]
fn messages_of_a_mix_are_told_apart_and_each_comes_whole() {
    let mut world = World::start(20, Pace::Reply(2), "0.5:24,0.4:1000,0.1:65535");
    let mut sizes = BTreeMap::<usize, u32>::new();
    for _ in 0..1_000 {
        let (message, _) = world.deliver();
        *sizes.entry(message.payload.len()).or_default() += 1;
    }
    assert_eq!(sizes.keys().collect::<Vec<_>>(), [&24, &1_000, &65_535]);
    assert_eq!(world.state.streams.delivered(), 1_000);
}
