use iris_protocol::{Name, Outcome};
use iris_storage::NameKey;

use super::*;

fn key(index: u32) -> Key {
    Key {
        index,
        generation: 3,
    }
}

/// One of each kind, and a second message behind them.
fn one_of_each() -> Vec<u8> {
    let parcel = |target: &'static str, payload| Parcel {
        target: Name::parse(target.as_bytes()).expect("a name"),
        hash: NameKey::new(7).hash(target),
        sender: "sender",
        from: ReplyTo {
            core: 1,
            user: key(9),
        },
        origin: Origin {
            sender: 11,
            number: 12,
        },
        sent_at_ms: 13,
        expires_at_ms: 14,
        payload,
    };
    let mut batch = Vec::new();
    for envelope in [
        Envelope::Deliver(parcel("bob", b"hello")),
        Envelope::Answer {
            user: key(1),
            number: 2,
            outcome: Outcome::Delivered,
        },
        Envelope::Room {
            user: key(4),
            held: true,
        },
        Envelope::Arrival(Arrival {
            segment: 1,
            slot: 2,
            place: 3,
            framed: true,
            relogins_ahead_us: 3,
            name: "ann",
        }),
        Envelope::Received {
            bytes: b"abc",
            cut: false,
        },
        Envelope::Inquire {
            inquiry: Inquiry::Follow,
            connection: key(5),
            name: "carol",
        },
        Envelope::Presence {
            connection: key(6),
            name: "dave",
            away_since_ms: Some(8),
            notice: Notice::Change,
        },
        Envelope::Deliver(parcel("eve", b"")),
    ] {
        push(&mut batch, &envelope);
    }
    batch
}

#[test]
fn a_look_ahead_finds_readers_and_those_who_are_answered_among_all_kinds() {
    let batch = one_of_each();
    let mut all: Vec<_> = Envelopes::new(&batch).whom().collect();
    assert_eq!(all.len(), 8);
    all.retain(|whom| *whom != Whom::Other);
    let (bob, eve) = (NameKey::new(7).hash("bob"), NameKey::new(7).hash("eve"));
    let answered = Envelopes::new(&batch).find_map(|envelope| match envelope {
        Envelope::Answer { user, .. } => Some(user),
        _ => None,
    });
    let answered = Whom::Sender(answered.expect("one of each kind"));
    assert_eq!(all, [Whom::Reader(bob), answered, Whom::Reader(eve)]);
}

#[test]
fn what_is_read_is_what_was_written() {
    let batch = one_of_each();
    let mut again = Vec::new();
    for envelope in Envelopes::new(&batch) {
        push(&mut again, &envelope);
    }
    assert_eq!(again, batch);
}
