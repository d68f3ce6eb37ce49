//! Two names whose hashes meet in one key: the first has the inbox, the other is told so, and neither ever sees or
//! harms the other's messages. The hash comes with each request, so a test can make two names meet.

mod rig;

use iris_storage::{FailureKind, Party, Reply, Request, UserHash};
use rig::{Rig, encoded};

const ANNA: UserHash = UserHash(0xaaaa_bbbb_cccc_dddd_eeee_ffff_0000_0001);
/// Another home, the same key.
const ZOE: UserHash = UserHash(0xaaaa_bbbb_cccc_dddd_eeee_ffff_0000_0002);

fn append(token: u64, user: UserHash, name: &str) -> Request {
    Request::Append {
        token,
        user,
        name: name.into(),
        record: encoded(name.as_bytes(), 0),
    }
}

fn page(token: u64, user: UserHash, name: &str) -> Request {
    Request::Page {
        token,
        party: Party(0),
        user,
        name: name.into(),
        from: 0,
        messages_max: 10,
        bytes_max: 1000,
    }
}

#[test]
fn the_second_name_is_refused_whatever_it_asks() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    assert_eq!(ANNA.key(), ZOE.key());
    // In one batch, before anything of either is on disk.
    rig.client.submit(append(1, ANNA, "anna"));
    rig.client.submit(append(2, ZOE, "zoe"));
    assert!(matches!(rig.reply(), Reply::Appended { token: 1, .. }));
    assert!(matches!(
        rig.reply(),
        Reply::Failed {
            token: 2,
            error: FailureKind::NameCollision
        }
    ));
    // From memory, and after a restart from disk.
    for _ in 0..2 {
        let burn = Request::Burn {
            token: 4,
            user: ZOE,
            name: "zoe".into(),
            head: u64::MAX,
        };
        rig.client.submit(Request::Seen {
            user: ZOE,
            name: "zoe".into(),
            at_ms: 99,
        });
        for request in [append(3, ZOE, "zoe"), burn, page(5, ZOE, "zoe")] {
            assert_eq!(rig.failure(request), FailureKind::NameCollision);
        }
        let account = Request::Account {
            token: 6,
            party: Party(0),
            user: ZOE,
            name: "zoe".into(),
        };
        assert_eq!(rig.failure(account), FailureKind::NameCollision);
        match rig.ask(page(7, ANNA, "anna")) {
            Reply::Page {
                messages, lost: 0, ..
            } => {
                let payloads: Vec<Vec<u8>> = messages
                    .iter()
                    .map(|message| message.record.view().expect("sound").payload.to_vec())
                    .collect();
                assert_eq!(payloads, [b"anna"]);
            }
            other => panic!("{other:?}"),
        }
        rig = rig.reopen(folder.path());
    }
    assert!(
        rig.store.metrics().failed.iter().all(|count| *count == 0),
        "a new store has new counters"
    );
}

#[test]
fn names_and_records_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    for name in ["".to_string(), "x".repeat(256)] {
        assert_eq!(rig.failure(append(1, ANNA, &name)), FailureKind::BadRequest);
        assert_eq!(rig.failure(page(2, ANNA, &name)), FailureKind::BadRequest);
    }
    let record = b"not a record".to_vec();
    let request = Request::Append {
        token: 3,
        user: ANNA,
        name: "anna".into(),
        record,
    };
    assert_eq!(rig.failure(request), FailureKind::BadRequest);
    let at = FailureKind::ALL
        .iter()
        .position(|kind| *kind == FailureKind::BadRequest)
        .expect("listed");
    assert_eq!(rig.store.metrics().failed[at], 5);
}
