//! The administration port: `/metrics`, `/healthz`, `/readyz`.
//!
//! A few threads of its own share one listener. They read what [`Published`] holds and never touch
//! a core, so they answer while every core is at full load. All is bounded: the threads, the bytes
//! of a request, the time for it and for its answer. A client that is slow holds one thread for a
//! few seconds; the rest wait in the kernel's accept queue.
//!
//! No HTTP library: those at hand start a thread for each connection without a bound, or bring an
//! executor. Only the request line is looked at; each connection carries one request.

mod http;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::metrics::Published;
use http::Response;

/// Requests answered at once.
const THREADS: usize = 4;

/// Wait after a failed accept (out of descriptors, say), so that a thread does not spin on it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on `address` and starts the threads, which live as long as the process. Returns the
/// address with its real port.
///
/// # Errors
/// The address cannot be listened on, or a thread not started.
pub fn start(address: SocketAddr, published: Arc<Published>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?;
    for number in 0..THREADS {
        let listener = listener.try_clone()?;
        let published = Arc::clone(&published);
        thread::Builder::new()
            .name(format!("iris-admin-{number}"))
            .spawn(move || answer_all(&listener, &published))?;
    }
    Ok(bound)
}

fn answer_all(listener: &TcpListener, published: &Published) {
    loop {
        match listener.accept() {
            // A client that goes away or dawdles is its own loss; the next one is served.
            Ok((stream, _)) => drop(http::serve_one(stream, |path| route(path, published))),
            Err(error) => {
                tracing::warn!(%error, "admin: cannot accept a connection");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// The answer to a GET of `path`.
fn route(path: &str, published: &Published) -> Response {
    match path {
        "/metrics" => Response {
            status: 200,
            content_type: http::METRICS,
            body: published.page(),
        },
        "/healthz" => Response::text(200, "alive"),
        "/readyz" => match published.readiness() {
            Ok(()) => Response::text(200, "ready"),
            Err(reason) => Response::text(503, &format!("not ready: {reason}")),
        },
        _ => Response::text(404, "not found; there are /metrics, /healthz and /readyz"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Phase;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    fn started() -> (SocketAddr, Arc<Published>) {
        let published = Arc::new(Published::new(1));
        let address = start(
            SocketAddr::from(([127, 0, 0, 1], 0)),
            Arc::clone(&published),
        )
        .expect("listening");
        (address, published)
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.write_all(request.as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }

    fn get(address: SocketAddr, path: &str) -> String {
        ask(
            address,
            &format!("GET {path} HTTP/1.1\r\nHost: iris\r\n\r\n"),
        )
    }

    #[test]
    fn health_and_readiness_follow_the_phase() {
        let (address, published) = started();
        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
        let answer = get(address, "/readyz");
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("not ready: starting\n"),
            "{answer}"
        );
        published.set_phase(Phase::Serving { listen: Vec::new() });
        assert!(get(address, "/readyz").starts_with("HTTP/1.1 200 "));
        published.set_phase(Phase::Draining);
        assert!(get(address, "/readyz").ends_with("not ready: draining\n"));
        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn metrics_are_served_whole() {
        let (address, _published) = started();
        let answer = get(address, "/metrics?x=1");
        let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", body.len())),
            "{head}"
        );
        assert!(body.contains("iris_connections{core=\"0\"} 0\n"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let (address, _published) = started();
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 404),
            ("GET /metrics/x HTTP/1.1\r\n\r\n", 404),
            ("POST /metrics HTTP/1.1\r\n\r\n", 405),
            ("nonsense\r\n\r\n", 400),
            ("GET /metrics\r\n\r\n", 400),
        ] {
            let answer = ask(address, request);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request:?}: {answer}"
            );
        }
        let head = ask(address, "HEAD /healthz HTTP/1.1\r\n\r\n");
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
    }

    #[test]
    fn a_head_without_end_is_cut_off() {
        let (address, _published) = started();
        let mut stream = TcpStream::connect(address).expect("connected");
        let long = format!("GET /healthz HTTP/1.1\r\nX: {}", "x".repeat(20_000));
        // The answer may come before all of it was taken.
        let _ = stream.write_all(long.as_bytes());
        let mut answer = [0; 12];
        // A reset for the unread rest is a refusal as well.
        if stream.read_exact(&mut answer).is_ok() {
            assert_eq!(&answer, b"HTTP/1.1 431");
        }
        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn clients_that_send_nothing_hold_it_up_for_their_time_only() {
        let (address, _published) = started();
        let idle: Vec<TcpStream> = (0..THREADS * 2)
            .map(|_| TcpStream::connect(address).expect("connected"))
            .collect();
        let begun = Instant::now();
        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{:?}",
            begun.elapsed()
        );
        drop(idle);
    }
}
