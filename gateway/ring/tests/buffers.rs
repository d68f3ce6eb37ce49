//! Running out of receive buffers loses nothing; queues that overflow lose nothing.

mod harness;

use std::io::Write;
use std::thread;

use harness::{adopted_pair, next, pattern};
use iris_ring::{Completion, Ring, RingConfig};

#[test]
fn without_buffers_a_receive_ends_and_goes_on_when_armed_again() {
    let config = RingConfig {
        buffer_count: 2,
        buffer_bytes: 100,
        ..RingConfig::default()
    };
    let mut ring = Ring::open(&config).expect("a ring");
    let (slot, mut peer) = adopted_pair(&mut ring);
    peer.write_all(&pattern(0, 1000)).expect("room");
    ring.recv_multishot(slot, 1);
    let (mut lent, mut seen, mut starved) = (Vec::new(), Vec::new(), 0);
    while seen.len() < 1000 {
        match next(&mut ring) {
            Completion::Received { buffer, more, .. } => {
                seen.extend_from_slice(ring.bytes(&buffer));
                lent.push(buffer);
                assert!(lent.len() <= 2, "more buffers than there are");
                if !more {
                    ring.recv_multishot(slot, 1);
                }
            }
            Completion::ReceiveEnded { result, .. } => {
                assert_eq!(harness::errno(&result), libc::ENOBUFS);
                assert_eq!(lent.len(), 2, "starved with a buffer to spare");
                starved += 1;
                lent.drain(..).for_each(|buffer| ring.recycle(buffer));
                ring.recv_multishot(slot, 1);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(starved >= 4, "1000 bytes through 2 x 100 starve: {starved}");
    assert!(
        seen == pattern(0, 1000),
        "bytes were lost, repeated or reordered"
    );
}

#[test]
fn a_full_buffer_tells_whether_the_socket_held_more() {
    let config = RingConfig {
        buffer_count: 8,
        buffer_bytes: 64,
        ..RingConfig::default()
    };
    let mut ring = Ring::open(&config).expect("a ring");
    let (slot, mut peer) = adopted_pair(&mut ring);
    for (written, expected) in [
        (10, vec![(10, false)]),
        (64, vec![(64, false)]),
        (65, vec![(64, true), (1, false)]),
        (200, vec![(64, true), (64, true), (64, true), (8, false)]),
    ] {
        peer.write_all(&pattern(0, written)).expect("room");
        let mut seen = Vec::new();
        while seen.iter().map(|(len, _)| len).sum::<usize>() < written {
            ring.recv(slot, 1);
            match next(&mut ring) {
                Completion::Received { buffer, cut, .. } => {
                    seen.push((buffer.len(), cut));
                    ring.recycle(buffer);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(seen, expected);
    }
}

#[test]
fn lent_buffers_keep_their_bytes_while_others_are_filled() {
    let config = RingConfig {
        buffer_count: 8,
        buffer_bytes: 64,
        ..RingConfig::default()
    };
    let mut ring = Ring::open(&config).expect("a ring");
    let (slot, mut peer) = adopted_pair(&mut ring);
    ring.recv_multishot(slot, 1);
    peer.write_all(&[0xaa; 64]).expect("room");
    let Completion::Received { buffer: kept, .. } = next(&mut ring) else {
        panic!("not a receive");
    };
    let writer = thread::spawn(move || {
        for _ in 0..1000 {
            peer.write_all(&[0x55; 64]).expect("room");
        }
    });
    let mut more_to_come = 64 * 1000;
    while more_to_come > 0 {
        match next(&mut ring) {
            Completion::Received { buffer, more, .. } => {
                more_to_come -= buffer.len();
                ring.recycle(buffer);
                if !more {
                    ring.recv_multishot(slot, 1);
                }
            }
            Completion::ReceiveEnded { .. } => ring.recv_multishot(slot, 1),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(ring.bytes(&kept), [0xaa; 64]);
    ring.recycle(kept);
    writer.join().expect("a writer that was heard");
}

#[test]
fn more_operations_than_either_queue_holds_all_complete() {
    let config = RingConfig {
        submission_entries: 8,
        completion_entries: 8,
        ..RingConfig::default()
    };
    let mut ring = Ring::open(&config).expect("a ring");
    let (slot, _peer) = adopted_pair(&mut ring);
    for token in 0..2000 {
        ring.outstanding(slot, token);
    }
    let mut seen = vec![false; 2000];
    for _ in 0..2000 {
        match next(&mut ring) {
            Completion::Outstanding { token, result } => {
                assert_eq!(result.expect("a socket"), 0);
                assert!(
                    !std::mem::replace(&mut seen[token as usize], true),
                    "answered twice"
                );
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(ring.is_idle());
}
