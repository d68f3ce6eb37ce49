//! On the online path, in the steady state, a message costs no allocation: its
//! bytes go from the receive buffer into a chunk that is used again and again.

#[path = "support/bare_shard.rs"]
mod bare_shard;

use bare_shard::BareShard;

#[test]
fn an_online_message_allocates_nothing_in_the_steady_state() {
    allocates_nothing(1_000, 64);
}

#[test]
fn nor_does_a_long_one() {
    for message_bytes in [16 << 10, 65_535] {
        allocates_nothing(64, message_bytes);
    }
}

/// As many messages in a turn as there are users.
fn allocates_nothing(users: usize, message_bytes: usize) {
    let mut bare = BareShard::new(users, message_bytes);
    for _ in 0..200 {
        bare.turn(users);
    }
    let before = bare.delivered();
    let counted = allocation_counter::measure(|| {
        for _ in 0..640 {
            bare.turn(users);
        }
    });
    let messages = bare.delivered() - before;
    assert!(
        messages >= 600 * users as u64,
        "only {messages} messages were delivered"
    );
    assert_eq!(
        counted.count_total, 0,
        "{} allocations for {messages} messages",
        counted.count_total
    );
}
