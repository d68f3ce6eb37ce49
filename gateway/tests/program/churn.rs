//! Connections come and go by the thousands while traffic flows, so that sockets, slots of the rings
//! and entries of the shards are used again and again: nobody is given what is somebody else's.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use iris_protocol::Outcome;

use crate::support;
use crate::support::{Classic, Framed, Gateway, Random};

const THREADS: u64 = 4;
const CONNECTIONS_EACH: u64 = 2_000;
/// So that there are several small tables, and each slot has many tenants.
const DESCRIPTORS: u32 = 64;

/// A message says for whom it is.
fn message_for(user: &str, number: u64) -> Vec<u8> {
    format!("<{user} {number}>").into_bytes()
}

/// Everything a classic reader got is whole messages for that reader.
#[track_caller]
fn is_all_for(user: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for message in text.split_inclusive('>') {
        assert!(
            format!("<{user} ").starts_with(message) || message.starts_with(&format!("<{user} ")),
            "{user} got {message:?}"
        );
    }
}

/// One short life of a connection, which ends in some way or other.
fn lives(at: SocketAddr, user: &str, peer: &str, random: &mut Random) {
    let number = random.number();
    match random.below(5) {
        // A whole one.
        0 => {
            let mut client = Framed::login(at, user);
            client.send(user, &message_for(user, number));
            client.send(peer, &message_for(peer, number));
            loop {
                let message = client.takes();
                is_all_for(user, &message.payload);
                if message.payload == message_for(user, number) {
                    break;
                }
            }
            client.leave();
        }
        // One that reads what comes for a while and is gone.
        1 => {
            let mut client = Classic::login(at, user);
            client.send(user, &message_for(user, number));
            client.send(peer, &message_for(peer, number));
            let mut stream = client.stream();
            stream
                .set_read_timeout(Some(Duration::from_millis(5)))
                .expect("set");
            let mut bytes = vec![0; 4096];
            if let Ok(len) = stream.read(&mut bytes) {
                is_all_for(user, &bytes[..len]);
            }
            if random.below(2) == 0 {
                client.will_reset();
            }
        }
        // One that becomes somebody else.
        2 => {
            let mut client = Classic::login(at, &format!("{user}-at-first"));
            client.become_user(&format!("{user}-then"));
            client.send(peer, &message_for(peer, number));
        }
        // One that does not wait for its welcome; it may yet come in behind a later one.
        3 => {
            let mut client = Framed::connect(at);
            client.asks_in(&format!("{user}-in-haste"), b"");
            client.send(peer, &message_for(peer, number));
        }
        // One that says nothing.
        _ => drop(TcpStream::connect(at).expect("connected")),
    }
}

#[test]
fn slots_that_are_used_again_belong_to_one_connection_at_a_time() {
    let gateway = Gateway::serving_with_descriptors(DESCRIPTORS, &["--max-connections", "2000"]);
    let at = gateway.address();
    let done = AtomicBool::new(false);
    let steady = |core: usize| gateway.users_of(core, "steady", 2);
    let steady: Vec<String> = [steady(0), steady(1)].concat();
    thread::scope(|scope| {
        // Who stays: each writes to the next, and takes what comes from everybody.
        let readers: Vec<_> = steady
            .iter()
            .enumerate()
            .map(|(at_steady, user)| {
                let next = &steady[(at_steady + 1) % steady.len()];
                let done = &done;
                scope.spawn(move || {
                    let mut client = Framed::login(at, user);
                    let (mut number, mut taken) = (0, 0);
                    while !done.load(Ordering::SeqCst) {
                        number += 1;
                        client.send(next, &message_for(next, number));
                        while let Some(event) = client.hears_within(Duration::from_millis(1)) {
                            if let support::Event::Deliver(message) = event {
                                client.ack(message.delivery);
                                is_all_for(user, &message.payload);
                                taken += 1;
                            }
                        }
                    }
                    number + taken
                })
            })
            .collect();
        let comers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let steady = &steady;
                scope.spawn(move || {
                    let mut random = Random(thread + 1);
                    for life in 0..CONNECTIONS_EACH {
                        // The same few users again and again, here and on other connections.
                        let user = format!("comer-{thread}-{}", random.below(20));
                        let peer = match random.below(2) {
                            0 => steady[(life % 4) as usize].clone(),
                            _ => format!("comer-{}-{}", random.below(THREADS), random.below(20)),
                        };
                        lives(at, &user, &peer, &mut random);
                    }
                })
            })
            .collect();
        for comer in comers {
            comer.join().expect("nobody got what was somebody else's");
        }
        done.store(true, Ordering::SeqCst);
        for reader in readers {
            assert!(reader.join().expect("nor did those who stayed") > 10);
        }
    });
    gateway.metrics_when("all are gone", |metrics| {
        metrics.sum("iris_connections") == 0
            && metrics.sum("iris_sessions") == 0
            && metrics.closed_in_all() >= THREADS * CONNECTIONS_EACH
            && metrics.sum("iris_partial_bytes") == 0
            && metrics.sum("iris_store_pending_bytes") == 0
    });
    // What is left is whole, and for whom it says.
    for thread in 0..THREADS {
        for number in 0..20 {
            let user = format!("comer-{thread}-{number}");
            let (mut client, depth) = Framed::login_depth(at, &user);
            for _ in 0..depth {
                is_all_for(&user, &client.takes().payload);
            }
            client.leave();
        }
    }
    let mut alice = Framed::login(at, "alice");
    assert_eq!(alice.sends("nobody", b"as ever"), Outcome::Stored);
}
