//! Dropping a ring with operations in flight: it waits for the kernel, frees nothing the kernel
//! still writes to, and closes the sockets then and there.

mod harness;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use harness::{adopted_pair, listener};
use iris_ring::{Ring, RingConfig};
use rustix::event::{EventfdFlags, eventfd};

#[test]
fn everything_in_flight_ends_with_the_ring() {
    let (listener, _) = listener();
    let wake = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
    let other = harness::ring();
    let mut ring = harness::ring();
    let (slots, mut peers): (Vec<_>, Vec<_>) = (0..20).map(|_| adopted_pair(&mut ring)).unzip();
    ring.accept(listener.as_fd(), 1);
    ring.watch(wake.as_fd(), 2);
    for slot in slots {
        ring.recv_multishot(slot, slot.into());
        ring.send(slot, vec![0; 8 << 20], 0, slot.into());
    }
    ring.submit().expect("an entered ring");
    // Queued and never submitted by us:
    ring.send(0, vec![0; 1 << 20], 0, 99);
    ring.hand_over(1, other.fd(), 100);
    let began = Instant::now();
    drop(ring);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "cancelling took {took:?}");
    for (n, peer) in peers.iter_mut().enumerate().skip(2) {
        peer.set_nonblocking(true).expect("a socket");
        let mut sink = [0; 65536];
        let ended = loop {
            match peer.read(&mut sink) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != ErrorKind::WouldBlock,
            }
        };
        assert!(ended, "peer {n} was not told before the drop returned");
    }
}

#[test]
fn memory_freed_by_a_drop_is_not_written_by_the_kernel_later() {
    for round in 0..20 {
        let config = RingConfig {
            slots: 64,
            buffer_count: 1024,
            buffer_bytes: 4096,
            ..RingConfig::default()
        };
        let mut ring = Ring::open(&config).expect("a ring");
        let mut peers = Vec::new();
        for n in 0..32 {
            let (slot, peer) = adopted_pair(&mut ring);
            ring.recv_multishot(slot, n);
            peers.push(peer);
        }
        ring.submit().expect("an entered ring");
        // Bytes arrive that nobody has reaped.
        for peer in &mut peers {
            peer.write_all(&[0xff; 10_000]).expect("room");
        }
        drop(ring);
        // Most likely mapped where the receive buffers were.
        let canary = vec![0x5au8; 1024 * 4096 + 16384];
        for peer in &mut peers {
            // The socket is gone: whatever the answer, no byte may land here.
            let _ = peer.write_all(&[0xff; 10_000]);
        }
        std::thread::sleep(Duration::from_millis(5));
        assert!(canary.iter().all(|&byte| byte == 0x5a), "round {round}");
    }
}
