//! What hostile clients do: they hold connections open by a byte at a time, end their half of them,
//! fight for a user, reset in the middle of everything, announce what they never send. Each costs
//! its own connection at most; a healthy pair exchanges messages all the time, and afterwards
//! nothing of them is left.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use iris_protocol::framed::{PREFACE, encode};
use iris_protocol::{Name, classic};

use crate::support::{
    Classic, Event, Framed, Gateway, HealthyPair, Random, login_classic, send_classic,
};

fn name(text: &str) -> Name<'_> {
    Name::parse(text.as_bytes()).expect("a name")
}

fn hello(user: &str) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    encode::login(&mut out, name(user), b"");
    out
}

/// Nothing is left but the pair.
fn all_gone(gateway: &Gateway) {
    gateway.metrics_when("all gone but the pair", |metrics| {
        metrics.sum("iris_connections") == 2
            && metrics.sum("iris_sessions") == 2
            && metrics.sum("iris_partial_bytes") == 0
            && metrics.sum("iris_store_pending_bytes") == 0
    });
}

fn reset_on_close(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket.set_linger(Some(Duration::ZERO)).expect("set");
}

#[test]
fn a_byte_at_a_time_is_a_login_timeout_or_a_session() {
    let gateway = Gateway::serving(&["--login-timeout", "2s"]);
    let pair = HealthyPair::start(&gateway);
    let mut slow: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(gateway.address()).expect("connected"))
        .collect();
    // A login of 300 bytes, of which a tenth arrives in time.
    let mut said = PREFACE.to_vec();
    encode::login(&mut said, name(&"n".repeat(255)), &[b'c'; 30]);
    let begun = Instant::now();
    for byte in said {
        for stream in &mut slow {
            // The gateway has ended those that took too long.
            let _ = stream.write_all(&[byte]);
        }
        thread::sleep(Duration::from_millis(50));
        if begun.elapsed() > Duration::from_secs(4) {
            break;
        }
    }
    gateway.metrics_when("all timed out", |metrics| {
        metrics.closed("login-timeout") == 200
    });
    drop(slow);
    // One byte in each segment is no fault, however long the stream.
    let mut out = hello("dripping");
    for sequence in 1..=30 {
        encode::send(&mut out, sequence, 0, b"dripping", b"to myself");
    }
    let mut client = Framed::connect(gateway.address());
    for byte in out {
        client.say(&[byte]);
    }
    assert!(matches!(client.hears(), Event::Welcome(_)));
    for _ in 0..30 {
        assert_eq!(client.takes().text(), "to myself");
    }
    client.leave();
    all_gone(&gateway);
    pair.end();
}

#[test]
fn half_closed_sockets_are_answered_and_ended() {
    let gateway = Gateway::serving(&[]);
    let pair = HealthyPair::start(&gateway);
    for round in 0..100 {
        let user = format!("half-{}", round % 7);
        let stream = TcpStream::connect(gateway.address()).expect("connected");
        let mut client = Classic::over(stream);
        let mut out = Vec::new();
        login_classic(&mut out, &user);
        if round % 2 == 0 {
            send_classic(&mut out, "nobody", b"last words");
        }
        client.say(&out);
        client.stream().shutdown(Shutdown::Write).expect("open");
        let heard = client.reads_to_end();
        assert!(heard.starts_with(classic::LOGIN_OK), "{round}: {heard:?}");
        let mut client = Framed::connect(gateway.address());
        client.say(&hello(&user));
        client.stream().shutdown(Shutdown::Write).expect("open");
        while client.hears() != Event::End {}
    }
    all_gone(&gateway);
    let (_, depth) = Framed::login_depth(gateway.address(), "nobody");
    assert_eq!(depth, 50, "what was said before the end counts");
    pair.end();
}

#[test]
fn a_storm_of_takeovers_ends_with_one_session() {
    let gateway = Gateway::serving(&[]);
    let pair = HealthyPair::start(&gateway);
    let at = gateway.address();
    let fighters: Vec<_> = (0..6u64)
        .map(|fighter| {
            thread::spawn(move || {
                let mut random = Random(fighter);
                let mut held = Vec::new();
                for _ in 0..300 {
                    let stream = TcpStream::connect(at).expect("connected");
                    let mut out = Vec::new();
                    if random.below(2) == 0 {
                        login_classic(&mut out, "contested");
                        for _ in 0..random.below(5) {
                            send_classic(&mut out, "contested", b"mine");
                        }
                    } else {
                        out = hello("contested");
                        for sequence in 0..random.below(5) {
                            let sequence = (fighter << 40) | (random.number() >> 30) | sequence;
                            encode::send(&mut out, sequence.max(1), 0, b"contested", b"mine");
                        }
                        let len = out.len() - random.below(4) as usize;
                        out.truncate(len);
                    }
                    let _ = (&stream).write_all(&out);
                    match random.below(3) {
                        0 => reset_on_close(&stream),
                        1 => held.push(stream),
                        _ => {}
                    }
                    if held.len() > 20 {
                        held.clear();
                    }
                }
            })
        })
        .collect();
    for fighter in fighters {
        fighter.join().expect("it fought");
    }
    all_gone(&gateway);
    let (mut last, depth) = Framed::login_depth(at, "contested");
    for _ in 0..depth {
        assert_eq!(last.takes().text(), "mine");
    }
    last.is_heard();
    last.leave();
    Framed::inbox_becomes(at, "contested", 0);
    pair.end();
}

