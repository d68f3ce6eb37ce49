//! MQTT 3.1.1, as a client speaks it: each user is a topic, subscribed to at QoS 0 or QoS 1.
//!
//! At QoS 1 the broker answers each message with PUBACK when it has taken it, and the reader
//! answers each delivery with one. Sessions are clean: nothing is kept for who is away.
//!
//! Source of the layout: the OASIS standard, <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/>.

use std::collections::VecDeque;

use super::cursor::{Cursor, Stop};
use super::{Dialect, Garbled, Heard, Outcome};

/// Control packet types, in the upper half of the first byte (table 2.1).
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBACK: u8 = 9;

/// The packet id of the only subscription.
const SUBSCRIPTION: u16 = 1;

/// One MQTT client.
#[derive(Debug)]
pub(super) struct Mqtt {
    /// 0 or 1.
    qos: u8,
    /// The packet id of the last message sent at QoS 1.
    last_id: u16,
    /// Packet ids and numbers of messages that are not acknowledged, in the order they were sent.
    unanswered: VecDeque<(u16, u64)>,
    /// Packet ids of deliveries to be acknowledged.
    taken: Vec<u16>,
}

impl Mqtt {
    /// A client that sends and subscribes at QoS 0.
    pub(super) fn at_most_once() -> Self {
        Self::at(0)
    }

    /// A client that sends and subscribes at QoS 1.
    pub(super) fn at_least_once() -> Self {
        Self::at(1)
    }

    fn at(qos: u8) -> Self {
        Self {
            qos,
            last_id: 0,
            unanswered: VecDeque::new(),
            taken: Vec::new(),
        }
    }

    fn read(&mut self, cursor: &mut Cursor<'_>, heard: &mut Vec<Heard>) -> Result<(), Stop> {
        let first = cursor.byte()?;
        let len = remaining_length(cursor)?;
        let body = cursor.take(len)?;
        let end = body.end;
        // The packet is whole: from here on, too few bytes are its fault.
        let bytes = cursor.slice(0..end);
        let whole = |result: Result<u16, Stop>| result.map_err(|_| Stop::Garbled);
        let mut inner = Cursor::starting_at(bytes, body.start);
        match first >> 4 {
            PUBLISH => {
                let topic = usize::from(whole(inner.number_u16())?);
                inner.take(topic).map_err(|_| Stop::Garbled)?;
                // QoS 2 is never asked for.
                match (first >> 1) & 3 {
                    0 => {}
                    1 => self.taken.push(whole(inner.number_u16())?),
                    _ => return Err(Stop::Garbled),
                }
                heard.push(Heard::Delivered {
                    payload: inner.at()..end,
                });
            }
            PUBACK => {
                let id = whole(inner.number_u16())?;
                let at = self.unanswered.iter().position(|(sent, _)| *sent == id);
                let (_, number) = at
                    .and_then(|at| self.unanswered.remove(at))
                    .ok_or(Stop::Garbled)?;
                let outcome = Outcome::Delivered;
                heard.push(Heard::Answered { number, outcome });
            }
            CONNACK => {
                // The session flag, then the return code.
                let code = whole(inner.number_u16())? & 0xff;
                if code != 0 {
                    heard.push(Heard::Closing(refusal(code).into()));
                }
            }
            SUBACK => match (whole(inner.number_u16())?, inner.byte()) {
                (SUBSCRIPTION, Ok(granted)) if granted == self.qos => {
                    heard.push(Heard::LoggedIn { waiting: None });
                }
                _ => return Err(Stop::Garbled),
            },
            _ => return Err(Stop::Garbled),
        }
        Ok(())
    }
}

impl Dialect for Mqtt {
    fn login(&mut self, user: &str, out: &mut Vec<u8>) {
        let field = 2 + user.len();
        // Protocol name and level, a clean session, no keep-alive; the client id is the user.
        out.push(0x10);
        write_length(out, 10 + field);
        out.extend_from_slice(b"\x00\x04MQTT\x04\x02\x00\x00");
        write_field(out, user);
        // Clients may go on before CONNACK (section 3.1.4).
        out.push(0x82);
        write_length(out, 2 + field + 1);
        out.extend_from_slice(&SUBSCRIPTION.to_be_bytes());
        write_field(out, user);
        out.push(self.qos);
    }

    fn send(&mut self, number: u64, target: &str, message: &[u8], out: &mut Vec<u8>) {
        out.push(PUBLISH << 4 | self.qos << 1);
        let id_len = if self.qos > 0 { 2 } else { 0 };
        write_length(out, 2 + target.len() + id_len + message.len());
        write_field(out, target);
        if self.qos > 0 {
            // 0 is not allowed. Fewer than 65,535 are ever unanswered: scenarios keep less in flight.
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            out.extend_from_slice(&self.last_id.to_be_bytes());
            self.unanswered.push_back((self.last_id, number));
        }
        out.extend_from_slice(message);
    }

