//! Disk comes back: what was burned or has expired is destroyed when tables are merged, and nothing else is.

mod rig;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use iris_storage::{Reply, Request, StoreOptions};
use rig::{Rig, name};

const USERS: u64 = 8;
/// The last user burns only a few, and keeps the rest.
const KEEPER: u64 = USERS - 1;

/// One round of messages to all users, interleaved, so that each table holds some of everybody's.
fn fill(rig: &mut Rig, kept: &mut Vec<u64>) {
    const EACH: u64 = 150;
    let mut of_keeper = BTreeSet::new();
    for _ in 0..EACH {
        for user in 0..USERS {
            let request = rig.append_request(&name(user), &[user as u8; 400], 0);
            if let Request::Append { token, .. } = request
                && user == KEEPER
            {
                of_keeper.insert(token);
            }
            rig.client.submit(request);
        }
        // Every tenth of the keeper's has expired: those go, too.
        let request = rig.append_request(&name(KEEPER), b"old", 1_000);
        rig.client.submit(request);
    }
    for _ in 0..EACH * (USERS + 1) {
        match rig.reply() {
            Reply::Appended { token, sequence } if of_keeper.contains(&token) => {
                kept.push(sequence);
            }
            Reply::Appended { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    for user in 0..KEEPER {
        rig.burn(&name(user), u64::MAX);
    }
    // Once, and to a head that is a message: it is the first that stays, however often tables are merged.
    if kept.len() == EACH as usize {
        kept.drain(..10);
        rig.burn(&name(KEEPER), kept[0]);
    }
}

#[test]
fn what_was_burned_or_has_expired_is_destroyed_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = || StoreOptions {
        memtable_bytes: 128 * 1024,
        ..rig::options(folder.path())
    };
    let mut rig = Rig::with(options());
    let mut kept = Vec::new();
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        fill(&mut rig, &mut kept);
        let metrics = rig.store.metrics();
        if metrics.reclaimed_burned > 10_000 && metrics.reclaimed_expired > 1_000 {
            assert!(metrics.reclaimed_burned <= metrics.burned);
            break;
        }
        assert!(Instant::now() < until, "little was reclaimed: {metrics:?}");
    }
    for _ in 0..2 {
        let (found, lost) = rig.drain(&name(KEEPER), 500);
        assert_eq!(lost, 0);
        assert!(found.iter().map(|(sequence, _)| sequence).eq(&kept));
        for user in 0..KEEPER {
            assert_eq!(rig.drain(&name(user), 500), (vec![], 0));
            assert_eq!(rig.account(&name(user)), (0, 0, 0));
        }
        // Totals go on where they were, though their records are gone.
        rig.append(&name(0), b"new");
        assert_eq!(rig.account(&name(0)).0, 1);
        rig.burn(&name(0), u64::MAX);
        rig.close();
        rig = Rig::with(options());
    }
}
