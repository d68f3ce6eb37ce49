//! Short exact traces of the shard: what a schedule meets too rarely, or what is
//! about one bound. Each says what a peer does and what must come of it.

mod refusals;

use iris_gateway::shard::{Effect, Key, Limits, Now, Shard, ShardOptions};
use iris_protocol::framed;
use iris_protocol::{CloseReason, Name, classic};
use iris_storage::{Reply, Request, record};

use crate::world::Everybody;

/// One core, driven by hand: what is sent is taken at once, unless told otherwise.
struct Trace {
    shard: Shard,
    now_ms: u64,
    /// What the shard asked for and nobody has looked at yet.
    asked: Vec<Effect>,
    store: Vec<Request>,
}

impl Trace {
    fn new(limits: Limits) -> Trace {
        let mut shard = Shard::new(ShardOptions {
            core: 0,
            cores: 1,
            seed: 1,
            first_number: 1,
            limits,
            authenticator: Box::new(Everybody),
        });
        shard.set_now(Now {
            core_ms: 0,
            unix_ms: 1_700_000_000_000,
        });
        Trace {
            shard,
            now_ms: 0,
            asked: Vec::new(),
            store: Vec::new(),
        }
    }

    fn effects(&mut self) {
        let effects = std::mem::take(self.shard.effects());
        self.asked.extend(effects.connections);
        self.store.extend(effects.store);
    }

    fn received(&mut self, id: Key, segment: &[u8]) {
        self.shard.received(id, segment);
        self.effects();
    }

    /// Lets time pass in steps that every timer can follow.
    fn wait(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            self.now_ms = (self.now_ms + 100).min(until_ms);
            self.shard.set_now(Now {
                core_ms: self.now_ms,
                unix_ms: 1_700_000_000_000 + self.now_ms,
            });
            self.shard.tick();
            self.effects();
        }
    }

    /// Everything the connection may send now is taken by its kernel.
    fn take_sent(&mut self, id: Key) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.shard.next_dirty().is_some() {}
        while let Some(next) = self.shard.next_send(id) {
            let rest = next.chunk[next.from..].to_vec();
            drop(next);
            self.shard.sent(id, rest.len());
            bytes.extend(rest);
        }
        self.effects();
        bytes
    }

    /// The store does all it was asked, finding every inbox empty.
    fn store_replies(&mut self) {
        let mut sequence = 1;
        while !self.store.is_empty() {
            for request in std::mem::take(&mut self.store) {
                let reply = match request {
                    Request::Append { token, .. } => {
                        sequence += 1;
                        Reply::Appended { token, sequence }
                    }
                    Request::Burn { token, .. } => Reply::Burned { token },
                    Request::Seen { .. } => continue,
                    Request::Page { token, from, .. } => Reply::Page {
                        token,
                        messages: Vec::new(),
                        next: from,
                        end: true,
                        lost: 0,
                    },
                    Request::Account { token, .. } => Reply::Account {
                        token,
                        messages: 0,
                        bytes: 0,
                        last_seen_ms: 0,
                    },
                };
                self.shard.stored(reply);
            }
            self.effects();
        }
    }

    fn classic(&mut self, name: &str) -> Key {
        let id = self.shard.accepted();
        self.received(id, &classic_login(name));
        self.store_replies();
        assert!(self.take_sent(id).starts_with(classic::LOGIN_OK));
        id
    }

    fn framed(&mut self, name: &str) -> Key {
        let id = self.shard.accepted();
        self.received(id, &framed_login(name));
        self.store_replies();
        self.take_sent(id);
        id
    }

    fn is_closed_for(&self, id: Key, reason: CloseReason) -> bool {
        self.shard.closing_reason(id) == Some(reason) && self.asked.contains(&Effect::Close(id))
    }
}

fn name_of(name: &str) -> Name<'_> {
    Name::parse(name.as_bytes()).expect("a good name")
}

fn classic_login(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    classic::encode_login(&mut out, name_of(name));
    out
}

fn framed_login(name: &str) -> Vec<u8> {
    let mut out = framed::PREFACE.to_vec();
    framed::encode::login(&mut out, name_of(name), b"");
    out
}

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

