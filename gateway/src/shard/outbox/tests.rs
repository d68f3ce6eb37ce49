//! The outbox against plain vectors, and its bounds.

use std::collections::VecDeque;

use super::super::budget::alone;
use super::*;
use crate::shard::ids::Origin;
use crate::shard::slots::Key;

fn pool() -> Pool {
    Pool::new(alone::budgets(0, 1 << 30).output)
}
use crate::shard::unacked::{Passport, ReplyTo, Stored};
use proptest::prelude::*;

fn passport(number: u64) -> Passport {
    Passport {
        origin: Origin { sender: 7, number },
        sent_at_ms: 0,
        expires_at_ms: 0,
        reply: None,
    }
}

/// What the outbox did, against plain vectors.
#[derive(Default)]
struct Model {
    stream: Vec<u8>,
    taken: Vec<u8>,
    unacked: VecDeque<(u64, Vec<u8>)>,
    /// Stream position behind the last message that was acknowledged.
    acked_bytes: u64,
}

proptest! {
    #[test]
    fn bytes_leave_in_order_and_messages_stay_until_acknowledged(
        steps in prop::collection::vec((0u8..6, 1usize..3000), 1..300)
    ) {
        let mut pool = pool();
        let mut outbox = pool.outbox();
        let mut model = Model::default();
        let mut flight: Option<(Vec<Rc<Vec<u8>>>, usize)> = None;
        for (number, (step, size)) in steps.into_iter().enumerate() {
            match step {
                0 | 1 => {
                    let payload: Vec<u8> = (0..size).map(|at| (at * 7 + number) as u8).collect();
                    outbox.push(&mut pool, size + 2, |out| {
                        out.extend(b"hd");
                        out.extend(&payload);
                    });
                    outbox.track("anna", size as u32, Stored::No, passport(number as u64), 0);
                    model.stream.extend(b"hd");
                    model.stream.extend(&payload);
                    model.unacked.push_back((number as u64, payload));
                }
                2 => {
                    if flight.is_none() {
                        flight = outbox.next_chunk().map(|(chunk, from)| (vec![chunk], from));
                        if let Some((chunks, _)) = &mut flight
                            && size % 2 == 0
                        {
                            chunks.extend(outbox.chunks_behind());
                        }
                    }
                }
                3 => {
                    if let Some((chunks, from)) = flight.take() {
                        let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_vec()).collect();
                        let len = (bytes.len() - from).min(4 * size);
                        model.taken.extend(&bytes[from..from + len]);
                        drop(chunks);
                        outbox.sent(&mut pool, len);
                    }
                }
                4 => {
                    // All but so many of the messages that the kernel has taken.
                    let taken = outbox.sent_position().saturating_sub(size as u64 % 4);
                    let mut end = model.acked_bytes;
                    let mut expected = 0;
                    while let Some((_, payload)) = model.unacked.front()
                        && end + 2 + payload.len() as u64 <= taken
                    {
                        end += 2 + payload.len() as u64;
                        expected += 1;
                        model.unacked.pop_front();
                    }
                    model.acked_bytes = end;
                    prop_assert_eq!(outbox.drop_plain_until(taken), expected);
                    outbox.release(&mut pool);
                }
                _ => {
                    let acked = outbox.pop_acked().map(|entry| entry.passport.origin.number);
                    if let Some((_, payload)) = model.unacked.front() {
                        model.acked_bytes += 2 + payload.len() as u64;
                    }
                    prop_assert_eq!(acked, model.unacked.pop_front().map(|(id, _)| id));
                    outbox.release(&mut pool);
                }
            }
            prop_assert!(model.stream.starts_with(&model.taken));
            prop_assert_eq!(outbox.unsent_bytes() as usize, model.stream.len() - model.taken.len());
            let mut seen = Vec::new();
            outbox.visit_unacked(|entry, message| {
                let (sender, payload) = message.expect("none of them is stored");
                assert_eq!(sender, "anna");
                seen.push((entry.passport.origin.number, payload.to_vec()));
                entry.stored
            });
            prop_assert_eq!(&seen, &model.unacked.iter().cloned().collect::<Vec<_>>());
        }
        prop_assert!(outbox.set_stored(0, Stored::At(1)) != model.unacked.is_empty());
    }
}

#[test]
fn a_quiet_outbox_reuses_its_chunk_without_growing() {
    let mut pool = pool();
    let mut outbox = pool.outbox();
    for number in 0..10_000 {
        outbox.push(&mut pool, 64, |out| out.extend([0u8; 64]));
        outbox.track("anna", 64, Stored::No, passport(number), 0);
        let (chunk, from) = outbox.next_chunk().expect("bytes wait");
        let len = chunk.len() - from;
        drop(chunk);
        outbox.sent(&mut pool, len);
        outbox.pop_acked();
        outbox.release(&mut pool);
        assert_eq!(outbox.chunks.iter().count(), 1);
        assert_eq!(outbox.retained_bytes(), 0);
    }
    assert!(outbox.is_idle());
}

#[test]
fn a_sealed_outbox_whose_messages_are_abandoned_counts_as_flushed() {
    let mut pool = pool();
    let mut outbox = pool.outbox();
    for number in 0..3 {
        outbox.push(&mut pool, 400, |out| out.extend([0u8; 400]));
        outbox.track("anna", 400, Stored::No, passport(number), 0);
    }
    let (chunk, _) = outbox.next_chunk().expect("the first chunk");
    let len = chunk.len();
    drop(chunk);
    outbox.seal();
    outbox.abandon_unacked(&mut pool);
    outbox.sent(&mut pool, len);
    assert!(outbox.next_chunk().is_none());
    assert!(outbox.is_flushed());
}

