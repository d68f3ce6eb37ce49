//! A peer that holds a conversation: it writes, reads what it cares to read, and ends. Whatever the
//! gateway does, it does not wait for long.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::conversation::{Conversation, Ending, Reading};
use crate::support::Random;

/// How long the gateway may not take what is written: it may be waiting for the peer to read.
const WRITE: Duration = Duration::from_millis(300);
/// How long a peer waits for the gateway's end.
const END: Duration = Duration::from_secs(3);

/// Holds it to its end.
pub fn holds(at: SocketAddr, conversation: &Conversation, random: &mut Random) {
    let mut stream = TcpStream::connect(at).expect("the gateway listens");
    let socket = SockRef::from(&stream);
    stream.set_nodelay(true).expect("set");
    stream.set_write_timeout(Some(WRITE)).expect("set");
    if conversation.is_narrow {
        socket.set_recv_buffer_size(1).expect("set");
    }
    for piece in &conversation.pieces {
        // The gateway may have had enough of it.
        if stream.write_all(piece).is_err() {
            break;
        }
        match conversation.reading {
            Reading::All => read(&mut stream, usize::MAX),
            Reading::Some if random.below(3) == 0 => read(&mut stream, 1_000),
            _ => {}
        }
        if random.below(12) == 0 {
            thread::sleep(Duration::from_micros(random.below(3_000)));
        }
    }
    ends(stream, conversation.ending);
}

/// Reads of what is there up to so many bytes.
fn read(stream: &mut TcpStream, max: usize) {
    stream.set_nonblocking(true).expect("set");
    let mut piece = [0; 16 << 10];
    let mut left = max;
    while left > 0 {
        match stream.read(&mut piece[..left.min(16 << 10)]) {
            Ok(len) if len > 0 => left -= len,
            _ => break,
        }
    }
    stream.set_nonblocking(false).expect("set");
}

fn ends(mut stream: TcpStream, ending: Ending) {
    match ending {
        Ending::Politely | Ending::Silently => {
            // Whoever is silent is cut off by a time-out, or leaves then.
            if ending == Ending::Politely && stream.shutdown(Shutdown::Write).is_err() {
                return;
            }
            stream.set_read_timeout(Some(END)).expect("set");
            let until = Instant::now() + END;
            let mut piece = [0; 16 << 10];
            while Instant::now() < until {
                match stream.read(&mut piece) {
                    Ok(len) if len > 0 => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    _ => break,
                }
            }
        }
        Ending::Hastily => {
            // It may be gone already.
            let _ = stream.shutdown(Shutdown::Write);
        }
        Ending::Unread => {}
        Ending::Reset => {
            let socket = SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).expect("set");
        }
    }
}
