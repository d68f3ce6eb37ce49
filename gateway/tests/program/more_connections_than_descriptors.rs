//! A core whose ring may hold only as many sockets as the process may have descriptors opens further
//! rings: with a handful of descriptors, hundreds of users are served, and sockets still move to
//! their users' homes.

use iris_protocol::Outcome;

use crate::support::{Classic, Framed, Gateway};

const DESCRIPTORS: u32 = 64;
const FRAMED: usize = 300;
const CLASSIC: usize = 100;

#[test]
fn hundreds_of_users_with_a_handful_of_descriptors() {
    let mut gateway =
        Gateway::serving_with_descriptors(DESCRIPTORS, &["--max-connections", "2000"]);
    let at = gateway.address();
    let user = |number: usize| format!("crowd-{number}");
    for round in 0..2 {
        let mut framed: Vec<Framed> = (0..FRAMED).map(|n| Framed::login(at, &user(n))).collect();
        let mut classic: Vec<Classic> = (FRAMED..FRAMED + CLASSIC)
            .map(|number| Classic::login(at, &user(number)))
            .collect();
        let everybody = FRAMED + CLASSIC;
        let metrics = gateway.metrics_when("all logged in", |metrics| {
            metrics.sum("iris_sessions") == everybody as u64
        });
        assert!(metrics.sum("iris_handed_over_total") > everybody as u64 / 4);
        // Everyone writes to the next but some, so that most messages cross rings and cores.
        let target = |number: usize| (number + 67) % everybody;
        let sequences: Vec<u64> = framed
            .iter_mut()
            .enumerate()
            .map(|(number, client)| client.send(&user(target(number)), b"from framed!"))
            .collect();
        for (number, client) in classic.iter_mut().enumerate() {
            client.send(&user(target(FRAMED + number)), b"from classic");
        }
        for client in &mut framed {
            assert!(client.takes().text().starts_with("from "));
        }
        for client in &mut classic {
            assert!(client.read(12).starts_with(b"from "));
        }
        for (client, sequence) in framed.iter_mut().zip(sequences) {
            let outcome = client.outcome(sequence);
            assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        }
        // One classic socket goes through users all over.
        let mut socket = classic.pop().expect("some");
        for number in 0..100 {
            socket.become_user(&format!("round-{round}-{number}"));
        }
        // The rest goes as it will, and its slots serve the next round.
        drop((framed, classic, socket));
        gateway.metrics_when("all gone", |metrics| metrics.sum("iris_connections") == 0);
    }
    let metrics = gateway.metrics();
    assert_eq!(metrics.closed("server-full"), 0);
    assert_eq!(metrics.closed("internal"), 0);
    gateway.stop();
}
