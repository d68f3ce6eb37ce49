//! NATS JetStream, as a client speaks it: one stream holds everything, each user is a subject of it
//! with a durable pull consumer.
//!
//! A sender is answered when the stream has the message. A reader asks for a page, acknowledges
//! each message, and asks for the next page; the stream is a work queue, so what is acknowledged is
//! gone, as it is from an inbox of Iris.
//!
//! Sources: <https://docs.nats.io/reference/reference-protocols/nats_api_reference> and
//! <https://docs.nats.io/nats-concepts/jetstream>.

use super::cursor::{Cursor, Stop, number, text};
use super::nats_wire::{self, Said};
use super::{Dialect, Garbled, Heard, Outcome};

/// The stream that holds everything.
const STREAM: &str = "IRIS";
/// Consumers that the stream may have: one for each user. Since 2.15 a stream that says nothing of it
/// may have only a few.
const CONSUMERS_MAX: u32 = 1_000_000;
/// Messages asked for at a time. A server lets 1,000 be unacknowledged, unless told otherwise.
const PAGE: u32 = 256;
/// How long the server keeps a request for a page, in ns.
const PAGE_WAIT_NS: u64 = 3_600_000_000_000;

/// The numbers of our subscriptions: answers to sends, pages, and the consumer.
const ANSWERS: u64 = 1;
const PAGES: u64 = 2;
const CONSUMER: u64 = 3;

/// One client of JetStream.
#[derive(Debug, Default)]
pub(super) struct JetStream {
    user: String,
    /// Messages of the page that have not come.
    page_left: u32,
    /// A page is to be asked for.
    page_due: bool,
    pings: u32,
    /// Acknowledgements to be sent, as they are written.
    owed: Vec<u8>,
}

/// Appends what makes the stream, to be said once before any user comes. The answer goes to the
/// subject `made`.
pub(crate) fn create_stream(out: &mut Vec<u8>) {
    nats_wire::connect(out, true);
    nats_wire::subscribe(out, &["made"], 1);
    let config = format!(
        "{{\"name\":\"{STREAM}\",\"subjects\":[\"inbox.>\"],\"retention\":\"workqueue\",\
         \"storage\":\"file\",\"num_replicas\":1,\"discard\":\"old\",\"max_consumers\":{CONSUMERS_MAX},\
         \"max_msgs\":-1,\"max_bytes\":-1,\"max_age\":0}}"
    );
    let subject = ["$JS.API.STREAM.CREATE.", STREAM];
    nats_wire::publish(out, &subject, &["made"], config.as_bytes());
}

/// Whether the server has answered [`create_stream`]; what went wrong, if something did.
///
/// # Errors
/// The bytes are not the protocol's.
pub(crate) fn stream_created(bytes: &[u8]) -> Result<Option<Result<(), Box<str>>>, Garbled> {
    let mut answer = None;
    Cursor::all(bytes, |cursor| {
        match nats_wire::read(cursor)? {
            Said::Message { payload, .. } => {
                let payload = cursor.slice(payload);
                answer = Some(if names_error(payload) {
                    Err(text(payload))
                } else {
                    Ok(())
                });
            }
            Said::Error(text) => answer = Some(Err(text)),
            Said::Ping | Said::Pong | Said::Aside => {}
        }
        Ok(())
    })?;
    Ok(answer)
}

impl JetStream {
    /// The name of the user's consumer: one token, so without dots.
    fn durable(&self) -> String {
        self.user.replace('.', "-")
    }

