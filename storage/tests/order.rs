//! Order: what one client submits for one user takes effect in that order, whatever else shares the batches; and
//! a page asked after a reply sees what was replied.

mod rig;

use iris_storage::{Reply, Request, StoreOptions};
use rig::Rig;

#[test]
fn the_messages_of_a_user_stay_in_the_order_of_their_appends() {
    // Across many small batches, and within large ones, which are done in the order of keys.
    for commit_requests_max in [7, 1000] {
        the_order_holds(commit_requests_max);
    }
}

fn the_order_holds(commit_requests_max: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::with(StoreOptions {
        commit_requests_max,
        ..rig::options(folder.path())
    });
    let names: Vec<String> = (0..10).map(|n| format!("user{n}")).collect();
    for n in 0..2000u32 {
        let request = rig.append_request(&names[n as usize % 10], &n.to_be_bytes(), 0);
        rig.client.submit(request);
    }
    // Sequences follow no order between users, replies do.
    let mut last = [0; 10];
    for token in 1..=2000 {
        match rig.reply() {
            Reply::Appended {
                token: replied,
                sequence,
            } => {
                assert_eq!(replied, token);
                let last = &mut last[(token - 1) as usize % 10];
                assert!(sequence > *last);
                *last = sequence;
            }
            other => panic!("{other:?}"),
        }
    }
    for (n, name) in names.iter().enumerate() {
        let (messages, _) = rig.drain(name, 33);
        let numbers: Vec<u32> = messages
            .iter()
            .map(|(_, payload)| u32::from_be_bytes(payload[..].try_into().expect("4 bytes")))
            .collect();
        assert_eq!(
            numbers,
            (0..200).map(|k| k * 10 + n as u32).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_page_sees_every_append_that_was_answered_before_it_was_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    for n in 0..300u64 {
        let sequence = rig.append("anna", b"x");
        let page = rig.page("anna", sequence, 10);
        assert_eq!(
            page.messages.last().map(|message| message.sequence),
            Some(sequence),
            "message {n}"
        );
        if n % 3 == 0 {
            rig.burn("anna", sequence + 1);
            assert!(rig.page("anna", 0, 10).messages.is_empty());
        }
    }
}

#[test]
fn append_burn_append_of_one_breath_leaves_the_second_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    for _ in 0..50 {
        let (user, name) = (rig.user("anna"), "anna");
        let first = rig.append_request(name, b"first", 0);
        let burn = Request::Burn {
            token: rig.token(),
            user,
            name: name.into(),
            head: u64::MAX,
        };
        let second = rig.append_request(name, b"second", 0);
        for request in [first, burn, second] {
            rig.client.submit(request);
        }
        assert!(matches!(rig.reply(), Reply::Appended { .. }));
        assert!(matches!(rig.reply(), Reply::Burned { .. }));
        let Reply::Appended { sequence, .. } = rig.reply() else {
            panic!("not appended")
        };
        assert_eq!(rig.drain(name, 10).0, [(sequence, b"second".to_vec())]);
        assert_eq!(rig.account(name).0, 1);
    }
}

/// A burn that leaves part of what the same batch appends has to wait for that batch; nothing else is disturbed.
#[test]
fn a_burn_into_its_own_batch_is_exact() {
    let folder = tempfile::tempdir().expect("a folder");
    let window = std::time::Duration::from_millis(50);
    let mut rig = Rig::with(StoreOptions {
        commit_window: window,
        ..rig::options(folder.path())
    });
    let base = rig.append("ben", b"x");
    for payload in [b"1", b"2", b"3"] {
        let request = rig.append_request("anna", payload, 0);
        rig.client.submit(request);
    }
    let burn = Request::Burn {
        token: rig.token(),
        user: rig.user("anna"),
        name: "anna".into(),
        head: base + 2,
    };
    rig.client.submit(burn);
    let request = rig.append_request("anna", b"4", 0);
    rig.client.submit(request);
    for _ in 0..5 {
        assert!(!matches!(rig.reply(), Reply::Failed { .. }));
    }
    let expected: Vec<(u64, Vec<u8>)> = [(2, b"2"), (3, b"3"), (4, b"4")]
        .map(|(n, payload)| (base + n, payload.to_vec()))
        .to_vec();
    assert_eq!(rig.drain("anna", 10).0, expected);
    assert_eq!(rig.account("anna").0, 3);
}
