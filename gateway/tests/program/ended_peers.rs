//! Peers end in every way and at every point: no connection outlives them, and nobody else is kept out.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use iris_protocol::framed::{PREFACE, encode};
use iris_protocol::{CloseReason, Name};
use rustix::process::Signal;

use crate::support::{Classic, Event, Framed, Gateway, eventually, login_classic, send_classic};

/// More than the kernel receives in one go, and less than the message has.
const CUT_AT: usize = 46_900;
const PEERS: usize = 1_500;
const CONNECTIONS_MAX: &str = "400";

/// A login and the better part of a message.
fn framed_cut(user: &str) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    let name = Name::parse(user.as_bytes()).expect("a name");
    encode::login(&mut bytes, name, b"");
    encode::send(&mut bytes, 1, 0, b"anybody", &[b'm'; 65_536]);
    bytes.truncate(CUT_AT);
    bytes
}

fn classic_cut(user: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    login_classic(&mut bytes, user);
    send_classic(&mut bytes, "anybody", &[b'm'; 65_535]);
    bytes.truncate(CUT_AT);
    bytes
}

/// Says so much and resets.
fn resets(at: SocketAddr, bytes: &[u8]) {
    let mut client = Classic::connect(at);
    client.will_reset();
    client.say(bytes);
}

#[test]
fn peers_that_reset_within_a_message_leave_nothing() {
    let gateway = Gateway::serving(&["--max-connections", CONNECTIONS_MAX]);
    let at = gateway.address();
    for (name, cut) in [
        ("framed", framed_cut as fn(&str) -> Vec<u8>),
        ("classic", classic_cut),
    ] {
        for peer in 0..PEERS {
            resets(at, &cut(&format!("{name}-{peer}")));
        }
        let metrics = gateway.metrics_when("all are gone", |metrics| {
            metrics.sum("iris_connections") == 0
                && metrics.sum("iris_sessions") == 0
                && metrics.sum("iris_partial_bytes") == 0
        });
        assert_eq!(metrics.sum("iris_socket_faults_total"), 0);
    }
    let mut newcomer = Framed::login(at, "newcomer");
    newcomer.is_heard();
}

/// A connection whose user's home is the other core has bytes to be sent first, and its peer is gone.
#[test]
fn a_peer_that_resets_before_its_connection_moves_is_let_go_at_once() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let users = [0, 1].map(|core| gateway.users_of(core, "mover", 1).remove(0));
    for sender in &users {
        for number in 0..2_000u32 {
            let mut client = Classic::login(at, &users[(number % 2) as usize]);
            client.send(&users[0], &[b'x'; 2_000]);
            client.send(sender, &[b'y'; 2_000]);
            let mut relogin = Vec::new();
            login_classic(&mut relogin, &users[(number % 2) as usize ^ 1]);
            client.say(&relogin);
            client.will_reset();
            if number % 500 == 499 {
                drop(client);
                break;
            }
        }
    }
    let began = Instant::now();
    let metrics = gateway.metrics_when("all are gone", |metrics| {
        metrics.sum("iris_connections") == 0
    });
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "sooner than any time-out"
    );
    assert_eq!(metrics.closed("server-full"), 0);
    assert_eq!(metrics.sum("iris_socket_faults_total"), 0);
}

/// Classic clients have no ping: TCP looks after those that are gone without a word.
#[test]
fn every_connection_is_kept_alive_by_tcp() {
    let gateway = Gateway::serving(&[]);
    let clients = [
        Classic::login(gateway.address(), "anna")
            .stream()
            .try_clone(),
        Framed::login(gateway.address(), "bert")
            .stream()
            .try_clone(),
    ];
    for client in clients {
        let client = client.expect("a handle");
        let port = client.local_addr().expect("connected").port();
        // The gateway's end; timer 2 is the one of keep-alive.
        let timer = eventually("its end in the kernel's table", || {
            let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
            table.lines().find_map(|line| {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                let is_its = fields.get(2)?.ends_with(&format!(":{port:04X}"));
                (is_its && fields[3] == "01").then(|| fields[5].to_string())
            })
        });
        assert!(timer.starts_with("02:"), "timer {timer}");
    }
}

#[test]
fn a_classic_connection_is_closed_as_idle_if_that_is_asked_for() {
    let gateway = Gateway::serving(&["--classic-idle-timeout", "1s"]);
    let at = gateway.address();
    let silent = Classic::login(at, "silent");
    let mut busy = Classic::login(at, "busy");
    let mut reader = Classic::login(at, "reader");
    let mut sender = Framed::login(at, "sender");
    // Whoever says something stays, and whoever takes messages.
    for _ in 0..25 {
        busy.say(&[3]);
        sender.send("reader", b"m");
        reader.reads_exactly(b"m");
        thread::sleep(Duration::from_millis(100));
    }
    silent.sees_the_end();
    busy.send("reader", b"still here");
    reader.reads_exactly(b"still here");
    let metrics = gateway.metrics_when("one was idle", |metrics| {
        metrics.closed("idle-timeout") == 1
    });
    assert_eq!(metrics.closed("idle-timeout"), 1);
}

/// The process is stopped for longer than the idle time-out, while its clients ping on.
#[test]
fn whoever_pinged_while_the_gateway_was_stopped_stays() {
    let gateway = Gateway::serving(&["--idle-timeout", "1s"]);
    let at = gateway.address();
    let mut pinging: Vec<Framed> = (0..50)
        .map(|number| Framed::login(at, &format!("pinging-{number}")))
        .collect();
    let mut silent = Framed::login(at, "silent");
    // What its store is asked for ends the turns of a core early, before all was read.
    let mut flood: Vec<Framed> = (0..40)
        .map(|number| Framed::login(at, &format!("flood-{number}")))
        .collect();
    let mut ping = Vec::new();
    encode::ping(&mut ping, 1);
    gateway.signal(Signal::STOP);
    for client in &mut flood {
        for number in 0..800 {
            client.send(&format!("away-{number}"), b"while it sleeps");
        }
    }
    for _ in 0..15 {
        for client in &mut pinging {
            client.say(&ping);
        }
        thread::sleep(Duration::from_millis(100));
    }
    gateway.signal(Signal::CONT);
    for client in &mut pinging {
        client.hears_such(|event| (*event == Event::Pong(1)).then_some(()));
        client.say(&ping);
    }
    assert_eq!(silent.is_closed().0, CloseReason::IdleTimeout);
    let metrics = gateway.metrics_when("the pause was noticed", |metrics| {
        metrics.sum("iris_late_turns_total") > 0
    });
    assert!(
        metrics.closed("idle-timeout") <= 5,
        "none of those that pinged"
    );
}
