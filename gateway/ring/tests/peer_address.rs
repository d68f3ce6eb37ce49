//! Where a peer is: told by the kernel of a socket that is a direct descriptor only.

mod harness;

use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use harness::next;
use iris_ring::{Completion, Ring};

/// The server's end of a connection to this address, in a slot, and the client's.
fn connected(ring: &mut Ring, at: &str) -> Option<(u32, TcpStream)> {
    // A machine may be without IPv6.
    let listener = TcpListener::bind(at).ok()?;
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let (server, _) = listener.accept().expect("it waits");
    ring.adopt(OwnedFd::from(server), 1);
    match next(ring) {
        Completion::Adopted { result, .. } => Some((result.expect("room"), client)),
        other => panic!("unexpected {other:?}"),
    }
}

fn peer_of(ring: &mut Ring, slot: u32) -> std::io::Result<IpAddr> {
    ring.peer_address(slot, 7);
    match next(ring) {
        Completion::PeerAddress { token: 7, result } => result,
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn both_versions_are_told_ipv6_by_its_network() {
    let mut ring = harness::ring();
    let (slot, _client) = connected(&mut ring, "127.0.0.1:0").expect("IPv4");
    let address = peer_of(&mut ring, slot).expect("told");
    assert_eq!(address, IpAddr::from([127, 0, 0, 1]));
    if let Some((slot, _client)) = connected(&mut ring, "[::1]:0") {
        let address = peer_of(&mut ring, slot).expect("told");
        // The first 64 bits of ::1.
        assert_eq!(address, IpAddr::from(Ipv6Addr::UNSPECIFIED));
    }
}

#[test]
fn an_empty_slot_has_no_address() {
    let mut ring = harness::ring();
    let (slot, _peer) = harness::adopted_pair(&mut ring);
    ring.close(slot, 2);
    let _ = next(&mut ring);
    let error = peer_of(&mut ring, slot).expect_err("the slot is empty");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
}
