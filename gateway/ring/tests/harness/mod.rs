//! What the ring's tests share: a bounded wait for completions, and sockets on loopback.
//!
//! Invariant: nothing here waits longer than [`PATIENCE`], so a lost completion fails its test
//! instead of hanging it.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use iris_ring::{Completion, Ring, RingConfig};

/// How long a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A small ring.
pub fn ring() -> Ring {
    Ring::open(&RingConfig::default()).expect("a ring")
}

/// The next completion.
pub fn next(ring: &mut Ring) -> Completion {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(completion) = ring.next() {
            return completion;
        }
        assert!(Instant::now() < deadline, "no completion in time: {ring:?}");
        ring.submit_and_wait(Duration::from_millis(100))
            .expect("an entered ring");
    }
}

/// Whatever completes within a time that nothing should.
pub fn quiet(ring: &mut Ring, time: Duration) -> Option<Completion> {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        ring.submit_and_wait(Duration::from_millis(10))
            .expect("an entered ring");
        if let Some(completion) = ring.next() {
            return Some(completion);
        }
    }
    None
}

/// A listener on a free port of loopback.
pub fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// Two ends of a connection; the second with patience.
pub fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listener();
    let theirs = TcpStream::connect(address).expect("a connection");
    let (ours, _) = listener.accept().expect("the same connection");
    theirs.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    theirs
        .set_write_timeout(Some(PATIENCE))
        .expect("a time-out");
    (ours, theirs)
}

/// Moves a socket into the ring.
pub fn adopt(ring: &mut Ring, socket: TcpStream) -> u32 {
    ring.adopt(socket.into(), 0);
    match next(ring) {
        Completion::Adopted { result, .. } => result.expect("a slot"),
        other => panic!("not an adoption: {other:?}"),
    }
}

/// A connection with one end in the ring.
pub fn adopted_pair(ring: &mut Ring) -> (u32, TcpStream) {
    let (ours, theirs) = pair();
    (adopt(ring, ours), theirs)
}

/// The error number of a result, 0 for success.
pub fn errno<T>(result: &std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}

/// Bytes that tell where in a stream they stand.
pub fn pattern(at: u64, len: usize) -> Vec<u8> {
    (at..at + len as u64)
        .map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8)
        .collect()
}
