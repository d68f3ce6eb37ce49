//! What the shard alone costs to take a message in, find its reader and put it out,
//! without the kernel: `cargo bench -p iris-gateway`. The counter shows messages a
//! second; a message is received, decoded, routed, delivered, sent and acknowledged.

#[path = "../tests/support/bare_shard.rs"]
mod bare_shard;

use bare_shard::BareShard;
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

const MESSAGES: usize = 10_000;

#[divan::bench(args = [200, 1_000, 10_000, 100_000])]
fn route(bencher: Bencher, users: usize) {
    let mut bare = BareShard::new(users);
    // Until even the last session was asked for what its peer has.
    bare.turn(200 * users);
    assert!(bare.delivered() > 0, "nothing was routed");
    bencher
        .counter(ItemsCount::new(MESSAGES))
        .bench_local(|| bare.turn(MESSAGES));
}
