//! The classic protocol of Iris, as a client speaks it.
//!
//! Invariant: a delivery is the message's bytes and nothing else, so where one ends is told by the
//! length that stands in each of our own messages. Anything else that arrives is garbled.

use iris_protocol::{Name, classic};

use super::{Dialect, Garbled, Heard};
use crate::engine::Message;

/// One classic client.
#[derive(Debug, Default)]
pub(super) struct Classic {
    logged_in: bool,
}

impl Dialect for Classic {
    fn login(&mut self, user: &str, out: &mut Vec<u8>) {
        let name = Name::parse(user.as_bytes()).expect("names of ours are valid");
        classic::encode_login(out, name);
    }

    fn send(&mut self, _number: u64, target: &str, message: &[u8], out: &mut Vec<u8>) {
        let name = Name::parse(target.as_bytes()).expect("names of ours are valid");
        classic::encode_send(out, name, message);
    }

    fn receive(&mut self, bytes: &[u8], heard: &mut Vec<Heard>) -> Result<usize, Garbled> {
        let mut at = 0;
        if !self.logged_in {
            let answer = classic::LOGIN_OK;
            if bytes.len() < answer.len() {
                return if answer.starts_with(bytes) {
                    Ok(0)
                } else {
                    Err(Garbled)
                };
            }
            if !bytes.starts_with(answer) {
                return Err(Garbled);
            }
            self.logged_in = true;
            heard.push(Heard::LoggedIn { waiting: None });
            at = answer.len();
        }
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            match Message::len(rest)? {
                Some(len) if len <= rest.len() => {
                    heard.push(Heard::Delivered {
                        payload: at..at + len,
                    });
                    at += len;
                }
                _ => return Ok(at),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_and_messages_are_told_apart_wherever_they_are_cut() {
        let message = Message {
            due_ns: 5,
            stream: 6,
            number: 7,
        };
        let mut bytes = classic::LOGIN_OK.to_vec();
        for len in [24, 100] {
            let mut payload = Vec::new();
            bytes.extend_from_slice(message.encode_over(&mut payload, len));
        }
        for cut in 0..bytes.len() {
            let (mut client, mut heard) = (Classic::default(), Vec::new());
            let used = client
                .receive(&bytes[..cut], &mut heard)
                .expect("all sound");
            client
                .receive(&bytes[used..], &mut heard)
                .expect("all sound");
            assert_eq!(heard.len(), 3, "cut at {cut}");
        }
    }

    #[test]
    fn anything_else_is_garbled() {
        let mut heard = Vec::new();
        let mut client = Classic::default();
        assert_eq!(client.receive(b"\x03LOGIN_NO", &mut heard), Err(Garbled));
        assert_eq!(client.receive(b"\x03N", &mut heard), Err(Garbled));
        client
            .receive(classic::LOGIN_OK, &mut heard)
            .expect("the answer");
        assert_eq!(client.receive(&[7; 24], &mut heard), Err(Garbled));
    }
}
