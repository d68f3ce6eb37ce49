//! The framed protocol of Iris, as a client speaks it.
//!
//! Invariant: a delivery is acknowledged once the scenario has taken it, one ACK for all that came
//! in one receive.

use iris_protocol::framed::{self, DecodeLimits, Decoded, Frame, encode};
use iris_protocol::{Name, Outcome as Answer};

use super::{Dialect, Garbled, Heard, Outcome};

/// One framed client.
#[derive(Debug, Default)]
pub(super) struct Framed {
    /// The last delivery that was taken, and the last that was acknowledged.
    taken: u64,
    acknowledged: u64,
    /// A ping to be answered. One at a time suffices: any frame of ours is a sign of life.
    ping: Option<u64>,
}

impl Dialect for Framed {
    fn login(&mut self, user: &str, out: &mut Vec<u8>) {
        let name = Name::parse(user.as_bytes()).expect("names of ours are valid");
        out.extend_from_slice(&framed::PREFACE);
        encode::login(out, name, &[]);
    }

    fn send(&mut self, number: u64, target: &str, message: &[u8], out: &mut Vec<u8>) {
        encode::send(out, number, 0, target.as_bytes(), message);
    }

    fn receive(&mut self, bytes: &[u8], heard: &mut Vec<Heard>) -> Result<usize, Garbled> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let (frame, used) = match framed::decode(rest, &DecodeLimits::READER) {
                Ok(Decoded::Incomplete) => return Ok(at),
                Ok(Decoded::Skipped(used)) => {
                    at += used;
                    continue;
                }
                Ok(Decoded::Frame(frame, used)) => (frame, used),
                Ok(Decoded::Oversized { .. }) | Err(_) => return Err(Garbled),
            };
            at += used;
            match frame {
                Frame::Deliver {
                    delivery, payload, ..
                } => {
                    self.taken = delivery;
                    // The payload is the tail of its frame.
                    let payload = at - payload.len()..at;
                    heard.push(Heard::Delivered { payload });
                }
                Frame::Answers(answers) => {
                    heard.extend(answers.map(|answer| Heard::Answered {
                        number: answer.sequence,
                        outcome: outcome(answer.outcome),
                    }));
                }
                Frame::Welcome(welcome) => heard.push(Heard::LoggedIn {
                    waiting: Some(welcome.inbox_messages),
                }),
                Frame::Ping { nonce } => self.ping = Some(nonce),
                Frame::Presence { .. } => heard.push(Heard::Presence),
                Frame::Close { reason, .. } => heard.push(Heard::Closing(reason.label().into())),
                Frame::Pong { .. } | Frame::Error { .. } => {}
                _ => return Err(Garbled),
            }
        }
    }

    fn owe(&mut self, out: &mut Vec<u8>) {
        if self.taken > self.acknowledged {
            encode::ack(out, self.taken);
            self.acknowledged = self.taken;
        }
        if let Some(nonce) = self.ping.take() {
            encode::pong(out, nonce);
        }
    }

    fn ask_presence(&mut self, user: &str, out: &mut Vec<u8>) -> bool {
        encode::presence_ask(out, user.as_bytes());
        true
    }
}

fn outcome(answer: Answer) -> Outcome {
    match answer {
        Answer::Delivered => Outcome::Delivered,
        Answer::Stored => Outcome::Stored,
        Answer::Refused(reason) => Outcome::Refused(reason.label().into()),
    }
}

#[cfg(test)]
mod tests {
    use iris_protocol::framed::kind;
    use iris_protocol::{CloseReason, MessageId};

    use super::*;

    const ID: MessageId = MessageId::from_bytes([1; MessageId::LEN]);

    #[test]
    fn what_was_taken_is_acknowledged_once_however_it_was_cut() {
        let mut bytes = Vec::new();
        for delivery in 1..=3 {
            encode::deliver(&mut bytes, delivery, ID, 0, "ann", b"hello");
        }
        for cut in 0..bytes.len() {
            let (mut client, mut heard) = (Framed::default(), Vec::new());
            let used = client.receive(&bytes[..cut], &mut heard).expect("sound");
            let rest = &bytes[used..];
            client.receive(rest, &mut heard).expect("sound");
            assert_eq!(heard.len(), 3);
            let Some(Heard::Delivered { payload }) = heard.pop() else {
                panic!("not a delivery");
            };
            assert_eq!(&rest[payload], b"hello");
            let (mut out, mut expected) = (Vec::new(), Vec::new());
            client.owe(&mut out);
            client.owe(&mut out);
            encode::ack(&mut expected, 3);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn a_ping_is_answered_a_close_is_told_and_a_frame_of_clients_is_garbled() {
        let (mut client, mut heard, mut out) = (Framed::default(), Vec::new(), Vec::new());
        let mut bytes = Vec::new();
        encode::ping(&mut bytes, 9);
        encode::close(&mut bytes, CloseReason::Draining, 0, "");
        assert_eq!(client.receive(&bytes, &mut heard), Ok(bytes.len()));
        assert_eq!(heard, [Heard::Closing("draining".into())]);
        client.owe(&mut out);
        assert_eq!(out[4], kind::PONG);
        let mut ours = Vec::new();
        encode::ack(&mut ours, 1);
        assert_eq!(client.receive(&ours, &mut heard), Err(Garbled));
    }
}
