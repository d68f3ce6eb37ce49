//! A write the disk does not take: nothing of it is acknowledged, nor anything after it until the store has healed by
//! itself; what was acknowledged is there all along, and no sequence comes twice. The disk's refusal is real: the process may write no file beyond
//! a limit. Its own test binary, since the limit holds for the whole process.

mod rig;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use iris_storage::{FailureKind, Reply, StoreState};
use rig::Rig;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PAYLOAD_LEN: usize = 20_000;
const LIMIT: u64 = 3 * 1024 * 1024;

fn limit_file_size(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(
        Resource::Fsize,
        Rlimit {
            current: bytes.or(maximum),
            maximum,
        },
    )
    .expect("the limit is set");
}

#[test]
fn nothing_of_a_failed_commit_is_acknowledged() {
    // The signal's default is to end the process; with a handler the write fails instead.
    signal_hook::flag::register(
        signal_hook::consts::SIGXFSZ,
        Arc::new(AtomicBool::new(false)),
    )
    .expect("a handler for SIGXFSZ");
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    rig.append("ben", b"before");
    limit_file_size(Some(LIMIT));

    let (mut acknowledged, mut failed) = (BTreeSet::new(), 0);
    for round in 0..60u32 {
        for n in 0..10u32 {
            let mut payload = vec![7; PAYLOAD_LEN];
            payload[..4].copy_from_slice(&(round * 10 + n).to_be_bytes());
            let request = rig.append_request("anna", &payload, 0);
            rig.client.submit(request);
        }
        for _ in 0..10 {
            match rig.reply() {
                Reply::Appended { sequence, .. } => {
                    assert!(acknowledged.insert(sequence), "{sequence} came twice");
                }
                Reply::Failed { error, .. } => {
                    assert_eq!(error, FailureKind::Unwritable);
                    failed += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(
        acknowledged.len() > 50 && failed > 100,
        "{} and {failed}",
        acknowledged.len()
    );
    // It tries again and again, and fails again with the next write. What is there can be read.
    rig.wait_for(StoreState::Stopped);
    let readable = |rig: &mut Rig| -> BTreeSet<u64> {
        let (messages, lost) = rig.drain("anna", 100);
        assert_eq!(lost, 0);
        messages.into_iter().map(|(sequence, _)| sequence).collect()
    };
    // Room again: it goes on, without anybody's doing.
    limit_file_size(None);
    rig.wait_for(StoreState::Open);
    let found = readable(&mut rig);
    assert!(found.is_superset(&acknowledged));
    assert_eq!(rig.account("anna").0, found.len() as u64);
    assert_eq!(rig.drain("ben", 10).0.len(), 1);
    let sequence = rig.append("anna", b"on");
    assert!(found.iter().all(|used| *used < sequence));
    rig.burn("anna", sequence);
    assert_eq!(rig.account("anna").0, 1);
    let metrics = rig.store.metrics();
    assert!(metrics.healed >= 1);
    assert_eq!(metrics.appended, acknowledged.len() as u64 + 2);
    assert_eq!(metrics.failed.iter().sum::<u64>(), failed);

    let mut rig = rig.reopen(folder.path());
    assert_eq!(rig.drain("anna", 100).0, [(sequence, b"on".to_vec())]);
    assert!(rig.append("anna", b"after") > sequence);
}
