//! On the online path, in the steady state, a message costs no allocation: its
//! bytes go from the receive buffer into a chunk that is used again and again.

#[path = "support/bare_shard.rs"]
mod bare_shard;

use bare_shard::BareShard;

#[test]
fn an_online_message_allocates_nothing_in_the_steady_state() {
    let mut bare = BareShard::new(1_000);
    for _ in 0..200 {
        bare.turn(1_000);
    }
    let before = bare.delivered();
    let counted = allocation_counter::measure(|| {
        for _ in 0..640 {
            bare.turn(1_000);
        }
    });
    let messages = bare.delivered() - before;
    assert!(
        messages >= 600_000,
        "only {messages} messages were delivered"
    );
    assert_eq!(
        counted.count_total, 0,
        "{} allocations for {messages} messages",
        counted.count_total
    );
}