#[test]
fn a_sealed_outbox_sends_nothing_that_came_later() {
    let mut pool = pool();
    let mut outbox = pool.outbox();
    outbox.push(&mut pool, 3, |out| out.extend(b"old"));
    outbox.seal();
    outbox.push(&mut pool, 3, |out| out.extend(b"new"));
    let (chunk, from) = outbox.next_chunk().expect("the old bytes");
    assert_eq!(&chunk[from..], b"old");
    drop(chunk);
    outbox.sent(&mut pool, 3);
    assert!(outbox.next_chunk().is_none());
    assert!(outbox.is_flushed());
}

#[test]
fn messages_that_somebody_is_told_of_are_not_dropped_unseen() {
    let mut pool = pool();
    let awaited = Passport {
        reply: Some(ReplyTo {
            core: 0,
            user: Key::NONE,
        }),
        ..passport(2)
    };
    for (stored, passport) in [(Stored::At(9), passport(1)), (Stored::No, awaited)] {
        let mut outbox = pool.outbox();
        outbox.push(&mut pool, 4, |out| out.extend(b"text"));
        outbox.track("anna", 4, stored, passport, 0);
        assert_eq!(outbox.drop_plain_until(4), 0);
        assert_eq!(outbox.unacked_len(), 1);
        outbox.pop_acked();
        assert_eq!(outbox.awaited(), 0);
    }
}

#[test]
fn a_small_send_is_not_cut_where_a_chunk_ends() {
    let mut pool = pool();
    let mut outbox = pool.outbox();
    for number in 0..1_000 {
        for half in 0..2 {
            outbox.push(&mut pool, 20, |out| out.extend([b'x'; 20]));
            outbox.track("anna", 20, Stored::No, passport(number * 2 + half), 0);
        }
        let (chunk, from) = outbox.next_chunk().expect("something to send");
        let len = chunk.len() - from;
        drop(chunk);
        outbox.sent(&mut pool, len);
        assert_eq!(outbox.unsent_bytes(), 0, "send {number} was cut");
    }
}

/// Takes all that may be sent now.
fn takes(outbox: &mut Outbox, pool: &mut Pool) -> Vec<u8> {
    let mut taken = Vec::new();
    while let Some((chunk, from)) = outbox.next_chunk() {
        let len = chunk.len() - from;
        taken.extend(&chunk[from..]);
        drop(chunk);
        outbox.sent(pool, len);
    }
    taken
}

#[test]
fn what_is_barred_follows_when_it_is_time_and_the_peer_has_what_is_before_it() {
    let mut pool = pool();
    for is_sent_first in [true, false] {
        let mut outbox = pool.outbox();
        outbox.push_answer(&mut pool, 3, |out| out.extend(b"one"));
        outbox.bar(7);
        let mut answer = Vec::new();
        if is_sent_first {
            answer = takes(&mut outbox, &mut pool);
            assert!(!outbox.is_idle(), "the bar is not forgotten");
        }
        outbox.push(&mut pool, 3, |out| out.extend(b"two"));
        outbox.track("anna", 3, Stored::No, passport(1), 0);
        answer.extend(takes(&mut outbox, &mut pool));
        assert_eq!(answer, b"one");
        assert!(!outbox.unbar(0, 6), "too early");
        assert!(!outbox.unbar(1, 7), "not with the peer");
        assert!(takes(&mut outbox, &mut pool).is_empty());
        assert!(outbox.unbar(0, 7));
        assert_eq!(takes(&mut outbox, &mut pool), b"two");
        assert!(!outbox.unbar(0, 8), "once");
    }
}

#[test]
fn what_is_barred_when_its_outbox_is_sealed_stays_behind() {
    let mut pool = pool();
    let mut outbox = pool.outbox();
    outbox.push_answer(&mut pool, 3, |out| out.extend(b"one"));
    outbox.bar(0);
    outbox.push(&mut pool, 3, |out| out.extend(b"two"));
    outbox.seal();
    outbox.bar(0);
    assert_eq!(takes(&mut outbox, &mut pool), b"one");
    assert!(!outbox.unbar(0, 1));
    assert!(outbox.is_flushed());
}

#[test]
fn what_is_in_flight_is_not_abandoned() {
    let mut pool = pool();
    let mut outbox = pool.outbox();
    for number in 0..3 {
        outbox.push(&mut pool, 50_000, |out| out.extend([number; 50_000]));
        outbox.track("anna", 50_000, Stored::No, passport(number.into()), 0);
        if number == 1 {
            let (first, _) = outbox.next_chunk().expect("two messages");
            assert_eq!(first.len(), 50_000);
            assert_eq!(outbox.chunks_behind().count(), 1);
        }
    }
    outbox.abandon_unacked(&mut pool);
    outbox.sent(&mut pool, 60_000);
    assert_eq!(
        outbox.unsent_bytes(),
        40_000,
        "the rest of what was in flight"
    );
    outbox.abandon_unacked(&mut pool);
    assert_eq!(takes(&mut outbox, &mut pool).len(), 40_000);
}
