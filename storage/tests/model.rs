//! The store against a model of it: any mix of appends, burns, pages, accounts and restarts, several at a time so
//! that they share batches, leaves each inbox and the totals exactly as the model has them, within limits that are
//! hit often.

mod rig;

use std::collections::BTreeMap;

use iris_storage::{FailureKind, Overflow, Quotas, Reply, Request};
use proptest::collection::vec;
use proptest::prelude::*;
use rig::{Rig, record_len};

const USERS: [&str; 3] = ["anna", "ben", "übung"];
/// Of a record that has long expired, Unix milliseconds.
const LONG_AGO_MS: u64 = 1_000;

#[derive(Clone, Debug)]
enum Op {
    Append {
        user: usize,
        len: usize,
        expired: bool,
    },
    /// Burns to just after the message this many places from the end (0: everything); also one that was
    /// appended in the same breath.
    Burn {
        user: usize,
        leave: usize,
    },
    Seen {
        user: usize,
        at_ms: u64,
    },
}

impl Op {
    fn user(&self) -> usize {
        match self {
            Op::Append { user, .. } | Op::Burn { user, .. } | Op::Seen { user, .. } => *user,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Together(Vec<Op>),
    Look { user: usize, messages_max: usize },
    Restart,
}

#[derive(Default)]
struct ModelInbox {
    messages: Vec<(u64, Vec<u8>, bool)>,
    last_seen_ms: u64,
}

fn ops() -> impl Strategy<Value = Op> {
    let user = 0..USERS.len();
    prop_oneof![
        6 => (user.clone(), 0..300usize, prop::bool::weighted(0.1))
            .prop_map(|(user, len, expired)| Op::Append { user, len, expired }),
        2 => (user.clone(), 0..6usize).prop_map(|(user, leave)| Op::Burn { user, leave }),
        1 => (user, 0..1000u64).prop_map(|(user, at_ms)| Op::Seen { user, at_ms }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(
        prop_oneof![
            10 => vec(ops(), 1..20).prop_map(Step::Together),
            5 => (0..USERS.len(), 1..8usize).prop_map(|(user, messages_max)| Step::Look { user, messages_max }),
            1 => Just(Step::Restart),
        ],
        1..25,
    )
}

impl ModelInbox {
    fn bytes(&self) -> u64 {
        self.messages
            .iter()
            .map(|(_, payload, _)| record_len(payload))
            .sum()
    }
}

/// What the model says to an append: `None` if it is taken.
fn refusal(
    model: &mut BTreeMap<usize, ModelInbox>,
    user: usize,
    len: u64,
    quotas: &Quotas,
) -> Option<FailureKind> {
    let others: u64 = model
        .iter()
        .filter(|(other, _)| **other != user)
        .map(|(_, inbox)| inbox.bytes())
        .sum();
    let inbox = model.entry(user).or_default();
    let full = |inbox: &ModelInbox| {
        if inbox.messages.len() as u64 + 1 > quotas.inbox_messages_max
            || inbox.bytes() + len > quotas.inbox_bytes_max
        {
            Some(FailureKind::InboxFull)
        } else if others + inbox.bytes() + len > quotas.store_bytes_max {
            Some(FailureKind::StoreFull)
        } else {
            None
        }
    };
    full(inbox)?;
    let expired = inbox
        .messages
        .iter()
        .take_while(|message| message.2)
        .count();
    inbox.messages.drain(..expired);
    let fits_alone = len <= quotas.inbox_bytes_max && others + len <= quotas.store_bytes_max;
    if quotas.overflow == Overflow::DropOldest && fits_alone {
        while full(inbox).is_some() {
            inbox.messages.remove(0);
        }
    }
    full(inbox)
}

/// What is due for a request.
#[derive(Debug)]
enum Due {
    Sequence(u64),
    Refusal(FailureKind),
    Burned,
}

fn together(
    rig: &mut Rig,
    model: &mut BTreeMap<usize, ModelInbox>,
    last: &mut u64,
    ops: &[Op],
    quotas: &Quotas,
) {
    // Requests for several users take effect in any order, unless they come in that of their keys.
    let mut ops: Vec<&Op> = ops.iter().collect();
    ops.sort_by_key(|op| rig.user(USERS[op.user()]));
    let mut expected = Vec::new();
    for op in ops {
        match op {
            Op::Append { user, len, expired } => {
                let payload = vec![*len as u8; *len];
                let expires_at_ms = if *expired { LONG_AGO_MS } else { 0 };
                let request = rig.append_request(USERS[*user], &payload, expires_at_ms);
                rig.client.submit(request);
                if let Some(reason) = refusal(model, *user, record_len(&payload), quotas) {
                    expected.push(Due::Refusal(reason));
                    continue;
                }
                *last += 1;
                expected.push(Due::Sequence(*last));
                let inbox = model.entry(*user).or_default();
                inbox.messages.push((*last, payload, *expired));
            }
            Op::Burn { user, leave } => {
                let inbox = model.entry(*user).or_default();
                let keep_from = inbox.messages.len().saturating_sub(*leave);
                let head = inbox
                    .messages
                    .get(keep_from)
                    .map_or(u64::MAX, |message| message.0);
                inbox.messages.drain(..keep_from);
                let (token, hash) = (rig.token(), rig.user(USERS[*user]));
                rig.client.submit(Request::Burn {
                    token,
                    user: hash,
                    name: USERS[*user].into(),
                    head,
                });
                expected.push(Due::Burned);
            }
            Op::Seen { user, at_ms } => {
                rig.seen(USERS[*user], *at_ms);
                let inbox = model.entry(*user).or_default();
                inbox.last_seen_ms = inbox.last_seen_ms.max(*at_ms);
            }
        }
    }
    for expected in expected {
        match (rig.reply(), expected) {
            (Reply::Appended { sequence, .. }, Due::Sequence(due)) => assert_eq!(sequence, due),
            (Reply::Failed { error, .. }, Due::Refusal(due)) => assert_eq!(error, due),
            (Reply::Burned { .. }, Due::Burned) => {}
            (reply, expected) => panic!("{reply:?} where {expected:?} was due"),
        }
    }
}

fn look(rig: &mut Rig, inbox: &ModelInbox, user: usize, messages_max: usize) {
    let kept: Vec<(u64, Vec<u8>)> = inbox
        .messages
        .iter()
        .filter(|(_, _, expired)| !expired)
        .map(|(sequence, payload, _)| (*sequence, payload.clone()))
        .collect();
    assert_eq!(rig.drain(USERS[user], messages_max), (kept, 0));
    let bytes = inbox.bytes();
    let (messages, bytes_found, _) = rig.account(USERS[user]);
    assert_eq!(
        (messages, bytes_found),
        (inbox.messages.len() as u64, bytes)
    );
}

fn quotas() -> impl Strategy<Value = Quotas> {
    let quotas = |(inbox_messages_max, inbox_bytes_max, store_bytes_max, drops)| Quotas {
        inbox_messages_max,
        inbox_bytes_max,
        store_bytes_max,
        // One sender writes all; shares have tests of their own.
        sender_inbox_percent: 100,
        sender_store_percent: 100,
        overflow: if drops {
            Overflow::DropOldest
        } else {
            Overflow::Refuse
        },
    };
    let far = 1_000_000u64;
    (
        prop_oneof![Just(far), 1..12u64],
        prop_oneof![Just(far), 100..2_000u64],
        prop_oneof![Just(far), 500..4_000u64],
        any::<bool>(),
    )
        .prop_map(quotas)
}

fn check_totals(rig: &mut Rig, model: &BTreeMap<usize, ModelInbox>) {
    let messages = model
        .values()
        .map(|inbox| inbox.messages.len() as u64)
        .sum();
    let bytes = model.values().map(ModelInbox::bytes).sum();
    assert_eq!(rig.totals(), (messages, bytes));
}

/// Each opening begins a new block of sequences, whose first names that life of the database.
const SEQUENCE_BLOCK: u64 = 1 << 20;

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_inbox_is_as_the_model_has_it(steps in steps(), tails_max in prop_oneof![Just(1usize), Just(1000)], quotas in quotas()) {
        let folder = tempfile::tempdir().expect("a folder");
        // A memory of one user makes the store look nearly everything up.
        let options = || iris_storage::StoreOptions { tails_max, quotas, ..rig::options(folder.path()) };
        let mut rig = Rig::with(options());
        let (mut model, mut last, mut openings) = (BTreeMap::new(), 1, 1);
        for step in &steps {
            match step {
                Step::Together(ops) => {
                    together(&mut rig, &mut model, &mut last, ops, &quotas);
                    check_totals(&mut rig, &model);
                }
                Step::Look { user, messages_max } => {
                    look(&mut rig, model.entry(*user).or_default(), *user, *messages_max);
                }
                Step::Restart => {
                    rig.close();
                    rig = Rig::with(options());
                    check_totals(&mut rig, &model);
                    last = openings * SEQUENCE_BLOCK + 1;
                    openings += 1;
                }
            }
        }
        rig.close();
        let mut rig = Rig::with(options());
        for (user, inbox) in &model {
            look(&mut rig, inbox, *user, 3);
            let (_, _, last_seen_ms) = rig.account(USERS[*user]);
            prop_assert_eq!(last_seen_ms, inbox.last_seen_ms);
        }
    }
}
