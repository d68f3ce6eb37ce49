//! A protocol that is switched off is not spoken: its first byte is one of no protocol.

use iris_protocol::Outcome;

use crate::support::{Classic, Event, Framed, Gateway};

#[test]
fn classic_is_switched_off() {
    let gateway = Gateway::serving(&["--protocols", "framed"]);
    let at = gateway.address();
    for first in [&b"\x01alice"[..], b"\x02\x00\x03bob\x00\x01x"] {
        let mut classic = Classic::connect(at);
        classic.say(first);
        classic.sees_the_end();
    }
    gateway.metrics_when("both are counted", |metrics| {
        metrics.closed("unknown-protocol") == 2
    });
    let mut alice = Framed::login(at, "alice");
    assert_eq!(alice.sends("bob", b"hello"), Outcome::Stored);
}

#[test]
fn framed_is_switched_off() {
    let gateway = Gateway::serving(&["--protocols", "classic"]);
    let at = gateway.address();
    let mut framed = Framed::connect(at);
    framed.asks_in("alice", b"");
    assert_eq!(framed.hears(), Event::End);
    gateway.metrics_when("it is counted", |metrics| {
        metrics.closed("unknown-protocol") == 1
    });
    Classic::login(at, "alice");
}
