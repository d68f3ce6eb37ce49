//! A panic inside the store is contained: everybody gets an answer, nothing of the batch is acknowledged, and the
//! store heals.

mod rig;

use std::panic;
use std::sync::Once;

use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use iris_storage::{FailureKind, Party, Quotas, Reply, Request, StoreState, record};
use rig::Rig;

/// Panics are expected here; their messages would only frighten whoever reads the test's output.
fn silence_the_store() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            if !thread.name().is_some_and(|name| name.starts_with("iris-")) {
                default(info);
            }
        }));
    });
}

#[test]
fn a_panic_of_the_committer_leaves_nobody_waiting() {
    silence_the_store();
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    let sequence = rig.append("anna", b"first");
    let key = [&rig.user("anna").key()[..], &sequence.to_be_bytes()].concat();
    rig.close();
    exhaust(&folder.path().join("inbox-0"), &key);

    // The window gathers the three into one batch: one before the panic, the one it meets, one after.
    let window = std::time::Duration::from_millis(100);
    let mut rig = Rig::with(iris_storage::StoreOptions {
        commit_window: window,
        quotas: Quotas {
            inbox_messages_max: u64::MAX,
            sender_inbox_percent: 100,
            ..Quotas::default()
        },
        ..rig::options(folder.path())
    });
    for name in ["ben", "anna", "carl"] {
        let request = rig.append_request(name, b"x", 0);
        rig.client.submit(request);
    }
    let mut answered = [1, 2, 3].map(|_| match rig.reply() {
        Reply::Failed {
            token,
            error: FailureKind::Unwritable,
        } => token,
        other => panic!("{other:?}"),
    });
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3]);
    rig.wait_for(StoreState::Open);
    assert_eq!(rig.store.metrics().healed, 1);
    assert_eq!(rig.drain("anna", 10).0.len(), 1);
    assert_eq!(rig.drain("ben", 10).0.len(), 0);
    rig.append("ben", b"x");
    assert_eq!(rig.account("ben").0, 1);
    // As often as it is met.
    let request = rig.append_request("anna", b"x", 0);
    assert_eq!(rig.failure(request), FailureKind::Unwritable);
    rig.wait_for(StoreState::Open);
    let mut rig = rig.reopen(folder.path());
    assert_eq!(rig.account("ben").0, 1);
}

/// Gives a stored record the highest ordinal there is, soundly sealed: the next append of its user meets a limit
/// that no real inbox reaches.
fn exhaust(inbox: &std::path::Path, key: &[u8]) {
    let database = Database::builder(inbox).open().expect("the database opens");
    let messages = database
        .keyspace("messages", KeyspaceCreateOptions::default)
        .expect("the keyspace");
    let mut value = messages
        .get(key)
        .expect("readable")
        .expect("there")
        .to_vec();
    // crc u32, then four u64, then the ordinal.
    value[36..44].copy_from_slice(&u64::MAX.to_le_bytes());
    let crc = crc32fast::hash(&value[4..]);
    value[..4].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(record::view(&value).expect("sound").ordinal, u64::MAX);
    messages.insert(key, value).expect("written");
    database.persist(PersistMode::SyncAll).expect("synced");
}

#[test]
fn a_wake_that_panics_harms_only_its_own_client() {
    silence_the_store();
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    let mut broken = rig.store.client(Box::new(|| panic!("a wake that panics")));
    for round in 0..3 {
        let user = rig.user("anna");
        let name = || "anna".into();
        broken.submit(Request::Append {
            token: round,
            user,
            name: name(),
            record: rig::encoded(b"x", 0),
        });
        broken.submit(Request::Account {
            token: 9,
            party: Party(0),
            user,
            name: name(),
        });
        rig.append("ben", b"x");
    }
    assert_eq!(rig.account("ben").0, 3);
    assert_eq!(rig.account("anna").0, 3);
    assert!(matches!(
        broken.poll(),
        Some(Reply::Appended { .. } | Reply::Account { .. })
    ));
    rig.close();
}
