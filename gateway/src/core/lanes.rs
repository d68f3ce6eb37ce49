//! Lanes: batches of envelopes from one core to another, and the emptied batches
//! on their way back.
//!
//! Each ordered pair of cores has a ring of [`LANE_BATCHES`] batches and one for
//! the return, single producer and single consumer, lock-free (rtrb). A lane that
//! is full keeps the next batch growing at its producer's shard, which stops
//! reading the connections that need that lane: nothing is dropped, but for what
//! a core that has ended will not take, none of which is acknowledged.

use rtrb::{Consumer, Producer, RingBuffer};

use crate::shard::Shard;

/// Batches in a lane: enough that a core may be one turn late, few enough that
/// pressure reaches the senders soon.
const LANE_BATCHES: usize = 32;
/// A batch that grew beyond this is not kept for reuse.
const KEPT_BATCH_BYTES: usize = 1 << 20;

struct Outgoing {
    batches: Producer<Vec<u8>>,
    emptied: Consumer<Vec<u8>>,
}

struct Incoming {
    batches: Consumer<Vec<u8>>,
    emptied: Producer<Vec<u8>>,
}

/// The ends of all lanes that one core holds; none to itself.
pub struct Lanes {
    outgoing: Vec<Option<Outgoing>>,
    incoming: Vec<Option<Incoming>>,
}

/// The lanes between so many cores, by core.
pub fn mesh(cores: usize) -> Vec<Lanes> {
    let mut lanes: Vec<Lanes> = (0..cores)
        .map(|_| Lanes {
            outgoing: (0..cores).map(|_| None).collect(),
            incoming: (0..cores).map(|_| None).collect(),
        })
        .collect();
    for from in 0..cores {
        for to in (0..cores).filter(|to| *to != from) {
            let (batches_in, batches_out) = RingBuffer::new(LANE_BATCHES);
            let (emptied_in, emptied_out) = RingBuffer::new(LANE_BATCHES);
            lanes[from].outgoing[to] = Some(Outgoing {
                batches: batches_in,
                emptied: emptied_out,
            });
            lanes[to].incoming[from] = Some(Incoming {
                batches: batches_out,
                emptied: emptied_in,
            });
        }
    }
    lanes
}

impl Lanes {
    /// Sends the batches that the shard has filled; calls `sent_to` for each core
    /// that got one.
    pub(super) fn send(&mut self, shard: &mut Shard, mut sent_to: impl FnMut(usize)) {
        for (to, lane) in self.outgoing.iter_mut().enumerate() {
            let Some(lane) = lane else {
                continue;
            };
            // A core that has ended takes nothing any more; what is for it is let go,
            // so that those who wait for room, and the drain, do not wait for ever.
            let has_ended = lane.batches.is_abandoned();
            if !shard.has_batch(to as u16) || (lane.batches.is_full() && !has_ended) {
                continue;
            }
            let empty = lane.emptied.pop().unwrap_or_default();
            if let Ok(batch) = shard.take_batch(to as u16, empty) {
                if has_ended {
                    shard.metrics.lane_dropped += 1;
                    continue;
                }
                // There was room, and nobody else produces here.
                let _ = lane.batches.push(batch);
                sent_to(to);
            }
        }
    }

    /// Gives the shard one batch from each core that has sent any; says whether there was
    /// one.
    pub(super) fn receive(&mut self, shard: &mut Shard) -> bool {
        let mut any = false;
        for (from, lane) in self.incoming.iter_mut().enumerate() {
            let Some(lane) = lane else {
                continue;
            };
            let Ok(mut batch) = lane.batches.pop() else {
                continue;
            };
            any = true;
            shard.lane_received(from as u16, &batch);
            batch.clear();
            if batch.capacity() <= KEPT_BATCH_BYTES {
                // No room to return it: it is freed, and another made when needed.
                let _ = lane.emptied.push(batch);
            }
        }
        any
    }

    /// Whether another core has sent something that was not taken yet.
    pub(super) fn has_incoming(&self) -> bool {
        self.incoming
            .iter()
            .flatten()
            .any(|lane| !lane.batches.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use iris_protocol::{Name, classic};

    use super::*;
    use crate::shard::Key;
    use crate::shard::harness::{first_of, name_at};

    /// A shard of two with a user, whose connection it is, and a send to a user of
    /// the other core.
    fn sender() -> (Shard, Key, Vec<u8>) {
        let (here, there) = (name_at(0), name_at(1));
        let mut shard = first_of(2);
        let id = shard.accepted();
        let mut input = Vec::new();
        classic::encode_login(&mut input, Name::parse(here.as_bytes()).expect("a name"));
        shard.received(id, &input);
        input.clear();
        classic::encode_send(
            &mut input,
            Name::parse(there.as_bytes()).expect("a name"),
            &[b'x'; 64],
        );
        (shard, id, input)
    }

    #[test]
    fn a_batch_is_due_before_anybody_has_to_wait_for_it() {
        let (mut shard, id, input) = sender();
        let mut lanes = mesh(2);
        let mut sent = 0;
        for _ in 0..20_000 {
            shard.begin_turn();
            shard.received(id, &input);
            if shard.take_lanes_due() {
                lanes[0].send(&mut shard, |_| sent += 1);
            }
        }
        assert!(sent > 1, "batches go before the end of a turn");
        assert_eq!(shard.metrics.lane_full_pauses, 0);
    }

    #[test]
    fn a_core_that_has_ended_holds_nobody_up() {
        let (mut shard, id, input) = sender();
        let mut lanes = mesh(2);
        let ended = lanes.pop();
        for _ in 0..LANE_BATCHES + 1 {
            shard.begin_turn();
            shard.received(id, &input);
            lanes[0].send(&mut shard, |_| ());
        }
        assert!(shard.has_batch(1), "a full lane keeps the batch");
        drop(ended);
        lanes[0].send(&mut shard, |to| panic!("core {to} has ended"));
        assert!(!shard.has_batch(1));
        assert_eq!(shard.metrics.lane_dropped, 1);
    }
}
