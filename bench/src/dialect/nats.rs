//! Core NATS, as a client speaks it: each user is a subject, and subscribes to it.
//!
//! Nothing is kept and nothing is answered: a message reaches who is subscribed at that moment.

use super::cursor::Cursor;
use super::nats_wire::{self, Said};
use super::{Dialect, Garbled, Heard};

/// One client of core NATS.
#[derive(Debug, Default)]
pub(super) struct Nats {
    logged_in: bool,
    pings: u32,
}

impl Dialect for Nats {
    fn login(&mut self, user: &str, out: &mut Vec<u8>) {
        nats_wire::connect(out, false);
        nats_wire::subscribe(out, &[user], 1);
        // Its answer says that the subscription stands.
        out.extend_from_slice(b"PING\r\n");
    }

    fn send(&mut self, _number: u64, target: &str, message: &[u8], out: &mut Vec<u8>) {
        nats_wire::publish(out, &[target], &[], message);
    }

    fn receive(&mut self, bytes: &[u8], heard: &mut Vec<Heard>) -> Result<usize, Garbled> {
        Cursor::all(bytes, |cursor| {
            match nats_wire::read(cursor)? {
                Said::Message { payload, .. } => heard.push(Heard::Delivered { payload }),
                Said::Ping => self.pings += 1,
                Said::Pong if !self.logged_in => {
                    self.logged_in = true;
                    heard.push(Heard::LoggedIn { waiting: None });
                }
                Said::Error(text) => heard.push(Heard::Closing(text)),
                Said::Pong | Said::Aside => {}
            }
            Ok(())
        })
    }

    fn owe(&mut self, out: &mut Vec<u8>) {
        for _ in 0..std::mem::take(&mut self.pings) {
            out.extend_from_slice(b"PONG\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::tests::in_two_pieces;

    #[test]
    fn a_session_is_read_wherever_it_is_cut() {
        let bytes = b"INFO {\"server_id\":\"X\",\"max_payload\":1048576}\r\nPONG\r\nMSG u.1 1 5\r\nhello\r\n\
            PING\r\nMSG u.1 1 0\r\n\r\n-ERR 'Slow Consumer'\r\n";
        in_two_pieces(
            bytes,
            || Box::<Nats>::default(),
            |told, owed| {
                let expected = ["logged in", "hello", "", "closing: 'Slow Consumer'"];
                assert_eq!(told, expected);
                assert_eq!(owed, b"PONG\r\n");
            },
        );
    }

    #[test]
    fn a_client_subscribes_before_it_asks_for_a_sign_of_life() {
        let (mut client, mut out) = (Nats::default(), Vec::new());
        client.login("u.1", &mut out);
        client.send(7, "u.2", b"hi", &mut out);
        let text = String::from_utf8_lossy(&out);
        let (connect, rest) = text.split_once("}\r\n").expect("CONNECT");
        assert!(connect.starts_with("CONNECT {\"verbose\":false,"));
        assert_eq!(rest, "SUB u.1 1\r\nPING\r\nPUB u.2 2\r\nhi\r\n");
    }
}
