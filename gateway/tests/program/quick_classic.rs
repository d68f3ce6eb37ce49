//! Classic readers that keep up get their messages from memory, whatever their length: none takes the way
//! through the store.

use std::thread;

use crate::support::{Classic, Gateway, send_classic};

/// Messages of one reader that are under way at a time.
const IN_FLIGHT: usize = 16;

#[test]
fn quick_classic_readers_are_not_spilled() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let lengths = [0, 8, 1_000, 16 << 10, 65_535];
    thread::scope(|scope| {
        for (pair, len) in lengths.into_iter().enumerate() {
            scope.spawn(move || {
                let reader = format!("reader{pair}");
                let mut bob = Classic::login(at, &reader);
                let mut alice = Classic::login(at, &format!("sender{pair}"));
                let message = vec![b'.'; len];
                // Its sender's core may be another one, which is told of a login by what comes after.
                alice.send(&reader, b"warm");
                bob.reads_exactly(b"warm");
                for _ in 0..100 {
                    let mut out = Vec::new();
                    (0..IN_FLIGHT).for_each(|_| send_classic(&mut out, &reader, &message));
                    alice.say(&out);
                    assert_eq!(bob.read(IN_FLIGHT * len).len(), IN_FLIGHT * len);
                }
                alice.leave();
                bob.leave();
            });
        }
    });
    let sent = 100 * IN_FLIGHT as u64 * lengths.len() as u64;
    let metrics = gateway.metrics_when("all delivered", |metrics| {
        metrics.sum("iris_messages_delivered_total") >= sent
    });
    assert_eq!(metrics.sum("iris_messages_spilled_total"), 0);
    // The first ones may have met the end of a login.
    let stored = metrics.sum("iris_messages_stored_total");
    assert!(stored <= lengths.len() as u64, "{stored} were stored");
}
