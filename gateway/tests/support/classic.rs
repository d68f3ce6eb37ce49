//! A client of the classic protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use iris_protocol::{Name, classic};

use super::PATIENCE;

/// A connection that speaks classic.
pub struct Classic {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Classic {
    /// Connects and says nothing.
    pub fn connect(address: SocketAddr) -> Classic {
        Classic::over(TcpStream::connect(address).expect("connected"))
    }

    /// On a socket that is connected already.
    pub fn over(stream: TcpStream) -> Classic {
        stream.set_nodelay(true).expect("set");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
        Classic {
            stream,
            received: Vec::new(),
        }
    }

    /// Connects and logs in.
    #[track_caller]
    pub fn login(address: SocketAddr, user: &str) -> Classic {
        let mut client = Classic::connect(address);
        client.become_user(user);
        client
    }

    /// Logs in, for the first time or again.
    #[track_caller]
    pub fn become_user(&mut self, user: &str) {
        let mut out = Vec::new();
        login(&mut out, user);
        self.say(&out);
        self.reads_exactly(classic::LOGIN_OK);
    }

    /// Writes bytes.
    #[track_caller]
    pub fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("written");
    }

    /// Sends a message.
    pub fn send(&mut self, target: &str, message: &[u8]) {
        let mut out = Vec::new();
        send(&mut out, target, message);
        self.say(&out);
    }

    /// Reads so many bytes.
    #[track_caller]
    pub fn read(&mut self, len: usize) -> Vec<u8> {
        while self.received.len() < len {
            let mut piece = vec![0; 64 << 10];
            let read = self.stream.read(&mut piece).unwrap_or_else(|error| {
                let head = &self.received[..self.received.len().min(200)];
                let text = String::from_utf8_lossy(head);
                panic!("{error} after {} bytes: {text}", self.received.len())
            });
            assert!(read > 0, "it ended after {} bytes", self.received.len());
            self.received.extend_from_slice(&piece[..read]);
        }
        let rest = self.received.split_off(len);
        std::mem::replace(&mut self.received, rest)
    }

    /// The next bytes are these.
    #[track_caller]
    pub fn reads_exactly(&mut self, bytes: &[u8]) {
        let read = self.read(bytes.len());
        assert_eq!(
            String::from_utf8_lossy(&read),
            String::from_utf8_lossy(bytes)
        );
    }

    /// Nothing comes for a while, and the connection stays.
    #[track_caller]
    pub fn reads_nothing_for(&mut self, while_: Duration) {
        assert_eq!(String::from_utf8_lossy(&self.received), "");
        self.stream.set_read_timeout(Some(while_)).expect("set");
        let mut piece = [0; 64];
        match self.stream.read(&mut piece) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(0) => panic!("it ended"),
            Ok(len) => panic!("it got {:?}", String::from_utf8_lossy(&piece[..len])),
            Err(error) => panic!("{error}"),
        }
        self.stream.set_read_timeout(Some(PATIENCE)).expect("set");
    }

    /// The gateway ends the connection without a further word.
    #[track_caller]
    pub fn sees_the_end(mut self) {
        let mut rest = std::mem::take(&mut self.received);
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("it does not end: {error}"),
        }
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// All that comes until the gateway ends the connection.
    pub fn reads_to_end(mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.received);
        self.stream.read_to_end(&mut rest).expect("it ends");
        rest
    }

    /// Ends its side and reads until the gateway has ended its own: whatever was said has been read.
    #[track_caller]
    pub fn leave(self) {
        self.stream
            .shutdown(std::net::Shutdown::Write)
            .expect("open");
        self.reads_to_end();
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The next connection that closes sends RST instead of FIN.
    pub fn will_reset(&self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("set");
    }
}

/// Appends a login.
pub fn login(out: &mut Vec<u8>, user: &str) {
    classic::encode_login(out, Name::parse(user.as_bytes()).expect("a name"));
}

/// Appends a send.
pub fn send(out: &mut Vec<u8>, target: &str, message: &[u8]) {
    let target = Name::parse(target.as_bytes()).expect("a name");
    classic::encode_send(out, target, message);
}
