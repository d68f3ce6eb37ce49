//! One HTTP request on one connection, within bounds of bytes and time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Longest request head. Scrapers send a few hundred bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Time for a request to arrive.
const REQUEST_TIME: Duration = Duration::from_secs(1);

/// Time for an answer to be taken.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Content type of Prometheus' text format.
pub(super) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An answer.
pub(super) struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

impl Response {
    /// One line of text.
    pub(super) fn text(status: u16, line: &str) -> Response {
        Response {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{line}\n"),
        }
    }
}

/// Reads a request, answers it by `route` (which gets the path without the query), and closes.
pub(super) fn serve_one(mut stream: TcpStream, route: impl Fn(&str) -> Response) -> io::Result<()> {
    let mut head = [0; HEAD_BYTES_MAX];
    let (response, with_body) = match read_head(&mut stream, &mut head)? {
        None => (Response::text(431, "the request is too long"), true),
        Some(head) => match request_line(head) {
            Some(("GET", path)) => (route(path), true),
            Some(("HEAD", path)) => (route(path), false),
            Some(_) => (Response::text(405, "only GET and HEAD"), true),
            None => (Response::text(400, "not an HTTP/1 request"), true),
        },
    };
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n",
        response.status,
        phrase(response.status),
        response.content_type,
        response.body.len()
    );
    if with_body {
        answer.push_str(&response.body);
    }
    write_within(&mut stream, answer.as_bytes(), ANSWER_TIME)
}

/// Reads up to the empty line; `None` if it does not come within the buffer.
fn read_head<'a>(
    stream: &mut TcpStream,
    head: &'a mut [u8; HEAD_BYTES_MAX],
) -> io::Result<Option<&'a [u8]>> {
    let deadline = Instant::now() + REQUEST_TIME;
    let mut len = 0;
    while len < head.len() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let received = stream.read(&mut head[len..])?;
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        len += received;
        if head[..len].windows(4).any(|window| window == b"\r\n\r\n") {
            return Ok(Some(&head[..len]));
        }
    }
    Ok(None)
}

fn write_within(stream: &mut TcpStream, mut bytes: &[u8], time: Duration) -> io::Result<()> {
    let deadline = Instant::now() + time;
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        let sent = stream.write(bytes)?;
        bytes = bytes.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// The time left, or the error that it is over.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

/// Method and path of a head; `None` if it is not HTTP/1.
fn request_line(head: &[u8]) -> Option<(&str, &str)> {
    let end = head.windows(2).position(|window| window == b"\r\n")?;
    let line = std::str::from_utf8(head.get(..end)?).ok()?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") {
        return None;
    }
    Some((method, target.split('?').next().unwrap_or(target)))
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines_are_taken_apart() {
        assert_eq!(
            request_line(b"GET /a?b=c HTTP/1.1\r\nX: y\r\n\r\n"),
            Some(("GET", "/a"))
        );
        assert_eq!(request_line(b"GET / HTTP/1.0\r\n\r\n"), Some(("GET", "/")));
        for bad in [
            &b"GET /\r\n"[..],
            b"GET / HTTP/2\r\n",
            b"GET / x HTTP/1.1\r\n",
            b"\xff\r\n",
            b"",
            b"\r\n",
        ] {
            assert_eq!(request_line(bad), None);
        }
    }
}
