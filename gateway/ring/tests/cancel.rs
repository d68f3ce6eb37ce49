//! Cancelling ends an operation and loses no byte; the asking itself is not reported.

mod harness;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use harness::{adopted_pair, errno, listener, next, pattern, quiet, ring};
use iris_ring::{Completion, Operation};

#[test]
fn a_multishot_receive_cancelled_amid_a_flood_loses_no_byte() {
    const TOTAL: u64 = 16 << 20;
    let mut ring = ring();
    let (slot, mut peer) = adopted_pair(&mut ring);
    let writer = thread::spawn(move || {
        let mut at = 0;
        while at < TOTAL {
            let len = 1 + (at % 4000) as usize;
            let len = len.min((TOTAL - at) as usize);
            peer.write_all(&pattern(at, len)).expect("a reader");
            at += len as u64;
        }
    });
    let (mut at, mut cancelled, mut events) = (0, 0, 0u64);
    ring.recv_multishot(slot, 9);
    while at < TOTAL {
        events += 1;
        if events % 7 == 0 {
            ring.cancel(Operation::Receive, 9);
        }
        match next(&mut ring) {
            Completion::Received {
                token,
                buffer,
                more,
                ..
            } => {
                assert_eq!(token, 9);
                let expected = pattern(at, buffer.len());
                assert!(ring.bytes(&buffer) == expected, "wrong bytes at {at}");
                at += buffer.len() as u64;
                ring.recycle(buffer);
                if !more {
                    ring.recv_multishot(slot, 9);
                }
            }
            Completion::ReceiveEnded { result, .. } => {
                match errno(&result) {
                    libc::ECANCELED => cancelled += 1,
                    libc::ENOBUFS => {}
                    other => panic!("ended by {other}"),
                }
                ring.recv_multishot(slot, 9);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(at, TOTAL);
    assert!(cancelled > 10, "the cancelling was not tried: {cancelled}");
    writer.join().expect("a writer that was heard");
}

#[test]
fn each_kind_of_waiting_operation_can_be_cancelled() {
    let mut ring = ring();
    let (listener, _) = listener();
    let wake = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).expect("an eventfd");
    let (slot, mut peer) = adopted_pair(&mut ring);
    ring.accept(listener.as_fd(), 1);
    ring.recv(slot, 2);
    ring.watch(wake.as_fd(), 3);
    let mut taken = 0;
    ring.send(slot, vec![1; 64 << 20], 0, 4);
    // Until the socket is full and the send waits.
    while let Some(completion) = quiet(&mut ring, Duration::from_millis(100)) {
        let Completion::Sent { chunk, result, .. } = completion else {
            panic!("not the send");
        };
        taken += result.expect("a part");
        ring.send(slot, chunk, taken, 4);
    }
    ring.cancel(Operation::Accept, 1);
    ring.cancel(Operation::Receive, 2);
    ring.cancel(Operation::Watch, 3);
    ring.cancel(Operation::Send, 4);
    // None of these exists: no completion comes of them either.
    ring.cancel(Operation::Receive, 77);
    ring.cancel(Operation::Send, 77);
    for _ in 0..4 {
        let (token, error) = match next(&mut ring) {
            Completion::AcceptEnded { token, error } => (token, error.raw_os_error()),
            Completion::ReceiveEnded { token, result } => (token, Some(errno(&result))),
            Completion::Woken { token, result } => (token, Some(errno(&result))),
            Completion::Sent {
                token,
                result,
                chunk,
            } => {
                assert_eq!(chunk.len(), 64 << 20, "the chunk comes back whole");
                (token, Some(errno(&result)))
            }
            other => panic!("unexpected {other:?}"),
        };
        assert_eq!(error, Some(libc::ECANCELED), "token {token}");
    }
    let silent = quiet(&mut ring, Duration::from_millis(50));
    assert!(silent.is_none(), "{silent:?}");
    // What the cancelled send had not counted did not go out.
    ring.close(slot, 5);
    let _ = next(&mut ring);
    let mut heard = Vec::new();
    peer.read_to_end(&mut heard).expect("an orderly end");
    assert_eq!(heard.len(), taken);
}

#[test]
fn everything_on_a_slot_ends_and_nothing_on_another() {
    let mut ring = ring();
    let (slot, _peer) = adopted_pair(&mut ring);
    let (other, mut other_peer) = adopted_pair(&mut ring);
    ring.recv_multishot(slot, 1);
    ring.recv_multishot(other, 2);
    // Short sends fill the socket; the last one waits.
    loop {
        ring.send(slot, vec![0; 32 << 20], 0, 3);
        match quiet(&mut ring, Duration::from_millis(100)) {
            Some(Completion::Sent { result, .. }) => assert!(result.expect("bytes") > 0),
            Some(other) => panic!("{other:?}"),
            None => break,
        }
    }
    ring.poll(slot, 4);
    ring.cancel_all(slot);
    let mut ended = Vec::new();
    while let Some(completion) = quiet(&mut ring, Duration::from_millis(100)) {
        let (token, code) = match completion {
            Completion::ReceiveEnded { token, result } => (token, errno(&result)),
            Completion::Sent { token, result, .. } => (token, errno(&result)),
            Completion::Polled { token, result } => (token, errno(&result)),
            other => panic!("{other:?}"),
        };
        assert_eq!(code, libc::ECANCELED);
        ended.push(token);
    }
    ended.sort_unstable();
    assert_eq!(ended, [1, 3, 4]);
    other_peer.write_all(b"on").expect("connected");
    match next(&mut ring) {
        Completion::Received {
            token: 2, buffer, ..
        } => ring.recycle(buffer),
        other => panic!("{other:?}"),
    }
}
