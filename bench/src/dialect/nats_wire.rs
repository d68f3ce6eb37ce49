//! What NATS servers and clients say to each other: the client protocol, shared by the dialects of
//! core NATS and of JetStream.
//!
//! Source of the layout: <https://docs.nats.io/reference/reference-protocols/nats-protocol>.

use std::ops::Range;

use super::cursor::{Cursor, Stop, number, text, write_number};

/// The largest message we would take, in bytes; a server's own limit is 1 MiB by default.
const PAYLOAD_MAX: usize = 8 << 20;

/// One thing a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// `MSG` or `HMSG`.
    Message {
        subject: &'a [u8],
        /// The number that we gave to the subscription.
        subscription: u64,
        reply: Option<&'a [u8]>,
        /// Headers, in their own lines; empty with `MSG`.
        headers: &'a [u8],
        payload: Range<usize>,
    },
    Ping,
    Pong,
    /// `-ERR`, with its text.
    Error(Box<str>),
    /// `INFO` and `+OK`.
    Aside,
}

/// Reads one unit.
pub(super) fn read<'a>(cursor: &mut Cursor<'a>) -> Result<Said<'a>, Stop> {
    let line = cursor.line()?;
    let (verb, rest) = match line.iter().position(|&byte| is_blank(byte)) {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, &[][..]),
    };
    let is = |name: &str| verb.eq_ignore_ascii_case(name.as_bytes());
    if is("MSG") {
        message(cursor, rest, false)
    } else if is("HMSG") {
        message(cursor, rest, true)
    } else if is("PING") {
        Ok(Said::Ping)
    } else if is("PONG") {
        Ok(Said::Pong)
    } else if is("-ERR") {
        Ok(Said::Error(text(rest)))
    } else if is("INFO") || is("+OK") {
        Ok(Said::Aside)
    } else {
        Err(Stop::Garbled)
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// `subject sid [reply] [headers'] length`, then the bytes.
fn message<'a>(
    cursor: &mut Cursor<'a>,
    fields: &'a [u8],
    with_headers: bool,
) -> Result<Said<'a>, Stop> {
    let mut words = fields
        .split(|&byte| is_blank(byte))
        .filter(|word| !word.is_empty());
    let mut next = || words.next();
    let found = [next(), next(), next(), next(), next(), next()];
    let (subject, subscription, reply, headers_len, last) = match (with_headers, found) {
        (false, [Some(a), Some(b), Some(len), None, ..]) => (a, b, None, None, len),
        (false, [Some(a), Some(b), reply, Some(len), None, _]) => (a, b, reply, None, len),
        (true, [Some(a), Some(b), head, Some(len), None, _]) => (a, b, None, head, len),
        (true, [Some(a), Some(b), reply, head, Some(len), None]) => (a, b, reply, head, len),
        _ => return Err(Stop::Garbled),
    };
    let subscription = number(subscription)?;
    let headers_len: usize = headers_len.map_or(Ok(0), number)?;
    let len: usize = number(last)?;
    if headers_len > len || len > PAYLOAD_MAX {
        return Err(Stop::Garbled);
    }
    let headers = cursor.take(headers_len)?;
    let payload = cursor.take(len - headers_len)?;
    cursor.line_end()?;
    Ok(Said::Message {
        subject,
        subscription,
        reply,
        headers: cursor.slice(headers),
        payload,
    })
}

/// Appends the first words of a client. `headers`: messages of the server's own may carry some.
pub(super) fn connect(out: &mut Vec<u8>, headers: bool) {
    out.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",");
    out.extend_from_slice(b"\"version\":\"1\",\"protocol\":1,\"name\":\"iris-bench\"");
    if headers {
        out.extend_from_slice(b",\"headers\":true,\"no_responders\":true");
    }
    out.extend_from_slice(b"}\r\n");
}

