//! No address alone takes every place, or tries credentials without an end; others do not notice.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use iris_protocol::{CloseReason, Outcome};
use socket2::{Domain, Socket, Type};

use crate::support::{Classic, Framed, Gateway};

/// A connection from another address of this machine.
fn from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let address = IpAddr::from([127, 0, 0, last]);
    let bound = socket.bind(&SocketAddr::new(address, 0).into());
    bound.expect("all of 127.0.0.0/8 is ours");
    socket.connect(&to.into()).expect("connected");
    socket.into()
}

#[test]
fn an_address_has_its_part_of_the_connections_and_gets_them_back() {
    let gateway = Gateway::serving(&[
        "--max-connections",
        "16",
        "--address-connections-max",
        "half",
    ]);
    let at = gateway.address();
    // Users of both cores: some connections move, and count all the same.
    let mut crowd: Vec<Classic> = (0..8)
        .map(|number| Classic::login(at, &format!("crowd-{number}")))
        .collect();
    for _ in 0..3 {
        Classic::connect(at).sees_the_end();
    }
    gateway.metrics_when("three are turned away", |metrics| {
        metrics.closed("address-limit") == 3
            && metrics.sum("iris_connections") == 8
            && metrics.sum("iris_handed_over_total") > 0
            && metrics.sum("iris_address_unknown_total") == 0
    });
    let mut other = Framed::over(from(2, at));
    other.logs_in("other", b"");
    assert_eq!(other.sends("nobody", b"as ever"), Outcome::Stored);
    // Each that ends makes room for one, wherever it was at home.
    for round in 0..3 {
        (0..8).for_each(|_| crowd.pop().expect("eight").leave());
        gateway.metrics_when("they have ended", |metrics| {
            metrics.sum("iris_connections") == 1
        });
        let names = (0..8).map(|number| format!("round-{round}-{number}"));
        crowd = names.map(|name| Classic::login(at, &name)).collect();
    }
    Classic::connect(at).sees_the_end();
}

#[test]
fn failed_logins_keep_an_address_out_and_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "correct horse battery\n").expect("written");
    let secret = secret.to_str().expect("UTF-8");
    let mut gateway =
        Gateway::serving(&["--secret-file", secret, "--address-failed-logins-max", "5"]);
    let at = gateway.address();
    let mut before = Framed::connect(at);
    before.logs_in("before", b"correct horse battery");
    for _ in 0..5 {
        let mut guesser = Framed::connect(at);
        guesser.asks_in("alice", b"correct horse batterz");
        assert_eq!(guesser.is_closed().0, CloseReason::BadCredential);
    }
    // The sixth does not get to show anything, right or wrong.
    Classic::connect(at).sees_the_end();
    gateway.metrics_when("it is turned away", |metrics| {
        metrics.closed("bad-credential") == 5 && metrics.closed("address-limit") == 1
    });
    // Who is in stays, and other addresses come in.
    before.is_heard();
    let mut other = Framed::over(from(2, at));
    other.logs_in("other", b"correct horse battery");
    other.hears_nothing_for(Duration::from_millis(50));
    let line = gateway.logged("login with a wrong credential");
    assert!(
        line.contains("127.0.0.1") && !line.contains("horse"),
        "{line}"
    );
}
