//! Damage on disk is seen, counted and stepped over: it never reaches a reader, and the rest of the inbox is whole.

mod rig;

use std::fs;
use std::path::Path;

use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use iris_storage::{FailureKind, Party, Request, Store, StoreError, UserHash};
use rig::{Rig, options, record_len};

fn message_key(user: UserHash, sequence: u64) -> Vec<u8> {
    [&user.key()[..], &sequence.to_be_bytes()].concat()
}

/// Changes one value beneath a closed store, as a flipped bit below the database's own checks would.
fn flip(folder: &Path, keyspace: &str, key: &[u8], bit: usize) {
    let database = Database::builder(folder.join("inbox-0"))
        .open()
        .expect("the database opens");
    let keyspace = database
        .keyspace(keyspace, KeyspaceCreateOptions::default)
        .expect("the keyspace");
    let mut value = keyspace
        .get(key)
        .expect("readable")
        .expect("there")
        .to_vec();
    value[bit / 8] ^= 1 << (bit % 8);
    keyspace.insert(key, value).expect("written");
    database.persist(PersistMode::SyncAll).expect("synced");
}

#[test]
fn a_flipped_bit_loses_one_record_and_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    let user = rig.user("anna");
    let sequences: Vec<u64> = (0..6u8).map(|n| rig.append("anna", &[n; 20])).collect();
    // In the middle, in every part of the record: CRC, header, sender, payload.
    for (round, bit) in [3, 8 * 10, 8 * 55, 8 * 70].into_iter().enumerate() {
        rig.close();
        flip(
            folder.path(),
            "messages",
            &message_key(user, sequences[2]),
            bit,
        );
        rig = Rig::open(folder.path());
        let (found, lost) = rig.drain("anna", 2);
        assert_eq!(lost, 1, "round {round}");
        let found: Vec<u64> = found.iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!(
            found,
            [0, 1, 3, 4, 5].map(|n| sequences[n]),
            "round {round}"
        );
        assert!(rig.store.metrics().lost >= 1);
        rig.close();
        flip(
            folder.path(),
            "messages",
            &message_key(user, sequences[2]),
            bit,
        );
        rig = Rig::open(folder.path());
        assert_eq!(
            rig.drain("anna", 2),
            (
                (0..6).map(|n| (sequences[n], vec![n as u8; 20])).collect(),
                0
            )
        );
    }
}

#[test]
fn depth_stays_exact_around_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    let user = rig.user("anna");
    let sequences: Vec<u64> = (0..8u8).map(|n| rig.append("anna", &[n; 20])).collect();
    rig.close();
    // The last two, and two that will be the first.
    for n in [3, 4, 6, 7] {
        flip(
            folder.path(),
            "messages",
            &message_key(user, sequences[n]),
            100,
        );
    }
    let mut rig = Rig::open(folder.path());
    assert_eq!(rig.account("anna").0, 8);
    rig.append("anna", &[9; 20]);
    assert_eq!(rig.account("anna").0, 9);
    rig.burn("anna", sequences[3]);
    let each = record_len(&[0; 20]);
    assert_eq!(rig.account("anna"), (6, 6 * each, 0));
    let mut rig = rig.reopen(folder.path());
    assert_eq!(rig.account("anna"), (6, 6 * each, 0));
    let (found, lost) = rig.drain("anna", 10);
    assert_eq!((found.len(), lost), (2, 4));
    // The end of a page leaves the damaged behind too: one burn and the inbox is clean.
    let next = rig.page("anna", 0, 100).next;
    rig.burn("anna", next);
    assert_eq!(rig.account("anna"), (0, 0, 0));
    assert_eq!(rig.page("anna", 0, 100).lost, 0);
}

#[test]
fn nothing_but_damage_is_counted_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    let user = rig.user("anna");
    let sequences: Vec<u64> = (0..4u8).map(|n| rig.append("anna", &[n; 20])).collect();
    rig.close();
    for sequence in &sequences {
        flip(
            folder.path(),
            "messages",
            &message_key(user, *sequence),
            100,
        );
    }
    let mut rig = Rig::open(folder.path());
    assert_eq!(rig.account("anna").0, 4);
    rig.burn("anna", sequences[1]);
    assert_eq!(rig.account("anna").0, 3);
    assert_eq!(rig.page("anna", 0, 10).lost, 3);
}

#[test]
fn a_damaged_account_is_an_error_and_not_an_empty_inbox() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    let user = rig.user("anna");
    rig.append("anna", b"kept");
    rig.close();
    flip(folder.path(), "users", &user.key(), 50);
    let mut rig = Rig::open(folder.path());
    let append = rig.append_request("anna", b"more", 0);
    assert_eq!(rig.failure(append), FailureKind::Damaged);
    let name = || "anna".into();
    let page = Request::Page {
        token: 1,
        party: Party(0),
        user,
        name: name(),
        from: 0,
        messages_max: 1,
        bytes_max: 1,
    };
    assert_eq!(rig.failure(page), FailureKind::Damaged);
    assert_eq!(
        rig.failure(Request::Burn {
            token: 2,
            user,
            name: name(),
            head: 9
        }),
        FailureKind::Damaged
    );
    assert_eq!(
        rig.failure(Request::Account {
            token: 3,
            party: Party(0),
            user,
            name: name()
        }),
        FailureKind::Damaged
    );
    rig.append("ben", b"not concerned");
}

#[test]
fn a_store_without_its_sequences_or_its_database_does_not_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    rig.append("anna", b"kept");
    rig.close();
    let sequence = folder.path().join("SEQUENCE");
    let content = fs::read(&sequence).expect("there");
    fs::remove_file(&sequence).expect("removed");
    assert!(matches!(
        Store::open(options(folder.path())),
        Err(StoreError::Damaged { .. })
    ));
    fs::write(&sequence, content).expect("written");
    Rig::open(folder.path()).close();
    fs::rename(folder.path().join("inbox-0"), folder.path().join("gone")).expect("renamed");
    assert!(matches!(
        Store::open(options(folder.path())),
        Err(StoreError::Damaged { .. })
    ));
}
