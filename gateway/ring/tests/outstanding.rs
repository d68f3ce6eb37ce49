//! Bytes the peer's TCP has not acknowledged: asked of a live socket, after FIN and after RST.

mod harness;

use std::io::Read;
use std::net::Shutdown;
use std::time::Duration;

use harness::{adopted_pair, next, quiet};
use iris_ring::{Completion, Ring};

fn outstanding(ring: &mut Ring, slot: u32) -> u32 {
    ring.outstanding(slot, 1);
    match next(ring) {
        Completion::Outstanding { result, .. } => result.expect("a socket"),
        other => panic!("unexpected {other:?}"),
    }
}

/// Sends until the socket is full; answers how much it took. The last send is cancelled.
fn fill(ring: &mut Ring, slot: u32) -> usize {
    let mut taken = 0;
    ring.send(slot, vec![1; 64 << 20], 0, 2);
    while let Some(completion) = quiet(ring, Duration::from_millis(100)) {
        let Completion::Sent { chunk, result, .. } = completion else {
            panic!("not the send");
        };
        taken += result.expect("a part");
        ring.send(slot, chunk, taken, 2);
    }
    ring.cancel(iris_ring::Operation::Send, 2);
    let _ = next(ring);
    taken
}

#[test]
fn nothing_is_outstanding_once_the_peer_has_it() {
    let mut ring = harness::ring();
    let (slot, mut peer) = adopted_pair(&mut ring);
    ring.send(slot, b"hello".to_vec(), 0, 2);
    let _ = next(&mut ring);
    peer.read_exact(&mut [0; 5]).expect("hello");
    assert_eq!(outstanding(&mut ring, slot), 0);
}

#[test]
fn a_peer_that_does_not_read_leaves_bytes_outstanding_also_after_its_fin() {
    let mut ring = harness::ring();
    let (slot, mut peer) = adopted_pair(&mut ring);
    let taken = fill(&mut ring, slot);
    let before = outstanding(&mut ring, slot) as usize;
    assert!(before > 0 && before < taken, "{before} of {taken}");
    peer.shutdown(Shutdown::Write).expect("an open socket");
    ring.recv(slot, 3);
    assert!(matches!(
        next(&mut ring),
        Completion::ReceiveEnded { result: Ok(()), .. }
    ));
    assert_eq!(outstanding(&mut ring, slot) as usize, before);
    // Once it reads, all are acknowledged.
    let mut heard = vec![0; taken];
    peer.read_exact(&mut heard).expect("what was taken");
    assert_eq!(outstanding(&mut ring, slot), 0);
}

#[test]
fn a_reset_leaves_the_count_to_be_asked_for() {
    let mut ring = harness::ring();
    let (slot, peer) = adopted_pair(&mut ring);
    let taken = fill(&mut ring, slot);
    let before = outstanding(&mut ring, slot) as usize;
    // Closed with bytes unread: TCP answers with a reset.
    drop(peer);
    ring.recv(slot, 3);
    let Completion::ReceiveEnded { result, .. } = next(&mut ring) else {
        panic!("not an end");
    };
    assert_eq!(harness::errno(&result), libc::ECONNRESET);
    let after = outstanding(&mut ring, slot) as usize;
    assert!(
        after > 0 && after <= before,
        "{after} of {before}, {taken} taken"
    );
}
