//! A peer that resets its connection: what it said before is received, and its end is found whatever
//! the receive says of it.

mod harness;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use harness::{adopted_pair, errno, next, quiet};
use iris_ring::{Completion, Operation, Ring, RingConfig};

/// More than the kernel receives in one go, in buffers of 1 KiB.
const MUCH: usize = 64 << 10;

fn ring() -> Ring {
    let config = RingConfig {
        buffer_count: 256,
        buffer_bytes: 1024,
        ..RingConfig::default()
    };
    Ring::open(&config).expect("a ring")
}

fn reset(peer: TcpStream) {
    let at_once = Some(Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(&peer, at_once).expect("a socket");
    drop(peer);
    // Loopback delivers it while the peer is closed.
    std::thread::sleep(Duration::from_millis(5));
}

/// Receives all there is: the bytes, and the error that the receive ended with, if it did.
fn drain(ring: &mut Ring) -> (usize, Option<i32>) {
    let (mut bytes, mut end) = (0, None);
    while let Some(completion) = quiet(ring, Duration::from_millis(100)) {
        match completion {
            Completion::Received { buffer, .. } => {
                bytes += buffer.len();
                ring.recycle(buffer);
            }
            Completion::ReceiveEnded { result, .. } => end = Some(errno(&result)),
            other => panic!("{other:?}"),
        }
    }
    (bytes, end)
}

fn has_ended(ring: &mut Ring, slot: u32) -> bool {
    ring.poll(slot, 9);
    match next(ring) {
        Completion::Polled { token: 9, result } => result.expect("a socket"),
        other => panic!("no answer to a poll: {other:?}"),
    }
}

#[test]
fn an_end_that_the_receive_does_not_tell_is_found() {
    let mut ring = ring();
    let (slot, mut peer) = adopted_pair(&mut ring);
    assert!(!has_ended(&mut ring, slot));
    peer.write_all(&vec![7; MUCH]).expect("room");
    reset(peer);
    ring.recv_multishot(slot, 1);
    let (bytes, end) = drain(&mut ring);
    assert_eq!(bytes, MUCH, "what was said before the reset is received");
    assert!(has_ended(&mut ring, slot));
    // Kernels that tell it at once need no more.
    if end.is_none() {
        ring.cancel(Operation::Receive, 1);
        assert_eq!(drain(&mut ring), (0, Some(libc::ECANCELED)));
        ring.recv_multishot(slot, 2);
        assert_eq!(drain(&mut ring), (0, Some(libc::ECONNRESET)));
    }
}

#[test]
fn a_half_close_is_no_end() {
    let mut ring = ring();
    let (slot, peer) = adopted_pair(&mut ring);
    peer.shutdown(std::net::Shutdown::Write).expect("connected");
    assert!(!has_ended(&mut ring, slot));
    ring.shutdown_write(slot, 2);
    assert!(matches!(next(&mut ring), Completion::ShutDown { .. }));
    assert!(has_ended(&mut ring, slot));
}

#[test]
fn a_poll_of_a_socket_that_takes_no_bytes_waits_and_can_be_cancelled() {
    let mut ring = ring();
    let (slot, _peer) = adopted_pair(&mut ring);
    // Short sends fill it up; the last one waits.
    loop {
        ring.send(slot, vec![0; 32 << 20], 0, 1);
        match quiet(&mut ring, Duration::from_millis(100)) {
            Some(Completion::Sent { result, .. }) => assert!(result.expect("bytes") > 0),
            Some(other) => panic!("{other:?}"),
            None => break,
        }
    }
    ring.poll(slot, 2);
    assert!(quiet(&mut ring, Duration::from_millis(100)).is_none());
    ring.cancel(Operation::Poll, 2);
    match next(&mut ring) {
        Completion::Polled { token: 2, result } => assert_eq!(errno(&result), libc::ECANCELED),
        other => panic!("{other:?}"),
    }
}
