//! What is written and not yet synced: while a sync takes its time the next batches are written and can be read, and none
//! is acknowledged; one later sync is enough for all of them. If a sync fails, all of them are failures, and the store
//! heals. Each scenario runs in a process of its own, with a disk below it that is slow or fails.

mod disk;
mod rig;

use std::env;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use disk::{Disk, Fault, becomes_here};
use iris_storage::{FailureKind, Reply, StoreOptions, StoreState};
use rig::Rig;

const FOLDER: &str = "IRIS_TEST_UNSYNCED_FOLDER";
/// Far longer than anything here takes that waits for no sync.
const SYNC: Duration = Duration::from_millis(1500);
const BATCH: u64 = 32;
// One, so that it is the whole of the batch whose sync the others are written behind.
const FIRST: u64 = 1;
const BATCHES: u64 = 6;

/// Runs the test of this name again, in a process of its own with a disk below it.
fn on_a_disk(test: &str, scenario: impl Fn(&Path)) {
    if let Some(folder) = env::var_os(FOLDER) {
        return scenario(Path::new(&folder));
    }
    let Some(disk) = Disk::new(false) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let status = Command::new(env::current_exe().expect("this binary"))
        .args(["--exact", test, "--nocapture"])
        .env(FOLDER, folder.path())
        .envs(disk.environment(folder.path()))
        .status();
    assert!(status.expect("it starts").success(), "see above");
}

fn open(folder: &Path) -> Rig {
    let mut rig = Rig::with(StoreOptions {
        databases: 1,
        // A full batch is begun during a sync, however small it is.
        commit_requests_max: BATCH as usize,
        ..rig::options(folder)
    });
    rig.append("anna", b"first");
    rig
}

fn submit(rig: &mut Rig, count: u64) {
    for _ in 0..count {
        let request = rig.append_request("anna", b"x", 0);
        rig.client.submit(request);
    }
}

/// Fills a sync that has begun with batches behind it, and sees that they are written before it returns.
fn write_behind_a_sync(rig: &mut Rig) {
    let began = Instant::now();
    submit(rig, FIRST);
    thread::sleep(SYNC / 5);
    submit(rig, BATCHES * BATCH);
    // Any other reply than that about the account is one too early.
    while rig.account("anna").0 < 1 + FIRST + BATCHES * BATCH {
        assert!(began.elapsed() < SYNC, "not written during the sync");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(rig.store.metrics().appended, 1);
    assert!(rig.store.metrics().commit_running > SYNC / 10);
}

#[test]
fn during_a_sync_batches_are_written_and_none_is_acknowledged() {
    on_a_disk(
        "during_a_sync_batches_are_written_and_none_is_acknowledged",
        |folder| {
            let mut rig = open(folder);
            becomes_here(Fault::Slow(SYNC.as_millis() as u32));
            let began = Instant::now();
            write_behind_a_sync(&mut rig);
            let mut answer = |count| {
                for _ in 0..count {
                    let reply = rig.reply();
                    assert!(matches!(reply, Reply::Appended { .. }), "{reply:?}");
                }
                began.elapsed()
            };
            let first = answer(FIRST);
            assert!(first >= SYNC, "acknowledged after {first:?}");
            let second = answer(1);
            assert!(second >= first + SYNC / 2, "{first:?}, {second:?}");
            // The rest with it, not each with a sync of its own.
            let last = answer(BATCHES * BATCH - 1);
            assert!(last < second + SYNC / 2, "{second:?}, {last:?}");
            becomes_here(Fault::None);
            assert_eq!(rig.store.metrics().commit_running, Duration::ZERO);
            let mut rig = rig.reopen(folder);
            assert_eq!(rig.account("anna").0, 1 + FIRST + BATCHES * BATCH);
        },
    );
}

#[test]
fn if_a_sync_fails_nothing_behind_it_is_acknowledged_either() {
    on_a_disk(
        "if_a_sync_fails_nothing_behind_it_is_acknowledged_either",
        |folder| {
            let mut rig = open(folder);
            becomes_here(Fault::SlowUnsynced(SYNC.as_millis() as u32));
            write_behind_a_sync(&mut rig);
            for _ in 0..FIRST + BATCHES * BATCH {
                match rig.reply() {
                    Reply::Failed { error, .. } => assert_eq!(error, FailureKind::Unwritable),
                    other => panic!("{other:?}"),
                }
            }
            assert_ne!(rig.store.state(), StoreState::Open);
            let failed = rig.store.metrics().failed[FailureKind::Unwritable as usize];
            assert_eq!(failed, FIRST + BATCHES * BATCH);
            assert_eq!(rig.store.metrics().commit_running, Duration::ZERO);
            becomes_here(Fault::None);
            rig.wait_for(StoreState::Open);
            assert_eq!(rig.store.metrics().healed, 1);
            let sequence = rig.append("anna", b"on");
            assert_eq!(rig.store.metrics().appended, 2);
            let (messages, lost) = rig.drain("anna", 100);
            assert_eq!((messages[0].1.as_slice(), lost), (&b"first"[..], 0));
            assert_eq!(messages.last().map(|last| last.0), Some(sequence));
            rig.close();
        },
    );
}

/// What is still unsynced when the store is closed is synced and answered by then.
#[test]
fn closing_waits_for_the_syncs() {
    on_a_disk("closing_waits_for_the_syncs", |folder| {
        let mut rig = open(folder);
        becomes_here(Fault::Slow(SYNC.as_millis() as u32 / 3));
        submit(&mut rig, FIRST + BATCHES * BATCH);
        let mut client = rig.client;
        rig.store.close().expect("it closes");
        becomes_here(Fault::None);
        let replies: Vec<Reply> = std::iter::from_fn(|| client.poll()).collect();
        assert_eq!(replies.len() as u64, FIRST + BATCHES * BATCH);
        let is_done = |reply: &Reply| matches!(reply, Reply::Appended { .. });
        assert!(replies.iter().all(is_done), "{replies:?}");
        let mut rig = Rig::open(folder);
        assert_eq!(rig.account("anna").0, 1 + FIRST + BATCHES * BATCH);
        rig.close();
    });
}
