//! Many connections echoed through multishot accept, multishot receive and owned chunks.

mod harness;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::thread;

use harness::{PATIENCE, adopted_pair, listener, next, pattern, quiet, ring};
use iris_ring::{Completion, Ring};

const ACCEPT: u64 = 1 << 40;

/// Echoes until `connections` of them have ended.
fn echo(ring: &mut Ring, connections: usize) {
    let mut ended = 0;
    let mut waiting: HashMap<u64, Vec<u8>> = HashMap::new();
    let mut sending: HashMap<u64, bool> = HashMap::new();
    while ended < connections {
        match next(ring) {
            Completion::Accepted { slot, more, token } => {
                assert_eq!((token, more), (ACCEPT, true));
                ring.recv_multishot(slot, slot.into());
            }
            Completion::Received {
                token,
                buffer,
                more,
                ..
            } => {
                waiting
                    .entry(token)
                    .or_default()
                    .extend_from_slice(ring.bytes(&buffer));
                ring.recycle(buffer);
                if !more {
                    ring.recv_multishot(token as u32, token);
                }
            }
            // Every buffer was lent; by now some are back.
            Completion::ReceiveEnded {
                token,
                result: Err(error),
            } => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
                ring.recv_multishot(token as u32, token);
            }
            Completion::ReceiveEnded {
                token,
                result: Ok(()),
            } => ring.close(token as u32, token),
            Completion::Sent {
                token,
                chunk,
                result,
            } => {
                let sent = result.expect("a peer that reads");
                sending.insert(token, false);
                waiting
                    .entry(token)
                    .or_default()
                    .splice(..0, chunk[sent..].iter().copied());
            }
            Completion::Closed { result, .. } => {
                result.expect("an open slot");
                ended += 1;
            }
            other => panic!("unexpected {other:?}"),
        }
        for (&token, bytes) in &mut waiting {
            if !bytes.is_empty() && !sending.get(&token).copied().unwrap_or(false) {
                ring.send(token as u32, std::mem::take(bytes), 0, token);
                sending.insert(token, true);
            }
        }
    }
}

fn client(address: SocketAddr, rounds: usize) {
    let mut socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut at = 0;
    for round in 0..rounds {
        let bytes = pattern(at, 1 + round * 997 % 20_000);
        at += bytes.len() as u64;
        socket.write_all(&bytes).expect("an open socket");
        let mut back = vec![0; bytes.len()];
        socket.read_exact(&mut back).expect("the echo");
        assert!(back == bytes, "the echo differs in round {round}");
    }
}

#[test]
fn every_byte_comes_back() {
    let (listener, address) = listener();
    let clients: Vec<_> = (0..20)
        .map(|_| thread::spawn(move || client(address, 50)))
        .collect();
    let mut ring = ring();
    ring.accept(listener.as_fd(), ACCEPT);
    echo(&mut ring, clients.len());
    for client in clients {
        client.join().expect("a client that was content");
    }
}

#[test]
fn several_chunks_go_out_in_one_send_from_an_offset_in_the_first() {
    let mut ring = ring();
    let (slot, mut peer) = adopted_pair(&mut ring);
    for round in 0..3 {
        let chunks: Vec<Rc<Vec<u8>>> = [&b"skipped, then "[..], b"", b"all ", b"of it"]
            .map(|bytes| Rc::new(bytes.to_vec()))
            .into();
        ring.send_all(slot, chunks.iter().cloned(), 9, round);
        let Completion::SentAll { token, result } = next(&mut ring) else {
            panic!("not a send of several");
        };
        assert_eq!((token, result.expect("room")), (round, 14));
        assert!(chunks.iter().all(|chunk| Rc::strong_count(chunk) == 1));
        let mut said = [0; 14];
        peer.read_exact(&mut said).expect("what was sent");
        assert_eq!(&said, b"then all of it");
    }
}

#[test]
fn a_chunk_is_sent_from_its_offset_and_comes_back_whole() {
    let mut ring = ring();
    let (slot, mut peer) = adopted_pair(&mut ring);
    ring.send(slot, b"skipped, then sent".to_vec(), 14, 3);
    let Completion::Sent {
        token,
        chunk,
        result,
    } = next(&mut ring)
    else {
        panic!("not a send");
    };
    assert_eq!((token, result.expect("room")), (3, 4));
    assert_eq!(chunk.as_slice(), b"skipped, then sent");
    ring.close(slot, 4);
    assert!(matches!(
        next(&mut ring),
        Completion::Closed {
            token: 4,
            result: Ok(())
        }
    ));
    let mut all = Vec::new();
    peer.read_to_end(&mut all).expect("an orderly end");
    assert_eq!(all, b"sent");
}

#[test]
fn a_single_receive_takes_once_and_no_more() {
    let mut ring = ring();
    let (slot, mut peer) = adopted_pair(&mut ring);
    ring.recv(slot, 1);
    peer.write_all(b"one").expect("an open socket");
    let Completion::Received { buffer, more, .. } = next(&mut ring) else {
        panic!("not a receive");
    };
    assert_eq!(
        (ring.bytes(&buffer), buffer.len(), more),
        (&b"one"[..], 3, false)
    );
    ring.recycle(buffer);
    peer.write_all(b"two").expect("an open socket");
    let silent = quiet(&mut ring, std::time::Duration::from_millis(50));
    assert!(silent.is_none(), "{silent:?}");
    ring.recv(slot, 2);
    let Completion::Received { buffer, .. } = next(&mut ring) else {
        panic!("not a receive");
    };
    assert_eq!(ring.bytes(&buffer), b"two");
    ring.recycle(buffer);
}

#[test]
fn shutdown_ends_receives_and_blocked_sends() {
    let mut ring = ring();
    let (slot, _peer) = adopted_pair(&mut ring);
    ring.recv_multishot(slot, 1);
    ring.send(slot, vec![0; 64 << 20], 0, 2);
    // The socket takes a part; the rest of the chunk finds it full and waits.
    let Completion::Sent { chunk, result, .. } = next(&mut ring) else {
        panic!("not a send");
    };
    let sent = result.expect("a part");
    assert!(sent < chunk.len());
    ring.send(slot, chunk, sent, 2);
    let blocked = quiet(&mut ring, std::time::Duration::from_millis(50));
    if let Some(Completion::Sent { chunk, .. }) = blocked {
        // Loopback moved a little more before it was full.
        ring.send(slot, chunk, sent, 2);
        let _ = quiet(&mut ring, std::time::Duration::from_millis(50));
    }
    ring.shutdown(slot, 3);
    let mut seen = [false; 3];
    while seen != [true; 3] {
        match next(&mut ring) {
            Completion::ReceiveEnded { result, .. } => {
                result.expect("an orderly end");
                seen[0] = true;
            }
            Completion::Sent { result, .. } => {
                assert_eq!(harness::errno(&result), libc::EPIPE);
                seen[1] = true;
            }
            Completion::ShutDown { result, .. } => {
                result.expect("a connected socket");
                seen[2] = true;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}
