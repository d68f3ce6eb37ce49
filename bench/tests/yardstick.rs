//! The yardstick speaks the classic protocol: what it is measured with is what it was built for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// A yardstick of its own for a test.
struct Yardstick {
    child: Child,
    address: SocketAddr,
}

impl Yardstick {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_iris-bench"))
            .args(["limit", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        said.read_line(&mut line).expect("its first line");
        let address = line.trim().strip_prefix("listening on ");
        let address = address.expect("an address").parse().expect("an address");
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        socket.set_nodelay(true).expect("no delay");
        socket
    }

    fn log_in(&self, name: &str) -> TcpStream {
        let mut socket = self.connect();
        socket
            .write_all(format!("\x01{name}").as_bytes())
            .expect("an open socket");
        expect(&mut socket, b"\x03LOGIN_OK");
        socket
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn expect(socket: &mut TcpStream, bytes: &[u8]) {
    let mut heard = vec![0; bytes.len()];
    socket.read_exact(&mut heard).expect("an answer in time");
    assert_eq!(heard, bytes);
}

fn message(target: &str, payload: &str) -> Vec<u8> {
    let mut bytes = vec![2, 0, target.len() as u8];
    bytes.extend_from_slice(target.as_bytes());
    bytes.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    bytes.extend_from_slice(payload.as_bytes());
    bytes
}

#[test]
fn messages_reach_their_reader_in_order_as_their_payload_alone() {
    let server = Yardstick::start();
    let (mut ann, mut bob) = (server.log_in("ann"), server.log_in("bob"));
    let both = [
        message("bob", "one"),
        message("bob", "two"),
        message("nobody", "lost"),
    ];
    ann.write_all(&both.concat()).expect("an open socket");
    expect(&mut bob, b"onetwo");
    bob.write_all(&message("ann", "three"))
        .expect("an open socket");
    expect(&mut ann, b"three");
}

#[test]
fn a_send_split_at_every_byte_is_put_together() {
    let server = Yardstick::start();
    let (mut ann, mut bob) = (server.log_in("ann"), server.log_in("bob"));
    for byte in message("bob", "hello") {
        ann.write_all(&[byte]).expect("an open socket");
        thread::sleep(Duration::from_millis(2));
    }
    expect(&mut bob, b"hello");
}

#[test]
fn login_and_send_may_share_a_segment_and_the_newest_login_gets_the_messages() {
    let server = Yardstick::start();
    let mut old = server.log_in("bob");
    let mut new = server.log_in("bob");
    let mut ann = server.connect();
    let bytes = [b"\x01ann".to_vec(), message("bob", "hi")].concat();
    ann.write_all(&bytes).expect("an open socket");
    expect(&mut ann, b"\x03LOGIN_OK");
    expect(&mut new, b"hi");
    old.set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a time-out");
    assert!(
        old.read(&mut [0; 8]).is_err(),
        "the older one stays open and silent"
    );
}

#[test]
fn a_reader_that_lags_far_behind_gets_every_byte_and_that_again() {
    const MESSAGES: usize = 300;
    let server = Yardstick::start();
    let (mut ann, mut bob) = (server.log_in("ann"), server.log_in("bob"));
    let payload = "0123456789abcdef".repeat(4000);
    for _ in 0..2 {
        let payload = payload.clone();
        let writer = thread::spawn(move || {
            for _ in 0..MESSAGES {
                ann.write_all(&message("bob", &payload))
                    .expect("an open socket");
            }
            ann
        });
        // Far more than the sockets hold.
        thread::sleep(Duration::from_millis(200));
        let mut heard = vec![0; MESSAGES * 64_000];
        bob.read_exact(&mut heard).expect("all of it");
        let whole = heard
            .iter()
            .zip(b"0123456789abcdef".iter().cycle())
            .all(|(a, b)| a == b);
        assert!(whole, "bytes were lost or reordered");
        ann = writer.join().expect("a writer that was heard");
    }
}

#[test]
fn long_messages_and_deep_queues_come_whole_and_in_order() {
    let server = Yardstick::start();
    let address = server.address.to_string();
    let long = "reply --connections 100 --in-flight 4 --size 65535";
    let deep = "reply --connections 500 --in-flight 64";
    // More in one send than a socket takes.
    let much = "bursts --connections 10 --in-flight 150 --size 65535";
    for load in [long, deep, much] {
        let timing = "--rounds 1 --warm-up 0.1 --duration 0.4";
        let flags = format!("mesh --protocol classic --shape {load} {timing} --connect");
        let output = Command::new(env!("CARGO_BIN_EXE_iris-bench"))
            .args(flags.split(' '))
            .arg(&address)
            .output()
            .expect("the program");
        assert!(output.status.success(), "{output:?}");
    }
}
