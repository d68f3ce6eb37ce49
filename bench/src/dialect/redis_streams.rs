//! Redis Streams, as a client speaks it: each user is a stream with one group of readers.
//!
//! A sender adds an entry (XADD) and is answered with its id. A reader takes a page (XREADGROUP),
//! acknowledges it (XACK), deletes it (XDEL), so that what was read is gone, as it is from an inbox
//! of Iris, and takes the next page, until one is empty. To be told of entries that are added later
//! it would have to block its connection, on which nothing could be sent then: so it reads what is
//! there at login.
//!
//! Source: <https://redis.io/docs/latest/develop/data-types/streams/>.

use std::collections::VecDeque;

use super::cursor::{Cursor, Stop, text};
use super::resp::{self, Item};
use super::{Dialect, Garbled, Heard, Outcome};

/// Entries read at a time.
const PAGE: &[u8] = b"256";
/// The name of the only field of an entry.
const FIELD: &[u8] = b"m";
/// The group of readers, and the only reader in it.
const GROUP: &[u8] = b"iris";

/// An answer that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// To XGROUP CREATE: the group may be there already.
    Group,
    /// To XREADGROUP.
    Page,
    /// To XACK and XDEL.
    Count,
    /// To XADD, for the message of that number.
    Added(u64),
}

/// One client of Redis.
#[derive(Debug, Default)]
pub(super) struct RedisStreams {
    user: String,
    logged_in: bool,
    due: VecDeque<Due>,
    /// Entries of a page that have not come.
    page_left: usize,
    /// Ids of entries of the page, as arguments of a command, and how many.
    taken: Vec<u8>,
    taken_count: usize,
    page_due: bool,
}

impl RedisStreams {
    fn read(&mut self, cursor: &mut Cursor<'_>, heard: &mut Vec<Heard>) -> Result<(), Stop> {
        if self.page_left > 0 {
            return self.entry(cursor, heard);
        }
        let due = self.due.front().copied();
        match (due, resp::item(cursor)?) {
            (Some(Due::Group), Item::String(_)) => {}
            (Some(Due::Group), Item::Error(range))
                if cursor.slice(range.clone()).starts_with(b"BUSYGROUP") => {}
            (Some(Due::Page), Item::Null) => self.log_in(heard),
            (Some(Due::Page), Item::Elements(1)) => {
                // One stream: its key, then its entries.
                resp::elements(cursor, 2)?;
                resp::skip(cursor, 1)?;
                let Item::Elements(count @ 1..) = resp::item(cursor)? else {
                    return Err(Stop::Garbled);
                };
                self.page_left = count;
                self.log_in(heard);
            }
            (Some(Due::Count), Item::Integer(_)) => {}
            (Some(Due::Added(number)), answer) => {
                let outcome = match answer {
                    Item::String(_) => Outcome::Stored,
                    Item::Error(range) => Outcome::Refused(text(cursor.slice(range))),
                    _ => return Err(Stop::Garbled),
                };
                heard.push(Heard::Answered { number, outcome });
            }
            (Some(_), Item::Error(range)) => {
                heard.push(Heard::Closing(text(cursor.slice(range))));
                return Err(Stop::Garbled);
            }
            _ => return Err(Stop::Garbled),
        }
        self.due.pop_front();
        Ok(())
    }

    /// An id and the fields under it.
    fn entry(&mut self, cursor: &mut Cursor<'_>, heard: &mut Vec<Heard>) -> Result<(), Stop> {
        resp::elements(cursor, 2)?;
        let id = resp::string(cursor)?;
        resp::elements(cursor, 2)?;
        resp::string(cursor)?;
        let payload = resp::string(cursor)?;
        resp::argument(&mut self.taken, cursor.slice(id));
        self.taken_count += 1;
        self.page_left -= 1;
        self.page_due = self.page_left == 0;
        heard.push(Heard::Delivered { payload });
        Ok(())
    }

    fn log_in(&mut self, heard: &mut Vec<Heard>) {
        if !std::mem::replace(&mut self.logged_in, true) {
            heard.push(Heard::LoggedIn { waiting: None });
        }
    }

    fn ask_page(&mut self, out: &mut Vec<u8>) {
        let user = self.user.as_bytes();
        let words = [
            &b"XREADGROUP"[..],
            b"GROUP",
            GROUP,
            b"reader",
            b"COUNT",
            PAGE,
            b"STREAMS",
            user,
            b">",
        ];
        resp::command(out, &words);
        self.due.push_back(Due::Page);
    }
}

