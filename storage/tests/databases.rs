//! Several databases are one store: users are spread over them, sequences are never shared, and the number is the
//! folder's.

mod rig;

use std::collections::BTreeSet;
use std::fs;

use iris_storage::{FailureKind, Reply, Store, StoreError, StoreOptions};
use rig::{Rig, options};

const USERS: usize = 40;

fn name(n: usize) -> String {
    format!("user{n}")
}

#[test]
fn users_in_different_databases_are_served_alike() {
    let folder = tempfile::tempdir().expect("a folder");
    let three = || StoreOptions {
        databases: 3,
        ..options(folder.path())
    };
    let mut rig = Rig::with(three());
    for n in 0..1000 {
        let request = rig.append_request(&name(n % USERS), &n.to_be_bytes(), 0);
        rig.client.submit(request);
    }
    let mut sequences = BTreeSet::new();
    for _ in 0..1000 {
        match rig.reply() {
            Reply::Appended { sequence, .. } => assert!(sequences.insert(sequence)),
            other => panic!("{other:?}"),
        }
    }
    for n in 0..USERS {
        let (messages, lost) = rig.drain(&name(n), 7);
        let numbers: Vec<_> = messages
            .iter()
            .map(|(_, payload)| payload.clone())
            .collect();
        let expected: Vec<_> = (0..1000 / USERS)
            .map(|k| (k * USERS + n).to_be_bytes().to_vec())
            .collect();
        assert_eq!((numbers, lost), (expected, 0), "user {n}");
    }
    let metrics = rig.store.metrics();
    assert_eq!((metrics.appended, metrics.queued_writes), (1000, 0));
    assert!(metrics.commits >= 3);

    rig.burn(&name(0), u64::MAX);
    rig.close();
    // The number is the folder's: with another, users would not be found.
    let mut rig = Rig::open(folder.path());
    for n in 0..USERS {
        let expected = if n == 0 { 0 } else { 1000 / USERS as u64 };
        assert_eq!(rig.account(&name(n)).0, expected);
        let sequence = rig.append(&name(n), b"on");
        assert!(sequences.insert(sequence) && sequences.last() == Some(&sequence));
    }
    rig.close();
    for number in 0..3 {
        let users = folder.path().join(format!("inbox-{number}/keyspaces"));
        assert!(users.exists(), "database {number}");
    }
}

#[test]
fn a_store_that_lacks_one_of_its_databases_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::with(StoreOptions {
        databases: 2,
        ..options(folder.path())
    });
    for n in 0..8 {
        rig.append(&name(n), b"x");
    }
    rig.close();
    let (there, gone) = (folder.path().join("inbox-1"), folder.path().join("gone"));
    fs::rename(&there, &gone).expect("renamed");
    match Store::open(options(folder.path())) {
        Err(error @ StoreError::Damaged { .. }) => {
            assert!(error.to_string().contains("inbox-1"), "{error}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened without a database"),
    }
    fs::rename(&gone, &there).expect("renamed");
    let mut rig = Rig::open(folder.path());
    assert_eq!((0..8).map(|n| rig.account(&name(n)).0).sum::<u64>(), 8);
}

#[test]
fn a_creation_of_several_that_was_cut_short_is_begun_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let two = || StoreOptions {
        databases: 2,
        ..options(folder.path())
    };
    Rig::with(two()).close();
    // SEQUENCE comes last: without it nothing was ever acknowledged.
    fs::remove_file(folder.path().join("SEQUENCE")).expect("removed");
    fs::rename(
        folder.path().join("inbox-1"),
        folder.path().join("inbox-1.new"),
    )
    .expect("renamed");
    let mut rig = Rig::with(two());
    for n in 0..8 {
        rig.append(&name(n), b"x");
    }
    let request = rig.append_request("", b"x", 0);
    assert_eq!(rig.failure(request), FailureKind::BadRequest);
    rig.close();
    // Gone later, it is damage: it counts what is in use.
    fs::remove_file(folder.path().join("SEQUENCE")).expect("removed");
    assert!(matches!(
        Store::open(two()),
        Err(StoreError::Damaged { .. })
    ));
}
