//! One submit gathers what is ready up to a batch, and no more than the buffers can bear: the
//! owner's turns are as large as the load is, however few the kernel runs at a time.

mod harness;

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use harness::adopted_pair;
use iris_ring::{Completion, Ring, RingConfig};

const CONNECTIONS: usize = 100;

/// A ring whose connections all have a byte to be received.
fn all_ready(buffer_count: u16) -> (Ring, Vec<TcpStream>) {
    let mut ring = Ring::open(&RingConfig {
        buffer_count,
        ..RingConfig::default()
    })
    .expect("a ring");
    let (slots, mut peers): (Vec<_>, Vec<_>) =
        (0..CONNECTIONS).map(|_| adopted_pair(&mut ring)).unzip();
    for slot in slots {
        ring.recv_multishot(slot, slot.into());
    }
    ring.submit().expect("an entered ring");
    for peer in &mut peers {
        peer.write_all(b"x").expect("room");
    }
    thread::sleep(Duration::from_millis(20));
    (ring, peers)
}

fn reap(ring: &mut Ring) -> usize {
    let mut count = 0;
    while let Some(completion) = ring.next() {
        let Completion::Received { buffer, .. } = completion else {
            panic!("unexpected {completion:?}");
        };
        ring.recycle(buffer);
        count += 1;
    }
    count
}

#[test]
fn one_submit_gathers_all_that_is_ready() {
    let (mut ring, _peers) = all_ready(256);
    ring.submit().expect("an entered ring");
    assert_eq!(reap(&mut ring), CONNECTIONS);
    assert!(ring.is_idle());
}

#[test]
fn one_wait_gathers_all_that_is_ready() {
    let (mut ring, _peers) = all_ready(256);
    ring.submit_and_wait(harness::PATIENCE)
        .expect("an entered ring");
    assert_eq!(reap(&mut ring), CONNECTIONS);
}

#[test]
fn a_batch_leaves_buffers_for_what_comes_meanwhile() {
    let (mut ring, _peers) = all_ready(64);
    let mut left = CONNECTIONS;
    while left > 0 {
        ring.submit_and_wait(harness::PATIENCE)
            .expect("an entered ring");
        let count = reap(&mut ring);
        assert!(
            (1..64).contains(&count),
            "{count} of 64 buffers lent at once"
        );
        left -= count;
    }
}
