//! Classic logins and acks end where what arrived with them ends, not where a receive buffer of the
//! gateway's does.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use iris_protocol::classic::LOGIN_OK;

use crate::support::{Classic, Gateway, login_classic, send_classic};

/// Of the gateway's receive buffers.
const BUFFER_BYTES: usize = 2048;
/// Multi-byte characters may be cut as well.
const NAME: &str = "bjørn-with-a-rather-long-nøme";

/// Commands of a logged-in user that fill the buffer up to `len` bytes.
fn filling(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while len - out.len() > 300 {
        send_classic(&mut out, "nobody", &[b'.'; 100]);
    }
    let header = 1 + 2 + "nobody".len() + 2;
    let rest = len - out.len() - header;
    send_classic(&mut out, "nobody", &vec![b'.'; rest]);
    assert_eq!(out.len(), len);
    out
}

/// A message for the user comes to this connection, who is that user then.
fn is(client: &mut Classic, alice: &mut Classic, user: &str) {
    alice.send(user, b"for you");
    client.reads_exactly(b"for you");
}

#[test]
fn a_login_that_a_buffer_cuts_anywhere_is_one_login() {
    let gateway = Gateway::serving(&[]);
    let mut alice = Classic::login(gateway.address(), "alice");
    // At 0 the buffer ends before the login, at the last with it.
    for inside in 0..=NAME.len() + 1 {
        for first in [None, Some("someone")] {
            let mut client = Classic::connect(gateway.address());
            let mut out = Vec::new();
            login_classic(&mut out, first.unwrap_or("other"));
            out.extend(filling(BUFFER_BYTES - inside - out.len()));
            login_classic(&mut out, NAME);
            client.say(&out);
            client.reads_exactly(LOGIN_OK);
            client.reads_exactly(LOGIN_OK);
            is(&mut client, &mut alice, NAME);
            // And in the stream of a connection that is at home.
            let mut out = filling(BUFFER_BYTES - inside);
            login_classic(&mut out, NAME);
            client.say(&out);
            client.reads_exactly(LOGIN_OK);
            is(&mut client, &mut alice, NAME);
            client.leave();
        }
    }
}

#[test]
fn a_login_at_the_end_of_a_full_buffer_does_not_wait_for_more() {
    let gateway = Gateway::serving(&[]);
    let mut alice = Classic::login(gateway.address(), "alice");
    for ends in [false, true] {
        let mut client = Classic::login(gateway.address(), "other");
        let mut out = filling(BUFFER_BYTES - 1 - NAME.len());
        login_classic(&mut out, NAME);
        assert_eq!(out.len(), BUFFER_BYTES);
        client.say(&out);
        if ends {
            // The end of the stream is no part of the name.
            client.stream().shutdown(Shutdown::Write).expect("open");
        }
        client.reads_exactly(LOGIN_OK);
        if !ends {
            is(&mut client, &mut alice, NAME);
        }
    }
    gateway.metrics_when("both sockets ended in order", |metrics| {
        metrics.closed("peer-closed") == 2 && metrics.closed("bad-name") == 0
    });
}

#[test]
fn an_ack_takes_all_that_arrived_with_it_and_nothing_else() {
    let gateway = Gateway::serving(&[]);
    let mut alice = Classic::login(gateway.address(), "alice");
    let mut client = Classic::login(gateway.address(), "bob");
    for len in [10, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 5_000] {
        // An id of bytes that are no commands.
        let mut out = vec![b'i'; len];
        out[0] = 0x03;
        client.stream().write_all(&out).expect("written");
        // What is written later arrives later.
        std::thread::sleep(Duration::from_millis(100));
        client.send("bob", b"to myself");
        client.reads_exactly(b"to myself");
        is(&mut client, &mut alice, "bob");
    }
    assert_eq!(gateway.metrics().closed("unknown-command"), 0);
}
