//! Redis publish and subscribe, as a client speaks it: each user is a channel.
//!
//! RESP2 lets a connection that subscribes do nothing else, so a user would need two; RESP3
//! (`HELLO 3`, Redis 6 and newer) does not, so a user is one connection here as with every other
//! server. The answer to PUBLISH says how many were subscribed at that moment.

use std::collections::VecDeque;

use super::cursor::{Cursor, Stop, text};
use super::resp::{self, Item};
use super::{Dialect, Garbled, Heard, Outcome};

/// One client of Redis.
#[derive(Debug, Default)]
pub(super) struct Redis {
    /// Whether `HELLO` was answered.
    greeted: bool,
    /// Numbers of messages that are not answered, in the order they were sent.
    unanswered: VecDeque<u64>,
}

impl Redis {
    fn read(&mut self, cursor: &mut Cursor<'_>, heard: &mut Vec<Heard>) -> Result<(), Stop> {
        match resp::item(cursor)? {
            Item::Push(count) => push(cursor, count, heard),
            Item::Error(range) if !self.greeted => {
                heard.push(Heard::Closing(text(cursor.slice(range))));
                Err(Stop::Garbled)
            }
            Item::Elements(count) if !self.greeted => {
                resp::skip(cursor, count)?;
                self.greeted = true;
                Ok(())
            }
            answer => {
                let outcome = match answer {
                    Item::Integer(1..) => Outcome::Delivered,
                    Item::Integer(_) => Outcome::Refused("nobody is subscribed".into()),
                    Item::Error(range) => Outcome::Refused(text(cursor.slice(range))),
                    _ => return Err(Stop::Garbled),
                };
                let number = self.unanswered.pop_front().ok_or(Stop::Garbled)?;
                heard.push(Heard::Answered { number, outcome });
                Ok(())
            }
        }
    }
}

/// `subscribe channel count` or `message channel payload`.
fn push(cursor: &mut Cursor<'_>, count: usize, heard: &mut Vec<Heard>) -> Result<(), Stop> {
    let kind = resp::string(cursor)?;
    match (cursor.slice(kind), count) {
        (b"message", 3) => {
            resp::skip(cursor, 1)?;
            let payload = resp::string(cursor)?;
            heard.push(Heard::Delivered { payload });
        }
        (b"subscribe", 3) => {
            resp::skip(cursor, 2)?;
            heard.push(Heard::LoggedIn { waiting: None });
        }
        _ => return Err(Stop::Garbled),
    }
    Ok(())
}

impl Dialect for Redis {
    fn login(&mut self, user: &str, out: &mut Vec<u8>) {
        resp::command(out, &[b"HELLO", b"3"]);
        resp::command(out, &[b"SUBSCRIBE", user.as_bytes()]);
    }

    fn send(&mut self, number: u64, target: &str, message: &[u8], out: &mut Vec<u8>) {
        resp::command(out, &[b"PUBLISH", target.as_bytes(), message]);
        self.unanswered.push_back(number);
    }

    fn receive(&mut self, bytes: &[u8], heard: &mut Vec<Heard>) -> Result<usize, Garbled> {
        Cursor::all(bytes, |cursor| self.read(cursor, heard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::tests::in_two_pieces;

    fn client() -> Box<dyn Dialect> {
        let mut client = Box::<Redis>::default();
        for number in [5, 6, 7] {
            client.send(number, "v", b"", &mut Vec::new());
        }
        client
    }

    #[test]
    fn a_session_is_read_wherever_it_is_cut() {
        let bytes = b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nmodules\r\n*0\r\n\
            >3\r\n$9\r\nsubscribe\r\n$1\r\nu\r\n:1\r\n:1\r\n\
            >3\r\n$7\r\nmessage\r\n$1\r\nu\r\n$5\r\nhello\r\n:0\r\n-OOM too much\r\n";
        in_two_pieces(bytes, client, |told, owed| {
            let expected = [
                "logged in",
                "5: delivered",
                "hello",
                "6: refused: nobody is subscribed",
                "7: refused: OOM too much",
            ];
            assert_eq!(told, expected);
            assert!(owed.is_empty());
        });
    }

    #[test]
    fn a_server_without_resp3_says_so_and_is_given_up() {
        let (mut client, mut heard) = (Redis::default(), Vec::new());
        let answer = client.receive(b"-ERR unknown command 'HELLO'\r\n", &mut heard);
        assert_eq!(answer, Err(Garbled));
        assert_eq!(
            heard,
            [Heard::Closing("ERR unknown command 'HELLO'".into())]
        );
    }

    #[test]
    fn a_client_writes_commands() {
        let (mut client, mut out) = (Redis::default(), Vec::new());
        client.login("u", &mut out);
        client.send(1, "v", b"hi", &mut out);
        let expected = "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nu\r\n\
            *3\r\n$7\r\nPUBLISH\r\n$1\r\nv\r\n$2\r\nhi\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
        let mut heard = Vec::new();
        // More answers than questions.
        assert_eq!(
            Redis::default().receive(b":1\r\n", &mut heard),
            Err(Garbled)
        );
    }
}
