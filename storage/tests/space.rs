//! Disk comes back by itself: what was burned or has expired is gone from the disk soon after, for a user who has the
//! store to himself too, without any traffic and without holding up a commit; and a crash in the midst of it neither
//! loses a message nor brings one back.

mod rig;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use iris_storage::StoreOptions;
use rig::Rig;

const MESSAGES: u64 = 200_000;
const HOT: &str = "messi";
const KEEPER: &str = "keeper";
const FEW_BYTES: u64 = 6 << 20;

/// As in production, but that the upkeep does not wait.
fn options(path: &Path) -> StoreOptions {
    StoreOptions {
        databases: 1,
        free_bytes_min: 0,
        upkeep_interval: Duration::from_millis(100),
        journal_interval: Duration::ZERO,
        ..StoreOptions::new(path)
    }
}

/// What a folder occupies on the disk.
fn occupied(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => occupied(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// The time it took.
fn becomes_few(path: &Path) -> Duration {
    let began = Instant::now();
    while occupied(path) > FEW_BYTES {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{} bytes after a minute",
            occupied(path)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

fn fill(rig: &mut Rig, name: &str, count: u64, expires_at_ms: u64) {
    let (mut asked, mut answered) = (0, 0);
    while answered < count {
        while asked < count && asked - answered < 8_000 {
            let request = rig.append_request(name, &[asked as u8; 100], expires_at_ms);
            rig.client.submit(request);
            asked += 1;
        }
        let reply = rig.reply();
        assert!(
            matches!(reply, iris_storage::Reply::Appended { .. }),
            "{reply:?}"
        );
        answered += 1;
    }
}

/// Nothing is lost to what is given back, before and after a restart, and the order of the sequences goes on.
fn keeper_has_his(mut rig: Rig, path: &Path) {
    for _ in 0..2 {
        let (found, lost) = rig.drain(KEEPER, 100);
        assert_eq!((found.len(), lost), (50, 0));
        assert_eq!(rig.drain(HOT, 1000), (vec![], 0));
        assert_eq!(rig.totals().0, 50);
        rig.close();
        rig = Rig::with(options(path));
    }
    assert!(rig.append(HOT, b"more") > MESSAGES);
    assert_eq!(rig.account(HOT).0, 1);
    rig.close();
}

#[test]
fn what_a_lone_user_has_read_leaves_the_disk_without_traffic() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::with(options(folder.path()));
    fill(&mut rig, KEEPER, 50, 0);
    fill(&mut rig, HOT, MESSAGES, 0);
    let held = occupied(folder.path());
    assert!(held > 5 * FEW_BYTES, "{held} bytes");
    rig.burn(HOT, u64::MAX);
    let took = becomes_few(folder.path());
    let longest = Duration::from_micros(rig.store.metrics().commit_us.max());
    println!("{held} bytes became few in {took:?}; the longest commit took {longest:?}");
    keeper_has_his(rig, folder.path());
}

#[test]
fn what_has_expired_leaves_its_inbox_and_the_disk_without_traffic() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::with(options(folder.path()));
    fill(&mut rig, KEEPER, 50, 0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.expect("after 1970").as_millis() as u64;
    fill(&mut rig, HOT, MESSAGES, now_ms + 3_000);
    let took = becomes_few(folder.path());
    println!("few in {took:?}");
    let began = Instant::now();
    while rig.store.metrics().expired < MESSAGES {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    let metrics = rig.store.metrics();
    assert_eq!((metrics.expired, metrics.burned), (MESSAGES, 0));
    assert_eq!(rig.account(HOT).0, 0);
    keeper_has_his(rig, folder.path());
}

const VICTIM_FOLDER: &str = "IRIS_TEST_SPACE_VICTIM_FOLDER";

/// Small tables, so that a round of the upkeep is long against its parts.
fn victim_options(path: &Path) -> StoreOptions {
    StoreOptions {
        memtable_bytes: 1 << 20,
        upkeep_interval: Duration::from_millis(1),
        space_slack_bytes: 1 << 20,
        ..options(path)
    }
}

/// Stores, burns, says so, and leaves the rest to the upkeep.
#[test]
fn victim() {
    let Some(folder) = std::env::var_os(VICTIM_FOLDER) else {
        return;
    };
    let mut rig = Rig::with(victim_options(Path::new(&folder)));
    fill(&mut rig, KEEPER, 50, 0);
    fill(&mut rig, HOT, 20_000, 0);
    fill(&mut rig, KEEPER, 50, 0);
    rig.burn(HOT, u64::MAX);
    writeln!(std::io::stdout(), "burned").expect("the parent reads");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_crash_while_space_comes_back_loses_nothing_and_brings_nothing_back() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 1..=12 {
        let mut victim = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the victim starts");
        let out = BufReader::new(victim.stdout.take().expect("piped"));
        let burned = out
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("burned"));
        assert!(burned, "round {round}");
        std::thread::sleep(Duration::from_millis(round * round * 6));
        victim.kill().expect("killed");
        victim.wait().expect("dead");
        let quiet = StoreOptions {
            upkeep_interval: Duration::from_secs(3600),
            ..victim_options(folder.path())
        };
        let mut rig = Rig::with(quiet);
        assert_eq!(rig.drain(HOT, 1000), (vec![], 0), "round {round}");
        let (found, lost) = rig.drain(KEEPER, 1000);
        assert_eq!((found.len() as u64, lost), (100 * round, 0));
        assert_eq!(rig.totals().0, 100 * round);
        rig.close();
    }
}

/// What a lone user keeps of his tables, and the last of an inbox in which nearly all has expired: it tells how many
/// there were. Which of the tables are dropped and which merged is not the same in every run.
#[test]
fn what_is_kept_stays_while_the_rest_leaves_the_disk() {
    const MIXED: &str = "mixed";
    let folder = tempfile::tempdir().expect("a folder");
    // So small that most tables are of one user alone: those are dropped unread.
    let options = |path| StoreOptions {
        memtable_bytes: 4 << 20,
        ..options(path)
    };
    let mut rig = Rig::with(options(folder.path()));
    fill(&mut rig, MIXED, 1, 0);
    // Expired already, behind one that never does.
    fill(&mut rig, MIXED, 300, 1_000);
    fill(&mut rig, HOT, MESSAGES, 0);
    let (all, _) = rig.drain(HOT, 5_000);
    let kept = &all[all.len() / 4 * 3..];
    rig.burn(HOT, kept[0].0);
    let few = 2 * rig.totals().1 + 2 * FEW_BYTES;
    let began = Instant::now();
    while occupied(folder.path()) > few {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{} bytes after a minute",
            occupied(folder.path())
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..2 {
        assert_eq!(rig.drain(HOT, 5_000), (kept.to_vec(), 0));
        assert_eq!(rig.drain(MIXED, 100).0.len(), 1);
        assert_eq!(rig.account(MIXED).0, 301);
        assert_eq!(rig.totals().0, kept.len() as u64 + 301);
        rig.close();
        rig = Rig::with(options(folder.path()));
    }
    rig.append(MIXED, b"more");
    assert_eq!(rig.account(MIXED).0, 302);
    rig.close();
}
