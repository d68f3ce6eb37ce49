//! One connection to the gateway: written by the client's thread, read by a thread of its own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use super::client::Event;

const CONNECT_TIME: Duration = Duration::from_secs(5);
/// A gateway that takes no bytes for this long counts as lost.
const WRITE_TIME: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 64 << 10;

/// A connection.
pub(super) struct Link {
    stream: TcpStream,
    /// Which connection it is: an event of an older one says nothing about this one.
    pub number: u64,
}

impl Link {
    /// Connects, and starts the thread that reads; it ends with the connection.
    pub(super) fn open(server: &str, number: u64, events: SyncSender<Event>) -> io::Result<Link> {
        let stream = connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIME))?;
        let reader = stream.try_clone()?;
        thread::Builder::new()
            .name("iris-chat-read".to_owned())
            .spawn(move || read(reader, number, &events))?;
        Ok(Link { stream, number })
    }

    /// Writes all of it.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }
}

impl Drop for Link {
    /// Ends the reading thread, too. What was written is still delivered.
    fn drop(&mut self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn connect(server: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIME) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Hands over bytes until the connection ends. The channel is bounded: a terminal that is slower
/// than the gateway fills the socket, and the gateway keeps the rest in the inbox.
fn read(mut stream: TcpStream, number: u64, events: &SyncSender<Event>) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let event = match stream.read(&mut buffer) {
            Ok(0) => Event::Lost {
                link: number,
                why: "the gateway closed the connection".to_owned(),
            },
            Ok(len) => Event::Bytes {
                link: number,
                bytes: buffer.get(..len).unwrap_or_default().to_vec(),
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Event::Lost {
                link: number,
                why: error.to_string(),
            },
        };
        let ended = matches!(event, Event::Lost { .. });
        if events.send(event).is_err() || ended {
            return;
        }
    }
}
