//! A damaged table is found by whoever meets it, a merge or a reader, under a running store: it is taken out, what is sound
//! in it is put back, the loss is told in numbers, and the store goes on without anybody's doing.

mod rig;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use iris_storage::{FailureKind, Recovery, Reply, StoreOptions, StoreState, check};
use rig::Rig;

const PATIENCE: Duration = Duration::from_secs(60);
const NAMES: [&str; 3] = ["anna", "ben", "cleo"];

/// Small memtables, so that a few thousand messages make tables and some more a merge. Nothing but the merges moves.
fn options(path: &Path) -> StoreOptions {
    StoreOptions {
        upkeep_interval: Duration::from_secs(3600),
        ..rig::small_tables(path)
    }
}

fn payload(number: u64) -> Vec<u8> {
    rig::payload(number, 300)
}

fn number_of(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[..8].try_into().expect("eight bytes"))
}

/// Stores messages, each again until it is taken. How many tries failed.
fn store(rig: &mut Rig, numbers: std::ops::Range<u64>) -> u64 {
    let mut failed = 0;
    let mut left: Vec<u64> = numbers.collect();
    let began = Instant::now();
    while !left.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{failed} failed");
        let batch: Vec<u64> = left.drain(..left.len().min(500)).collect();
        let first = rig.token();
        for number in &batch {
            let name = NAMES[(number % 3) as usize];
            let request = rig.append_request(name, &payload(*number), 0);
            rig.client.submit(request);
        }
        for _ in &batch {
            match rig.reply() {
                Reply::Appended { .. } => {}
                Reply::Failed { token, error } => {
                    assert!(
                        matches!(error, FailureKind::Unwritable | FailureKind::Unreadable),
                        "{error}"
                    );
                    failed += 1;
                    left.push(batch[(token - first - 1) as usize]);
                }
                other => panic!("{other:?}"),
            }
        }
        if failed > 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    failed
}

/// The numbers that are served; each user's once and of that user.
fn served(rig: &mut Rig) -> BTreeSet<u64> {
    let mut all = BTreeSet::new();
    for (user, name) in NAMES.iter().enumerate() {
        for (_, content) in rig.drain(name, 500).0 {
            let number = number_of(&content);
            assert_eq!((content, number % 3), (payload(number), user as u64));
            all.insert(number);
        }
    }
    all
}

fn flip(path: &Path, at: u64) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 0x40], at).expect("written");
}

fn wait_for_tables(folder: &Path, count: usize) -> Vec<PathBuf> {
    let began = Instant::now();
    loop {
        let tables = rig::tables(folder);
        if tables.len() >= count {
            return tables;
        }
        assert!(began.elapsed() < PATIENCE, "{} tables", tables.len());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_until_taken_out(rig: &Rig) -> Recovery {
    let began = Instant::now();
    while rig.store.recovery().tables_damaged == 0 || rig.store.state() != StoreState::Open {
        assert!(began.elapsed() < PATIENCE, "{}", rig.store.state());
        std::thread::sleep(Duration::from_millis(2));
    }
    rig.store.recovery()
}

#[test]
fn a_merge_over_a_damaged_block_does_not_need_anybody() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::with(options(folder.path()));
    // The journal has forgotten nothing yet: whatever a table loses is found there.
    assert_eq!(store(&mut rig, 0..7_000), 0);
    let tables = wait_for_tables(folder.path(), 1);
    let spoiled = &tables[0];
    flip(spoiled, 100_000);
    flip(spoiled, 300_000);
    let began = Instant::now();
    let mut next = 7_000;
    let mut failed = 0;
    while rig.store.recovery().tables_damaged == 0 {
        assert!(began.elapsed() < PATIENCE, "no merge met the damage");
        failed += store(&mut rig, next..next + 1_000);
        next += 1_000;
    }
    println!("{failed} tries failed until the database was open again");
    let recovery = wait_until_taken_out(&rig);
    assert_eq!(
        (recovery.tables_damaged, recovery.lost()),
        (1, 0),
        "{recovery:?}"
    );
    assert!(recovery.bytes_lost > 0 && recovery.messages_put_back > 0);
    assert!(
        recovery.kept_in[0]
            .join(format!(
                "1-{}.table",
                spoiled.file_name().expect("a name").display()
            ))
            .exists()
    );
    let metrics = rig.store.metrics();
    assert!(metrics.healed >= 1, "{}", metrics.healed);
    // More merges, over the same keys.
    store(&mut rig, next..next + 12_000);
    assert_eq!(served(&mut rig), (0..next + 12_000).collect());
    assert_eq!(rig.totals().0, next + 12_000);
    rig.close();
    assert_eq!(
        check(folder.path()).expect("checked").faults,
        Vec::<String>::new()
    );
}

/// Once the journal has let go of it, what stood in a damaged block is lost, and counted: also at the end of an inbox,
/// where a page cannot know how much is missing.
#[test]
fn a_reader_who_meets_damage_has_it_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::with(options(folder.path()));
    store(&mut rig, 0..6_000);
    rig.close();
    // All in tables, and no journal that has it.
    rig::flush(folder.path());
    File::options()
        .write(true)
        .open(folder.path().join("inbox-0/0.jnl"))
        .and_then(|journal| journal.set_len(0))
        .expect("emptied");
    let tables = rig::tables(folder.path());
    // Every block of the last third: the end of somebody's inbox.
    let newest = tables.last().expect("tables");
    let len = fs::metadata(newest).expect("there").len();
    for at in (len / 2..len / 10 * 9).step_by(4_000) {
        flip(newest, at);
    }
    let mut rig = Rig::with(options(folder.path()));
    assert!(
        rig.store.recovery().is_clean(),
        "{:?}",
        rig.store.recovery()
    );
    for name in NAMES {
        rig.drain(name, 500);
    }
    let recovery = wait_until_taken_out(&rig);
    let left = served(&mut rig);
    let missing = 6_000 - left.len() as u64;
    assert!(missing > 100, "{missing}");
    assert_eq!(
        (recovery.tables_damaged, recovery.lost()),
        (1, missing),
        "{recovery:?}"
    );
    assert_eq!(rig.store.metrics().recovery_lost, missing);
    // The inboxes go on behind it.
    store(&mut rig, 6_000..9_000);
    let mut expected = left;
    expected.extend(6_000..9_000);
    assert_eq!(served(&mut rig), expected);
    let mut rig = rig.reopen(folder.path());
    assert_eq!(served(&mut rig), expected);
    rig.close();
    assert_eq!(
        check(folder.path()).expect("checked").faults,
        Vec::<String>::new()
    );
}