fn classic_send(target: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    classic::encode_send(&mut out, name_of(target), payload);
    out
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

#[test]
fn a_follower_that_takes_nothing_is_closed_before_its_outbox_grows() {
    let limits = Limits {
        outbox_bytes_max: 4_000,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits.clone());
    let follower = trace.framed("anna");
    let mut follow = Vec::new();
    framed::encode::follow(&mut follow, b"bert");
    trace.received(follower, &follow);
    trace.store_replies();
    for _ in 0..2_000 {
        let followed = trace.framed("bert");
        trace.shard.ended(followed, CloseReason::PeerClosed, None);
        trace.effects();
        trace.store_replies();
    }
    assert!(trace.is_closed_for(follower, CloseReason::SlowReader));
    trace.shard.measure();
    let bytes = trace.shard.metrics.outbox_bytes;
    assert!(bytes < 100_000, "{bytes} bytes in outboxes");
}

fn framed_send(sequence: u64, target: &str) -> Vec<u8> {
    let mut out = Vec::new();
    framed::encode::send(&mut out, sequence, 0, target.as_bytes(), b"a message");
    out
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
    for (sequence, duplicates) in [(1, 1), (13, 2), (20, 3), (12, 3), (2, 3)] {
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
    // The store does nothing. A throttled sender is read again and again.
    for sequence in 1..=10_000 {
        trace.received(sender, &framed_send(sequence, &format!("user-{sequence}")));
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
    trace.wait(100);
    assert_eq!(trace.asked.last(), Some(&Effect::Resume(id)));
}

#[test]
fn unread_input_over_its_budget_ends_the_connection_and_is_let_go_of() {
    let limits = Limits {
        partial_bytes_max: 10_000,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits);
    let other = trace.classic("bert");
    trace.received(other, &classic_send("carl", &[7; 4_000])[..3_000]);
    let id = trace.classic("anna");
    trace.received(id, &classic_send("carl", &[7; 60_000])[..6_000]);
    assert_eq!(trace.shard.closing_reason(id), None);
    trace.received(id, &[7; 1_500]);
    assert!(trace.is_closed_for(id, CloseReason::Overloaded));
    trace.shard.measure();
    assert_eq!(trace.shard.metrics.partial_bytes, 3_000);
    assert_eq!(trace.shard.closing_reason(other), None);
}

#[test]
fn many_half_frames_of_one_peer_end_its_own_connections_only() {
    let limits = Limits {
        partial_bytes_max: 50_000,
        ..Limits::default()
    };
    let mut trace = Trace::new(limits);
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
        assert!(trace.shard.metrics.partial_bytes <= 50_000);
    }
    for id in others {
        assert_eq!(trace.shard.closing_reason(id), None);
    }
    let closed = |id: &&Key| trace.is_closed_for(**id, CloseReason::Overloaded);
    assert!(hogs.iter().filter(closed).count() >= 27);
    assert_eq!(trace.shard.metrics.received_classic, 40 * 20);
}

fn framed_ack(delivery: u64) -> Vec<u8> {
    let mut out = Vec::new();
    framed::encode::ack(&mut out, delivery);
    out
}

impl Trace {
    /// Anna, online, has been sent one message that she has not acknowledged.
    fn with_unacked() -> (Trace, Key, Key) {
        let mut trace = Trace::new(Limits::default());
        let reader = trace.framed("anna");
        let sender = trace.framed("bert");
        trace.received(sender, &framed_send(1, "anna"));
        assert!(!trace.take_sent(reader).is_empty());
        assert!(trace.store.is_empty(), "it goes straight to her");
        (trace, reader, sender)
    }

    fn take_append(&mut self) -> u64 {
        match self.store.pop() {
            Some(Request::Append { token, .. }) if self.store.is_empty() => token,
            _ => panic!("one append and nothing else"),
        }
    }

    fn take_burn(&mut self) -> (u64, u64) {
        let is_burn = |request: &Request| matches!(request, Request::Burn { .. });
        let at = self.store.iter().position(is_burn).expect("a burn");
        match self.store.remove(at) {
            Request::Burn { token, head, .. } => (token, head),
            other => panic!("{other:?} is no burn"),
        }
    }

    fn store_says_depth(&mut self, token: u64, messages: u64) {
        self.shard.stored(Reply::Account {
            token,
            messages,
            bytes: 0,
            last_seen_ms: 0,
        });
        self.effects();
    }

    fn fail(&mut self, token: u64) {
        let error = iris_storage::FailureKind::Unwritable;
        self.shard.stored(Reply::Failed { token, error });
        self.effects();
    }
}

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

fn stored_message(sequence: u64, payload: &[u8]) -> iris_storage::StoredMessage {
    let mut bytes = Vec::new();
    let stored = record::NewRecord {
        id_sender: 1,
        id_number: sequence,
        sent_at_ms: 1,
        expires_at_ms: 0,
        sender: "bert",
        payload,
    };
    record::encode(&mut bytes, &stored);
    record::seal(&mut bytes, 1, 1).expect("a sound record");
    iris_storage::StoredMessage {
        sequence,
        record: bytes.as_slice().into(),
    }
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
            Request::Page {
                token,
                messages_max,
                ..
            } => {
                let last = MESSAGES.min(next + messages_max as u64 - 1);
                let page = (next..=last).map(|sequence| stored_message(sequence, b"hello"));
                trace.shard.stored(Reply::Page {
                    token,
                    messages: page.collect(),
                    next: last + 1,
                    end: last == MESSAGES,
                    lost: 0,
                });
                next = last + 1;
            }
            other => panic!("{other:?}"),
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