impl Dialect for RedisStreams {
    fn login(&mut self, user: &str, out: &mut Vec<u8>) {
        self.user = user.to_owned();
        let words = [
            &b"XGROUP"[..],
            b"CREATE",
            user.as_bytes(),
            GROUP,
            b"0",
            b"MKSTREAM",
        ];
        resp::command(out, &words);
        self.due.push_back(Due::Group);
        self.ask_page(out);
    }

    fn send(&mut self, number: u64, target: &str, message: &[u8], out: &mut Vec<u8>) {
        resp::command(out, &[b"XADD", target.as_bytes(), b"*", FIELD, message]);
        self.due.push_back(Due::Added(number));
    }

    fn receive(&mut self, bytes: &[u8], heard: &mut Vec<Heard>) -> Result<usize, Garbled> {
        Cursor::all(bytes, |cursor| self.read(cursor, heard))
    }

    fn owe(&mut self, out: &mut Vec<u8>) {
        // What is acknowledged in the middle of a page costs the server more commands.
        if !std::mem::take(&mut self.page_due) {
            return;
        }
        for (command, group) in [(&b"XACK"[..], Some(GROUP)), (b"XDEL", None)] {
            resp::head(out, 2 + usize::from(group.is_some()) + self.taken_count);
            resp::argument(out, command);
            resp::argument(out, self.user.as_bytes());
            if let Some(group) = group {
                resp::argument(out, group);
            }
            out.extend_from_slice(&self.taken);
            self.due.push_back(Due::Count);
        }
        self.taken.clear();
        self.taken_count = 0;
        self.ask_page(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::tests::in_two_pieces;

    fn client() -> Box<dyn Dialect> {
        let mut client = Box::<RedisStreams>::default();
        client.login("u", &mut Vec::new());
        client.send(5, "v", b"x", &mut Vec::new());
        client.send(6, "v", b"x", &mut Vec::new());
        client
    }

    const PAGE_OF_TWO: &str = "*1\r\n*2\r\n$1\r\nu\r\n*2\r\n\
        *2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nm\r\n$5\r\nhello\r\n\
        *2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nm\r\n$0\r\n\r\n";

    #[test]
    fn a_session_is_read_wherever_it_is_cut() {
        let bytes = format!("+OK\r\n{PAGE_OF_TWO}$3\r\n2-0\r\n-OOM too much\r\n");
        in_two_pieces(bytes.as_bytes(), client, |told, owed| {
            let expected = [
                "logged in",
                "hello",
                "",
                "5: stored",
                "6: refused: OOM too much",
            ];
            assert_eq!(told, expected);
            let owed = String::from_utf8_lossy(owed);
            let burned = "*5\r\n$4\r\nXACK\r\n$1\r\nu\r\n$4\r\niris\r\n$3\r\n1-0\r\n$3\r\n1-1\r\n\
                *4\r\n$4\r\nXDEL\r\n$1\r\nu\r\n$3\r\n1-0\r\n$3\r\n1-1\r\n*9\r\n$10\r\nXREADGROUP\r\n";
            assert!(owed.starts_with(burned), "{owed}");
        });
    }

    #[test]
    fn an_empty_stream_logs_in_and_is_not_asked_again() {
        let bytes = b"-BUSYGROUP Consumer Group name already exists\r\n*-1\r\n$3\r\n2-0\r\n";
        in_two_pieces(bytes, client, |told, owed| {
            assert_eq!(told, ["logged in", "5: stored"]);
            assert!(owed.is_empty());
        });
    }

    #[test]
    fn an_error_is_told_and_the_session_given_up() {
        let (mut client, mut heard) = (client(), Vec::new());
        let answer = client.receive(b"+OK\r\n-WRONGTYPE no stream\r\n", &mut heard);
        assert_eq!(answer, Err(Garbled));
        assert_eq!(heard, [Heard::Closing("WRONGTYPE no stream".into())]);
    }

    #[test]
    fn a_client_writes_commands() {
        let (mut client, mut out) = (RedisStreams::default(), Vec::new());
        client.login("u", &mut out);
        client.send(1, "v", b"hi", &mut out);
        let expected = "*6\r\n$6\r\nXGROUP\r\n$6\r\nCREATE\r\n$1\r\nu\r\n$4\r\niris\r\n$1\r\n0\r\n\
            $8\r\nMKSTREAM\r\n*9\r\n$10\r\nXREADGROUP\r\n$5\r\nGROUP\r\n$4\r\niris\r\n$6\r\nreader\r\n\
            $5\r\nCOUNT\r\n$3\r\n256\r\n$7\r\nSTREAMS\r\n$1\r\nu\r\n$1\r\n>\r\n\
            *5\r\n$4\r\nXADD\r\n$1\r\nv\r\n$1\r\n*\r\n$1\r\nm\r\n$2\r\nhi\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
