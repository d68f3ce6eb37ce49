//! The power is cut about when the database goes on to another journal, under load: what was acknowledged is found, in
//! whichever of the two it stands.
//!
//! The test binary starts itself as the victim, waits until a new journal is there, and kills it a moment later.

mod disk;
mod rig;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use disk::{Disk, Fault};
use iris_storage::{Reply, StoreOptions};
use rig::{Rig, name};

const VICTIM_FOLDER: &str = "IRIS_TEST_ROTATION_FOLDER";
const PAYLOAD_LEN: usize = 60_000;
const USERS: u64 = 4;
const IN_FLIGHT: usize = 60;
const ROUNDS: u64 = 10;
/// Of each sync, so that the instants between writing and syncing are long enough to be hit.
const SYNC_MS: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(60);

fn options(path: &Path) -> StoreOptions {
    StoreOptions {
        commit_requests_max: 8,
        databases: 1,
        memtable_bytes: 8 << 20,
        // Nothing else asks for a sync of the new journal then.
        journal_bytes_max: 256 << 20,
        ..rig::options(path)
    }
}

/// Appends for ever, and says what was acknowledged.
#[test]
fn victim() {
    let Some(folder) = env::var_os(VICTIM_FOLDER) else {
        return;
    };
    let mut rig = Rig::with(options(Path::new(&folder)));
    let mut out = std::io::stdout().lock();
    let mut asked = BTreeMap::new();
    let mut number = 0u64;
    loop {
        while asked.len() < IN_FLIGHT {
            number += 1;
            let user = number % USERS;
            let payload = rig::payload(number, PAYLOAD_LEN);
            let request = rig.append_request(&name(user), &payload, 0);
            asked.insert(request.token().expect("a token"), (user, number));
            rig.client.submit(request);
        }
        match rig.reply() {
            Reply::Appended { token, sequence } => {
                let (user, number) = asked.remove(&token).expect("a token of ours");
                writeln!(out, "{user} {number} {sequence} .").expect("the parent reads");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn newest_journal(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder.join("inbox-0")).into_iter().flatten();
    let number = |entry: fs::DirEntry| {
        let path = entry.path();
        path.file_name()?
            .to_str()?
            .strip_suffix(".jnl")?
            .parse()
            .ok()
    };
    let numbers = entries.flatten().filter_map(number);
    numbers.max().unwrap_or(0)
}

#[test]
fn what_was_acknowledged_about_a_rotation_survives_a_power_cut() {
    let Some(disk) = Disk::new(true) else {
        return;
    };
    disk.becomes(Fault::Slow(SYNC_MS));
    let folder = tempfile::tempdir().expect("a folder");
    let (mut acknowledged, mut acknowledged_ever) = (BTreeMap::new(), 0);
    for round in 0..ROUNDS {
        let mut victim = Command::new(env::current_exe().expect("this binary"))
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM_FOLDER, folder.path())
            .envs(disk.environment(folder.path()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the victim starts");
        let out = victim.stdout.take().expect("piped");
        let data = folder.path().to_owned();
        let killer = thread::spawn(move || {
            let until = Instant::now() + PATIENCE;
            let before = newest_journal(&data);
            while newest_journal(&data) == before {
                assert!(Instant::now() < until, "no other journal comes");
                thread::sleep(Duration::from_micros(500));
            }
            // It was made and synced, with its folder; from there to some batches later.
            thread::sleep(Duration::from_millis(2 * u64::from(SYNC_MS) + 6 * round));
            victim.kill().expect("killed");
            victim.wait().expect("dead");
        });
        for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let words: Vec<&str> = line.split(' ').collect();
            // A last line may be cut short.
            if let [user, number, sequence, "."] = words[..]
                && let [Ok(user), Ok(number), Ok(sequence)] =
                    [user, number, sequence].map(str::parse::<u64>)
            {
                acknowledged.insert(sequence, (user, number));
            }
        }
        killer.join().expect("the killer");
        disk.cut(folder.path());
        let mut rig = Rig::with(options(folder.path()));
        let mut found = BTreeMap::new();
        for user in 0..USERS {
            let (messages, lost) = rig.drain(&name(user), 100);
            assert_eq!(lost, 0);
            assert_eq!(rig.account(&name(user)).0, messages.len() as u64);
            found.extend(messages);
        }
        for (sequence, (user, number)) in &acknowledged {
            let payload = found.get(sequence);
            let payload =
                payload.unwrap_or_else(|| panic!("round {round}, user {user}: {sequence} is lost"));
            assert_eq!(payload[..8], number.to_be_bytes());
        }
        assert!(
            rig.store.recovery().is_clean(),
            "{:?}",
            rig.store.recovery()
        );
        for user in 0..USERS {
            rig.burn(&name(user), u64::MAX);
        }
        acknowledged_ever += acknowledged.len();
        acknowledged.clear();
        rig.close();
    }
    assert!(acknowledged_ever > 1000, "only {acknowledged_ever}");
}
