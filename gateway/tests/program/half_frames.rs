//! Many clients whose frames have come by half, together more than the memory for input carries: each is read on when
//! there is room, and none is closed as long as it goes on itself.

use iris_protocol::Outcome;
use iris_protocol::framed::encode;

use crate::support::{Framed, Gateway};

const CLIENTS: usize = 128;
const PAYLOAD_BYTES: usize = 64 << 10;
const INPUT: &str = "8MiB";

#[test]
fn half_frames_beyond_the_budget_are_completed_all_of_them() {
    let gateway = Gateway::serving(&["--input-bytes-max", INPUT]);
    let frames: Vec<Vec<u8>> = (0..CLIENTS)
        .map(|client| {
            let mut frame = Vec::new();
            let target = format!("away-{client}");
            let payload = vec![client as u8; PAYLOAD_BYTES];
            encode::send(&mut frame, 1, 0, target.as_bytes(), &payload);
            frame
        })
        .collect();
    let mut clients: Vec<Framed> = (0..CLIENTS)
        .map(|client| Framed::login(gateway.address(), &format!("client-{client}")))
        .collect();
    for (client, frame) in clients.iter_mut().zip(&frames) {
        client.say(&frame[..PAYLOAD_BYTES / 2]);
    }
    // Each says the rest although nobody has been answered.
    for (client, frame) in clients.iter_mut().zip(&frames) {
        // One that was closed cannot; the counters below say why.
        let _ = client.try_say(&frame[PAYLOAD_BYTES / 2..]);
    }
    let metrics = gateway.metrics_when("each is stored or closed", |metrics| {
        let stored = metrics.sum("iris_messages_stored_total");
        stored + metrics.closed_in_all() >= CLIENTS as u64
    });
    assert_eq!(metrics.closed("overloaded"), 0);
    assert_eq!(metrics.closed_in_all(), 0);
    for client in &mut clients {
        assert_eq!(client.outcome(1), Outcome::Stored);
    }
    for client in 0..CLIENTS {
        let mut reader = Framed::login(gateway.address(), &format!("away-{client}"));
        let payload = reader.takes().payload;
        assert!(payload == vec![client as u8; PAYLOAD_BYTES], "{client}");
        reader.leave();
    }
}
