//! A connection handed to another ring on another thread keeps its stream, however the target
//! waits: in the kernel for completions, on its notify eventfd, or not at all.

mod harness;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use harness::{PATIENCE, adopted_pair, errno, listener, next, pattern, ring};
use iris_ring::{Completion, Ring, RingConfig};
use rustix::event::{EventfdFlags, eventfd};

const WAKE: u64 = 1 << 40;
/// Each hello is the first byte of a stream, read by the ring that accepts.
const STREAM: usize = 200_000;

#[derive(Clone, Copy)]
enum Waits {
    InTheRing,
    OnTheEventfd,
    Never,
}

/// What the target tells the source: where to send connections, and how to wake it.
type Door = (RawFd, OwnedFd);

/// Echoes what is handed over to it, until `connections` have ended.
fn target(waits: Waits, connections: usize, door: &mpsc::Sender<Door>, lane: &mpsc::Receiver<u32>) {
    let mut ring = ring();
    let wake = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
    let notify = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
    ring.notify(notify.as_fd()).expect("none was registered");
    ring.watch(wake.as_fd(), WAKE);
    door.send((ring.fd(), wake.try_clone().expect("a descriptor")))
        .expect("a source that listens");
    let mut ended = 0;
    while ended < connections {
        ring.submit().expect("an entered ring");
        if ring.is_idle() {
            match waits {
                Waits::InTheRing => ring.submit_and_wait(PATIENCE).expect("an entered ring"),
                Waits::OnTheEventfd => {
                    rustix::io::read(&notify, &mut [0u8; 8][..]).expect("a notification");
                }
                Waits::Never => {}
            }
        }
        while let Some(completion) = ring.next() {
            match completion {
                Completion::Woken { result, .. } => {
                    result.expect("a count");
                    ring.watch(wake.as_fd(), WAKE);
                    for slot in lane.try_iter() {
                        ring.recv_multishot(slot, slot.into());
                    }
                }
                Completion::Received {
                    token,
                    buffer,
                    more,
                    ..
                } => {
                    let chunk = ring.bytes(&buffer).to_vec();
                    ring.recycle(buffer);
                    ring.send(token as u32, chunk, 0, token);
                    if !more {
                        ring.recv_multishot(token as u32, token);
                    }
                }
                Completion::ReceiveEnded { token, result } => match errno(&result) {
                    0 => ring.close(token as u32, token),
                    libc::ENOBUFS => ring.recv_multishot(token as u32, token),
                    other => panic!("ended by {other}"),
                },
                Completion::Sent { chunk, result, .. } => {
                    assert_eq!(result.expect("a peer that reads"), chunk.len());
                }
                Completion::Closed { .. } => ended += 1,
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

/// Sends a stream that begins before the hand-over and goes on through it.
fn client(address: SocketAddr) {
    let mut socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut writing = socket.try_clone().expect("a descriptor");
    let writer = thread::spawn(move || {
        writing.write_all(b"!").expect("a source that reads");
        for at in (0..STREAM).step_by(1000) {
            writing
                .write_all(&pattern(at as u64, 1000))
                .expect("a reader");
        }
    });
    let mut heard = vec![0; STREAM];
    socket.read_exact(&mut heard).expect("the echo");
    assert!(
        heard == pattern(0, STREAM),
        "the stream was broken by the hand-over"
    );
    writer.join().expect("a writer that was heard");
}

fn streams_survive(waits: Waits) {
    const CONNECTIONS: usize = 10;
    let (opened, door) = mpsc::channel();
    let (lane, arrivals) = mpsc::channel();
    let target = thread::spawn(move || target(waits, CONNECTIONS, &opened, &arrivals));
    let (target_ring, wake) = door.recv().expect("a target");
    // Time for the target to fall asleep.
    thread::sleep(Duration::from_millis(20));
    // One byte a buffer: the hello is read, what follows it stays in the socket.
    let mut ring = Ring::open(&RingConfig {
        buffer_bytes: 1,
        ..RingConfig::default()
    })
    .expect("a ring");
    let (listener, address) = listener();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| thread::spawn(move || client(address)))
        .collect();
    ring.accept(listener.as_fd(), WAKE);
    let mut left = CONNECTIONS;
    while left > 0 {
        match next(&mut ring) {
            Completion::Accepted { slot, .. } => ring.recv(slot, slot.into()),
            Completion::Received { token, buffer, .. } => {
                assert_eq!(ring.bytes(&buffer), b"!");
                ring.recycle(buffer);
                ring.hand_over(token as u32, target_ring, token);
            }
            Completion::HandedOver { token, result } => {
                ring.close(token as u32, token);
                lane.send(result.expect("a slot")).expect("a target");
                rustix::io::write(&wake, &1u64.to_ne_bytes()).expect("a wake");
            }
            Completion::Closed { result, .. } => {
                result.expect("an open slot");
                left -= 1;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    // The source is gone before the streams end.
    drop(ring);
    for client in clients {
        client.join().expect("a client that was content");
    }
    target.join().expect("a target that was content");
}

#[test]
fn to_a_target_asleep_in_its_ring() {
    streams_survive(Waits::InTheRing);
}

#[test]
fn to_a_target_asleep_on_its_eventfd() {
    streams_survive(Waits::OnTheEventfd);
}

#[test]
fn to_a_target_that_never_sleeps() {
    streams_survive(Waits::Never);
}

#[test]
fn a_full_target_refuses_and_the_socket_stays() {
    let mut full = Ring::open(&RingConfig {
        slots: 1,
        ..RingConfig::default()
    })
    .expect("a ring");
    let (_only, _peer) = adopted_pair(&mut full);
    let mut ring = ring();
    let (slot, mut peer) = adopted_pair(&mut ring);
    ring.hand_over(slot, full.fd(), 1);
    let Completion::HandedOver { result, .. } = next(&mut ring) else {
        panic!("not a hand-over");
    };
    assert_eq!(errno(&result), libc::ENFILE);
    assert!(full.next().is_none(), "the target hears nothing");
    ring.send(slot, b"still here".to_vec(), 0, 2);
    let _ = next(&mut ring);
    peer.read_exact(&mut [0; 10]).expect("the socket lives on");
}

#[test]
fn a_hand_over_to_something_else_is_refused() {
    let mut ring = ring();
    let (slot, _peer) = adopted_pair(&mut ring);
    let no_ring = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
    ring.hand_over(slot, std::os::fd::AsRawFd::as_raw_fd(&no_ring), 1);
    let Completion::HandedOver { result, .. } = next(&mut ring) else {
        panic!("not a hand-over");
    };
    assert_eq!(errno(&result), libc::EBADFD);
    let own = ring.fd();
    ring.hand_over(slot, own, 2);
    let Completion::HandedOver { result, .. } = next(&mut ring) else {
        panic!("not a hand-over");
    };
    assert_eq!(errno(&result), libc::EINVAL);
}

#[test]
fn the_target_hears_nothing_of_a_hand_over() {
    let mut target = ring();
    let mut ring = ring();
    let (slot, mut peer) = adopted_pair(&mut ring);
    ring.hand_over(slot, target.fd(), 1);
    let Completion::HandedOver { result, .. } = next(&mut ring) else {
        panic!("not a hand-over");
    };
    assert!(target.is_idle(), "a completion nobody asked for");
    let there = result.expect("a slot");
    target.send(there, b"from there".to_vec(), 0, 2);
    let _ = next(&mut target);
    peer.read_exact(&mut [0; 10])
        .expect("the socket lives there");
}