/// Appends a subscription of `subject`, the parts of which are joined, by the number `subscription`.
pub(super) fn subscribe(out: &mut Vec<u8>, subject: &[&str], subscription: u64) {
    out.extend_from_slice(b"SUB ");
    join(out, subject);
    out.push(b' ');
    write_number(out, subscription);
    out.extend_from_slice(b"\r\n");
}

/// Appends a message. `reply` is empty if no answer is asked for.
pub(super) fn publish(out: &mut Vec<u8>, subject: &[&str], reply: &[&str], payload: &[u8]) {
    out.extend_from_slice(b"PUB ");
    join(out, subject);
    out.push(b' ');
    if !reply.is_empty() {
        join(out, reply);
        out.push(b' ');
    }
    write_number(out, payload.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

fn join(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Garbled;

    fn said(bytes: &[u8]) -> Result<Vec<String>, Garbled> {
        let mut all = Vec::new();
        let used = Cursor::all(bytes, |cursor| {
            all.push(format!("{:?}", read(cursor)?));
            Ok(())
        })?;
        assert_eq!(used, bytes.len());
        Ok(all)
    }

    #[test]
    fn the_examples_of_the_protocols_own_pages_are_read() {
        // With and without a reply, with headers, in small letters, with more than one blank.
        let bytes =
            b"MSG FOO.BAR 9 11\r\nHello World\r\nMSG FOO.BAR 9 GREETING.34 11\r\nHello World\r\n\
            HMSG FOO.BAR 9 34 45\r\nNATS/1.0\r\nFoodGroup: vegetable\r\n\r\nHello World\r\n\
            HMSG FOO.BAR 9 BAZ.69 34 45\r\nNATS/1.0\r\nFoodGroup: vegetable\r\n\r\nHello World\r\n\
            msg a  1\t0\r\n\r\n-ERR 'Unknown Protocol Operation'\r\n+OK\r\nPONG\r\n";
        let mut heard = Vec::new();
        let used = Cursor::all(bytes, |cursor| {
            if let Said::Message {
                reply,
                headers,
                payload,
                ..
            } = read(cursor)?
            {
                heard.push((
                    reply.map(<[u8]>::len),
                    headers.len(),
                    bytes[payload].to_vec(),
                ));
            }
            Ok(())
        });
        assert_eq!(used, Ok(bytes.len()));
        let world = b"Hello World".to_vec();
        let expected = [
            (None, 0, world.clone()),
            (Some(11), 0, world.clone()),
            (None, 34, world.clone()),
            (Some(6), 34, world),
            (None, 0, Vec::new()),
        ];
        assert_eq!(heard, expected);
        let all = said(bytes).expect("sound");
        assert_eq!(all[5], "Error(\"'Unknown Protocol Operation'\")");
    }

    #[test]
    fn what_is_no_message_is_garbled() {
        for wrong in [
            "HELLO\r\n",
            "MSG a\r\n",
            "MSG a b 1\r\nx\r\n",
            "MSG a 1 r e 1\r\nx\r\n",
            "HMSG a 1 5\r\nxxxxx\r\n",
            "HMSG a 1 6 5\r\nxxxxx\r\n",
            "MSG a 1 99999999999\r\n",
            "MSG a 1 1\r\nxyz",
        ] {
            assert_eq!(said(wrong.as_bytes()), Err(Garbled), "{wrong:?}");
        }
    }

    #[test]
    fn a_client_writes_what_the_protocols_own_pages_show() {
        let mut out = Vec::new();
        subscribe(&mut out, &["FOO.", "BAR"], 11);
        publish(&mut out, &["FOO"], &[], b"Hello NATS!");
        publish(&mut out, &["FRONT.DOOR"], &["JOKE.", "22"], b"Knock Knock");
        let expected = "SUB FOO.BAR 11\r\nPUB FOO 11\r\nHello NATS!\r\n\
            PUB FRONT.DOOR JOKE.22 11\r\nKnock Knock\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
