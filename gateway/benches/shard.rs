//! What the shard alone costs to take a message in, find its reader and put it out,
//! without the kernel: `cargo bench -p iris-gateway`. The counter shows messages a
//! second; a message is received, decoded, routed, delivered, sent and acknowledged.

#[path = "../tests/support/bare_shard.rs"]
mod bare_shard;

#[path = "../tests/support/bare_framed.rs"]
mod bare_framed;

use bare_framed::{BareFramed, SENDS};
use bare_shard::BareShard;
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

const MESSAGES_MAX: usize = 10_000;

#[divan::bench(args = [200, 1_000, 10_000, 100_000])]
fn route(bencher: Bencher, users: usize) {
    let mut bare = BareShard::new(users, 64);
    measure(bencher, users, |messages| {
        bare.turn(messages);
        bare.delivered()
    });
}

/// The same with framed users, who acknowledge and are answered; what writes their frames is
/// measured with it.
#[divan::bench(args = [200, 1_000, 10_000])]
fn route_framed(bencher: Bencher, users: usize) {
    let mut bare = BareFramed::new(users);
    measure(bencher, users, |messages| {
        bare.turn(messages);
        bare.delivered()
    });
}

/// Measures turns, in each of which a sender says no more than one with sixteen messages in flight
/// does: a connection's share of a turn is not used up. A turn says how many were delivered so far.
fn measure(bencher: Bencher, users: usize, mut turn: impl FnMut(usize) -> u64) {
    let messages = MESSAGES_MAX.min(users * SENDS);
    let mut delivered = 0;
    // Until even the last session was asked for what its peer has.
    for _ in 0..200 * users / messages {
        delivered = turn(messages);
    }
    assert!(delivered > 0, "nothing was routed");
    bencher
        .counter(ItemsCount::new(messages))
        .bench_local(|| turn(messages));
}
