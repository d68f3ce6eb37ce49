//! The file table: full, freed again, and out of range.

mod harness;

use std::net::TcpStream;
use std::os::fd::AsFd;

use harness::{adopt, errno, listener, next, pair};
use iris_ring::{Completion, Ring, RingConfig, RingError};

fn small(slots: u32) -> Ring {
    let config = RingConfig {
        slots,
        ..RingConfig::default()
    };
    Ring::open(&config).expect("a ring")
}

#[test]
fn an_accept_into_a_full_table_ends_and_a_closed_slot_is_used_again() {
    let mut ring = small(2);
    let (listener, address) = listener();
    let _clients: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(address).expect("a connection"))
        .collect();
    ring.accept(listener.as_fd(), 1);
    let mut slots = Vec::new();
    let error = loop {
        match next(&mut ring) {
            Completion::Accepted { slot, .. } => slots.push(slot),
            Completion::AcceptEnded { error, .. } => break error,
            other => panic!("unexpected {other:?}"),
        }
    };
    slots.sort_unstable();
    assert_eq!(slots, [0, 1]);
    assert_eq!(error.raw_os_error(), Some(libc::ENFILE));
    ring.close(1, 2);
    assert!(matches!(
        next(&mut ring),
        Completion::Closed { result: Ok(()), .. }
    ));
    ring.accept(listener.as_fd(), 3);
    let _late = TcpStream::connect(address).expect("a connection");
    assert!(matches!(
        next(&mut ring),
        Completion::Accepted {
            slot: 1,
            token: 3,
            more: true
        }
    ));
}

#[test]
fn adopting_into_a_full_table_is_refused() {
    let mut ring = small(1);
    let (first, _peer) = pair();
    assert_eq!(adopt(&mut ring, first), 0);
    let (second, _peer) = pair();
    ring.adopt(second.into(), 5);
    let Completion::Adopted { token, result } = next(&mut ring) else {
        panic!("not an adoption");
    };
    assert_eq!((token, errno(&result)), (5, libc::ENFILE));
}

#[test]
fn an_empty_slot_answers_every_operation_with_an_error() {
    let mut ring = small(4);
    ring.recv(3, 1);
    ring.send(3, vec![0; 10], 0, 2);
    ring.close(3, 3);
    ring.outstanding(3, 4);
    ring.shutdown(3, 5);
    for _ in 0..5 {
        let error = match next(&mut ring) {
            Completion::ReceiveEnded { result, .. } => errno(&result),
            Completion::Sent { result, chunk, .. } => {
                assert_eq!(chunk.len(), 10);
                errno(&result)
            }
            Completion::Closed { result, .. } | Completion::ShutDown { result, .. } => {
                errno(&result)
            }
            Completion::Outstanding { result, .. } => errno(&result),
            other => panic!("unexpected {other:?}"),
        };
        assert_eq!(error, libc::EBADF);
    }
}

#[test]
#[should_panic(expected = "slot 4 of a table of 4")]
fn a_slot_outside_the_table_is_a_fault_of_ours() {
    small(4).close(4, 0);
}

#[test]
#[should_panic(expected = "slot 4294967295 of a table of 4")]
fn the_slot_that_would_overflow_is_caught() {
    small(4).close(u32::MAX, 0);
}

#[test]
fn a_table_beyond_the_limit_on_descriptors_says_what_to_do() {
    let config = RingConfig {
        slots: 1 << 21,
        ..RingConfig::default()
    };
    let error = Ring::open(&config).expect_err("more than 2^20 slots");
    assert!(matches!(error, RingError::Slots { .. }));
    assert!(error.to_string().contains("ulimit -n"), "{error}");
}