    fn receive(&mut self, bytes: &[u8], heard: &mut Vec<Heard>) -> Result<usize, Garbled> {
        Cursor::all(bytes, |cursor| self.read(cursor, heard))
    }

    fn owe(&mut self, out: &mut Vec<u8>) {
        for id in self.taken.drain(..) {
            out.extend_from_slice(&[PUBACK << 4, 2]);
            out.extend_from_slice(&id.to_be_bytes());
        }
    }
}

/// Up to four bytes, the lowest seven bits first (section 2.2.3).
fn remaining_length(cursor: &mut Cursor<'_>) -> Result<usize, Stop> {
    let mut len = 0;
    for shift in [0, 7, 14, 21] {
        let byte = cursor.byte()?;
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(len);
        }
    }
    Err(Stop::Garbled)
}

fn write_length(out: &mut Vec<u8>, mut len: usize) {
    while len > 0x7f {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

fn write_field(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Table 3.1.
fn refusal(code: u16) -> &'static str {
    match code {
        1 => "unacceptable protocol version",
        2 => "identifier rejected",
        3 => "server unavailable",
        4 => "bad user name or password",
        _ => "not authorized",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::tests::in_two_pieces;

    #[test]
    fn a_session_at_qos_1_is_read_wherever_it_is_cut() {
        let mut bytes = b"\x20\x02\x00\x00\x90\x03\x00\x01\x01".to_vec();
        bytes.extend_from_slice(b"\x32\x0a\x00\x01u\x12\x34hello");
        bytes.extend_from_slice(b"\x30\x05\x00\x01u\x00\x01");
        bytes.extend_from_slice(b"\x40\x02\x00\x02\x40\x02\x00\x01");
        let client = || {
            let mut client = Box::new(Mqtt::at_least_once());
            client.send(70, "v", b"", &mut Vec::new());
            client.send(71, "v", b"", &mut Vec::new());
            client as Box<dyn Dialect>
        };
        in_two_pieces(&bytes, client, |told, owed| {
            let expected = [
                "logged in",
                "hello",
                "\0\u{1}",
                "71: delivered",
                "70: delivered",
            ];
            assert_eq!(told, expected);
            assert_eq!(owed, b"\x40\x02\x12\x34");
        });
    }

    #[test]
    fn a_client_writes_the_packets_of_the_standard() {
        let (mut client, mut out) = (Mqtt::at_least_once(), Vec::new());
        client.login("u", &mut out);
        let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01u";
        let subscribe = b"\x82\x06\x00\x01\x00\x01u\x01";
        assert_eq!(out, [&connect[..], subscribe].concat());
        out.clear();
        client.last_id = u16::MAX - 1;
        client.send(1, "a/b", b"x", &mut out);
        client.send(2, "a/b", &[0; 200], &mut out);
        assert_eq!(&out[..10], b"\x32\x08\x00\x03a/b\xff\xffx");
        // 207 = 0x4f + 128 x 1; the packet id goes round to 1.
        assert_eq!(&out[10..20], b"\x32\xcf\x01\x00\x03a/b\x00\x01");
        out.clear();
        Mqtt::at_most_once().send(3, "a", b"x", &mut out);
        assert_eq!(out, b"\x30\x04\x00\x01ax");
    }

    #[test]
    fn lengths_are_those_of_the_standards_table() {
        for (len, bytes) in [
            (0, &b"\x00"[..]),
            (127, b"\x7f"),
            (128, b"\x80\x01"),
            (16_383, b"\xff\x7f"),
            (16_384, b"\x80\x80\x01"),
            (268_435_455, b"\xff\xff\xff\x7f"),
        ] {
            let mut out = Vec::new();
            write_length(&mut out, len);
            assert_eq!(out, bytes);
            assert_eq!(
                remaining_length(&mut Cursor::starting_at(bytes, 0)),
                Ok(len)
            );
        }
    }

    #[test]
    fn a_refusal_is_told_and_nonsense_is_garbled() {
        let (mut client, mut heard) = (Mqtt::at_least_once(), Vec::new());
        assert_eq!(client.receive(b"\x20\x02\x00\x05", &mut heard), Ok(4));
        assert_eq!(heard, [Heard::Closing("not authorized".into())]);
        for wrong in [
            // A grant of another QoS, an id nobody sent, QoS 2, a packet too short for its topic,
            // a length of five bytes, a packet of clients.
            &b"\x90\x03\x00\x01\x80"[..],
            b"\x40\x02\x00\x09",
            b"\x34\x05\x00\x01u\x00\x01",
            b"\x30\x03\x00\x09u",
            b"\x30\xff\xff\xff\xff\x01",
            b"\x10\x00",
        ] {
            assert_eq!(client.receive(wrong, &mut heard), Err(Garbled), "{wrong:?}");
        }
    }
}