    fn read(&mut self, cursor: &mut Cursor<'_>, heard: &mut Vec<Heard>) -> Result<(), Stop> {
        match nats_wire::read(cursor)? {
            Said::Message {
                subject,
                subscription: ANSWERS,
                headers,
                payload,
                ..
            } => {
                let last = subject.rsplit(|&byte| byte == b'.').next();
                let number = number(last.unwrap_or_default())?;
                let payload = cursor.slice(payload);
                let outcome = if !headers.is_empty() {
                    Outcome::Refused(status(headers))
                } else if names_error(payload) {
                    Outcome::Refused(text(payload))
                } else {
                    Outcome::Stored
                };
                heard.push(Heard::Answered { number, outcome });
            }
            // A message with a status only: the page's time is over, or something is wrong.
            Said::Message {
                subscription: PAGES,
                headers,
                reply: None,
                ..
            } => {
                self.page_left = 0;
                self.page_due = true;
                let status = status(headers);
                if !status.starts_with("404") && !status.starts_with("408") {
                    heard.push(Heard::Closing(status));
                    return Err(Stop::Garbled);
                }
            }
            Said::Message {
                subscription: PAGES,
                reply: Some(acknowledge),
                payload,
                ..
            } => {
                let subject = str::from_utf8(acknowledge).map_err(|_| Stop::Garbled)?;
                nats_wire::publish(&mut self.owed, &[subject], &[], b"");
                heard.push(Heard::Delivered { payload });
                self.page_left = self.page_left.saturating_sub(1);
                self.page_due = self.page_left == 0;
            }
            Said::Message {
                subscription: CONSUMER,
                headers,
                payload,
                ..
            } => {
                let payload = cursor.slice(payload);
                if !headers.is_empty() || names_error(payload) {
                    let words = if headers.is_empty() {
                        text(payload)
                    } else {
                        status(headers)
                    };
                    heard.push(Heard::Closing(words));
                    return Err(Stop::Garbled);
                }
                self.page_due = true;
                heard.push(Heard::LoggedIn { waiting: None });
            }
            Said::Ping => self.pings += 1,
            Said::Error(text) => heard.push(Heard::Closing(text)),
            Said::Pong | Said::Aside => {}
            Said::Message { .. } => return Err(Stop::Garbled),
        }
        Ok(())
    }
}

impl Dialect for JetStream {
    fn login(&mut self, user: &str, out: &mut Vec<u8>) {
        self.user = user.to_owned();
        nats_wire::connect(out, true);
        nats_wire::subscribe(out, &["_A.", user, ".*"], ANSWERS);
        nats_wire::subscribe(out, &["_P.", user], PAGES);
        nats_wire::subscribe(out, &["_C.", user], CONSUMER);
        let durable = self.durable();
        let config = format!(
            "{{\"stream_name\":\"{STREAM}\",\"config\":{{\"durable_name\":\"{durable}\",\
             \"deliver_policy\":\"all\",\"ack_policy\":\"explicit\",\"replay_policy\":\"instant\",\
             \"filter_subject\":\"inbox.{user}\"}}}}"
        );
        let subject = ["$JS.API.CONSUMER.DURABLE.CREATE.", STREAM, ".", &durable];
        nats_wire::publish(out, &subject, &["_C.", user], config.as_bytes());
    }

    fn send(&mut self, number: u64, target: &str, message: &[u8], out: &mut Vec<u8>) {
        let mut digits = Vec::with_capacity(20);
        super::cursor::write_number(&mut digits, number);
        let number = str::from_utf8(&digits).expect("digits");
        let reply = ["_A.", &self.user, ".", number];
        nats_wire::publish(out, &["inbox.", target], &reply, message);
    }

    fn receive(&mut self, bytes: &[u8], heard: &mut Vec<Heard>) -> Result<usize, Garbled> {
        Cursor::all(bytes, |cursor| self.read(cursor, heard))
    }

    fn owe(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.owed);
        for _ in 0..std::mem::take(&mut self.pings) {
            out.extend_from_slice(b"PONG\r\n");
        }
        if std::mem::take(&mut self.page_due) {
            self.page_left = PAGE;
            let subject = ["$JS.API.CONSUMER.MSG.NEXT.", STREAM, ".", &self.durable()];
            let request = format!("{{\"batch\":{PAGE},\"expires\":{PAGE_WAIT_NS}}}");
            nats_wire::publish(out, &subject, &["_P.", &self.user], request.as_bytes());
        }
    }
}

/// Whether an answer of the server is an error, which is a field at the top of its JSON; none of
/// the other answers to our requests has a field of that name anywhere.
fn names_error(json: &[u8]) -> bool {
    json.windows(8).any(|part| part == b"\"error\":")
}