/// Says some of it, in segments of some size, and ends in some way.
fn cuts_off(at: SocketAddr, said: &[u8], random: &mut Random) {
    let stream = TcpStream::connect(at).expect("connected");
    stream.set_nodelay(true).expect("set");
    let mut rest = &said[..random.below(said.len() as u64 + 1) as usize];
    let step = [1, 7, 100, 5_000][random.below(4) as usize];
    while !rest.is_empty() {
        let (segment, later) = rest.split_at(rest.len().min(step));
        if (&stream).write_all(segment).is_err() {
            return;
        }
        rest = later;
    }
    match random.below(4) {
        0 => reset_on_close(&stream),
        1 => {
            let _ = stream.shutdown(Shutdown::Write);
            stream
                .set_read_timeout(Some(Duration::from_secs(30)))
                .expect("set");
            let mut all = Vec::new();
            let read = (&stream).read_to_end(&mut all);
            assert!(
                !matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
                "it is not ended: {} bytes came",
                all.len()
            );
        }
        2 => {
            let _ = stream.shutdown(Shutdown::Both);
        }
        _ => {}
    }
}

#[test]
fn garbage_and_huge_lengths_and_ends_at_any_point() {
    let gateway = Gateway::serving(&["--idle-timeout", "3s", "--login-timeout", "3s"]);
    let pair = HealthyPair::start(&gateway);
    let at = gateway.address();
    let attackers: Vec<_> = (0..4u64)
        .map(|attacker| {
            thread::spawn(move || {
                let mut random = Random(0x5eed + attacker);
                for round in 0..400 {
                    let user = format!("hostile-{}", random.below(9));
                    let mut out = hello(&user);
                    if round % 3 == 0 {
                        out.clear();
                        login_classic(&mut out, &user);
                        for _ in 0..random.below(60) {
                            send_classic(&mut out, "hostile-1", &[b'x'; 300]);
                        }
                        // A message that never comes, and what looks like commands.
                        out.extend([2, 0, 9]);
                        out.extend(b"hostile-2\xff\xff");
                    } else {
                        for sequence in 1..random.below(60) {
                            encode::send(&mut out, sequence, 0, b"hostile-3", &[b'y'; 200]);
                            encode::ping(&mut out, sequence);
                            encode::follow(&mut out, b"hostile-4");
                        }
                        let length = [0, 1, 0xffff, 0x00ff_ffff, 0x0100_0001, u32::MAX];
                        out.extend(length[random.below(6) as usize].to_be_bytes());
                        out.push(random.number() as u8);
                        out.extend([0, random.below(2) as u8, 0]);
                    }
                    for _ in 0..random.below(300) {
                        out.push(random.number() as u8);
                    }
                    cuts_off(at, &out, &mut random);
                }
            })
        })
        .collect();
    for attacker in attackers {
        attacker.join().expect("each was ended");
    }
    all_gone(&gateway);
    pair.end();
}

#[test]
fn floods_from_peers_that_read_nothing_are_held_in_bounds() {
    let gateway = Gateway::serving(&["--outbox-bytes-max", "64KiB"]);
    let pair = HealthyPair::start(&gateway);
    let flooders: Vec<_> = (0..8)
        .map(|number| {
            let stream = TcpStream::connect(gateway.address()).expect("connected");
            stream
                .set_write_timeout(Some(Duration::from_millis(300)))
                .expect("set");
            thread::spawn(move || {
                let user = format!("flood-{number}");
                let mut out = hello(&user);
                for sequence in 1..=500 {
                    match number % 4 {
                        0 => encode::ping(&mut out, sequence),
                        1 => encode::presence_ask(&mut out, b"nobody"),
                        2 => encode::send(&mut out, sequence, 0, b"", b"refused"),
                        _ => encode::send(&mut out, sequence, 0, user.as_bytes(), &[b'z'; 500]),
                    }
                }
                let head = hello(&user).len();
                let mut stream = stream;
                let _ = stream.write_all(&out);
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_secs(3) {
                    if stream.write_all(&out[head..]).is_err() {
                        thread::sleep(Duration::from_millis(100));
                    }
                }
                stream
            })
        })
        .collect();
    let flooders: Vec<TcpStream> = flooders
        .into_iter()
        .map(|flooder| flooder.join().expect("it flooded"))
        .collect();
    let metrics = gateway.metrics();
    let held = metrics.sum("iris_outbox_bytes") + metrics.sum("iris_partial_bytes");
    // For each of them twice an outbox of answers, the chunks they lie in, and what is
    // held before its socket is left alone; and for each core what it had received in the
    // turn in which that was decided, four times 4 MiB at most.
    let bound = 8 * 5 * (64 << 10) + 2 * 4 * (4 << 20);
    assert!(held < bound, "{held} bytes are held");
    drop(flooders);
    all_gone(&gateway);
    pair.end();
}
