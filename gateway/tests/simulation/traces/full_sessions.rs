//! Classic sessions that are full as far as is known: the kernel is asked before anything is spilled.

use iris_gateway::shard::{Effect, Limits};
use iris_storage::Request;

use super::*;

const MESSAGE: [u8; 1_000] = [b'.'; 1_000];

/// Anna reads and bert sends; her session is full with four messages.
struct Full {
    trace: Trace,
    anna: Key,
    bert: Key,
    sent: u32,
}

impl Full {
    fn new() -> Full {
        let mut trace = Trace::new(Limits {
            outbox_bytes_max: 4_000,
            ..Limits::default()
        });
        let (anna, bert) = (trace.classic("anna"), trace.classic("bert"));
        trace.asked.clear();
        let mut full = Full {
            trace,
            anna,
            bert,
            sent: 0,
        };
        full.sends(4);
        assert!(full.takes_questions().is_empty(), "there is room");
        full
    }

    fn sends(&mut self, messages: usize) {
        for _ in 0..messages {
            let send = classic_send("anna", &MESSAGE);
            self.trace.received(self.bert, &send);
            self.sent += self.trace.take_sent(self.anna).len() as u32;
        }
    }

    fn takes_questions(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.trace.asked)
    }

    fn peer_has_all_but(&mut self, outstanding: u32) {
        self.trace.shard.probed(self.anna, Some(outstanding));
        self.trace.effects();
    }

    fn appends(&self) -> usize {
        let is_append = |request: &&Request| matches!(request, Request::Append { .. });
        self.trace.store.iter().filter(is_append).count()
    }
}

#[test]
fn what_a_quick_reader_has_does_not_fill_its_session() {
    let mut full = Full::new();
    for _ in 0..100 {
        full.sends(1);
        assert_eq!(full.takes_questions(), [Effect::Probe(full.anna)]);
        // There is room for what comes before the answer does.
        full.sends(3);
        full.peer_has_all_but(0);
        full.sends(4);
    }
    assert_eq!(full.appends(), 0);
}

#[test]
fn a_reader_that_lags_is_given_a_moment_and_then_spilled() {
    let mut full = Full::new();
    full.sends(2);
    full.peer_has_all_but(full.sent);
    full.trace.wait(60);
    full.peer_has_all_but(full.sent);
    assert_eq!(full.appends(), 0);
    full.takes_questions();
    full.trace.wait(40);
    assert!(!full.takes_questions().is_empty(), "it is asked again");
    full.peer_has_all_but(full.sent - 1_000);
    assert_eq!(full.appends(), 5, "all but the one it has");
}

#[test]
fn what_comes_before_the_answer_is_bounded() {
    let mut full = Full::new();
    full.sends(4 * 7);
    assert_eq!(full.appends(), 0);
    full.sends(1);
    assert_eq!(full.appends(), 4 * 8 + 1);
}

#[test]
fn the_kernel_is_asked_by_bytes_as_well() {
    let mut trace = Trace::new(Limits::default());
    let (anna, bert) = (trace.classic("anna"), trace.classic("bert"));
    trace.asked.clear();
    let mut asked = 0;
    for _ in 0..64 {
        trace.received(bert, &classic_send("anna", &[b'.'; 16 << 10]));
        trace.take_sent(anna);
        if trace.asked.contains(&Effect::Probe(anna)) {
            trace.asked.clear();
            trace.shard.probed(anna, Some(0));
            asked += 1;
        }
        trace.shard.measure();
        let held = trace.shard.metrics.outbox_bytes;
        assert!(held <= 96 << 10, "{held} bytes are held");
    }
    assert!(asked >= 16, "asked {asked} times for a mebibyte");
}