/// The code and the words in the first line of headers: `NATS/1.0 404 No Messages`.
fn status(headers: &[u8]) -> Box<str> {
    let line = headers.split(|&byte| byte == b'\r').next();
    let line = line.unwrap_or_default();
    text(line.strip_prefix(b"NATS/1.0").unwrap_or(line).trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::tests::in_two_pieces;

    fn client() -> Box<dyn Dialect> {
        let mut client = Box::<JetStream>::default();
        client.login("u.1", &mut Vec::new());
        client
    }

    /// What a server says, by the head of its line, the headers and the payload.
    fn said(head: &str, headers: &str, payload: &str) -> String {
        let len = headers.len() + payload.len();
        let headers_len = match headers.len() {
            0 => String::new(),
            len => format!(" {len}"),
        };
        format!("{head}{headers_len} {len}\r\n{headers}{payload}\r\n")
    }

    #[test]
    fn a_session_is_read_wherever_it_is_cut() {
        let error = "{\"error\":{\"code\":503,\"description\":\"a b c\"}}";
        let bytes = [
            "INFO {}\r\n",
            &said("MSG _C.u.1 3", "", "{\"name\":\"u-1\"}"),
            &said("MSG inbox.u.1 2 $JS.ACK.IRIS.u-1.1.1.1.0.0", "", "hello"),
            &said("HMSG _P.u.1 2", "NATS/1.0 408 Request Timeout\r\n\r\n", ""),
            &said("MSG _A.u.1.77 1", "", "{\"stream\":\"IRIS\", \"seq\":1}"),
            &said("MSG _A.u.1.78 1", "", error),
            &said("HMSG _A.u.1.79 1", "NATS/1.0 503\r\n\r\n", ""),
            "PING\r\n",
        ];
        in_two_pieces(bytes.concat().as_bytes(), client, |told, owed| {
            let refused = format!("78: refused: {error}");
            let expected = [
                "logged in",
                "hello",
                "77: stored",
                &refused,
                "79: refused: 503",
            ];
            assert_eq!(told, expected);
            let owed = String::from_utf8_lossy(owed);
            let count = |part| owed.matches(part).count();
            assert_eq!(
                count("PUB $JS.ACK.IRIS.u-1.1.1.1.0.0 0\r\n\r\n"),
                1,
                "{owed}"
            );
            // Once for the login and once after the time-out, unless both came together.
            let page = "PUB $JS.API.CONSUMER.MSG.NEXT.IRIS.u-1 _P.u.1 37\r\n\
                {\"batch\":256,\"expires\":3600000000000}\r\n";
            assert!((1..=2).contains(&count(page)), "{owed}");
            assert_eq!(count("PONG\r\n"), 1);
        });
    }

    #[test]
    fn a_page_is_asked_for_when_the_last_has_come() {
        let mut client = JetStream::default();
        let (mut heard, mut out) = (Vec::new(), Vec::new());
        client.login("u.1", &mut out);
        client
            .receive(b"MSG _C.u.1 3 2\r\n{}\r\n", &mut heard)
            .expect("sound");
        let asks = |client: &mut JetStream| {
            let mut out = Vec::new();
            client.owe(&mut out);
            String::from_utf8_lossy(&out).contains("CONSUMER.MSG.NEXT.IRIS.u-1 _P.u.1 ")
        };
        assert!(asks(&mut client) && !asks(&mut client));
        for nth in 1..=PAGE {
            client
                .receive(b"MSG inbox.u.1 2 $JS.ACK.x 1\r\nm\r\n", &mut heard)
                .expect("sound");
            assert_eq!(asks(&mut client), nth == PAGE, "message {nth}");
        }
    }

    #[test]
    fn a_message_names_where_its_answer_goes() {
        let (mut client, mut out) = (JetStream::default(), Vec::new());
        client.login("u.1", &mut out);
        let login = String::from_utf8_lossy(&out).into_owned();
        assert!(login.contains("SUB _A.u.1.* 1\r\nSUB _P.u.1 2\r\nSUB _C.u.1 3\r\n"));
        assert!(login.contains("PUB $JS.API.CONSUMER.DURABLE.CREATE.IRIS.u-1 _C.u.1 "));
        out.clear();
        client.send(42, "u.2", b"hi", &mut out);
        assert_eq!(out, b"PUB inbox.u.2 _A.u.1.42 2\r\nhi\r\n");
    }

    #[test]
    fn the_answer_about_the_stream_is_told_from_an_error() {
        let made = said("MSG made 1", "", "{\"config\":{}}");
        let cut = &made.as_bytes()[..made.len() - 1];
        assert_eq!(stream_created(cut), Ok(None));
        assert_eq!(stream_created(made.as_bytes()), Ok(Some(Ok(()))));
        let error = said("MSG made 1", "", "{\"error\":{}}");
        let expected = Ok(Some(Err("{\"error\":{}}".into())));
        assert_eq!(stream_created(error.as_bytes()), expected);
        assert_eq!(stream_created(b"HELLO\r\n"), Err(Garbled));
    }
}
