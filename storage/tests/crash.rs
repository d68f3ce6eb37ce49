//! kill -9 at any instant, and the power cut at any instant, again and again: what was acknowledged is found, in order
//! and whole; what was burned never comes back; no sequence is used twice.
//!
//! The test binary starts itself as the victim, reads what it acknowledges from its standard output, kills it at
//! a random instant, and holds the store against what it read.

mod disk;
mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use disk::{Disk, Fault};
use iris_storage::{Reply, Request, StoreOptions};
use rig::{Rig, name};

const VICTIM_FOLDER: &str = "IRIS_TEST_VICTIM_FOLDER";
const USERS: u64 = 12;
const ROUNDS: u64 = 14;
/// Requests the victim keeps in flight.
const IN_FLIGHT: usize = 300;
/// Of each sync in every other life before a power cut: several batches are written and not yet synced then.
const SYNC_MS: u32 = 10;

/// Small tables and batches, so that rotations, flushes and merges are among the instants that are hit.
fn options(path: &Path) -> StoreOptions {
    StoreOptions {
        databases: 2,
        commit_requests_max: 64,
        memtable_bytes: 256 * 1024,
        tails_max: 12,
        upkeep_interval: Duration::from_millis(20),
        space_slack_bytes: 128 * 1024,
        journal_interval: Duration::ZERO,
        ..rig::options(path)
    }
}

/// The victim: appends to all users for ever, burns now and then, and says what was acknowledged. It is a test
/// so that the test binary can start itself with it; on its own it does nothing.
#[test]
fn victim() {
    let Some(folder) = std::env::var_os(VICTIM_FOLDER) else {
        return;
    };
    let mut rig = Rig::with(options(Path::new(&folder)));
    let mut out = std::io::stdout().lock();
    let mut asked: BTreeMap<u64, String> = BTreeMap::new();
    let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
    let mut number = 0u64;
    loop {
        while asked.len() < IN_FLIGHT {
            number += 1;
            let user = number % USERS;
            if number.is_multiple_of(50)
                && let Some(sequence) = newest.get(&user)
            {
                // Leaves the last few. Said before it is asked: from here on these may be gone.
                let head = sequence.saturating_sub(3 * USERS);
                writeln!(out, "burning {user} {head}").expect("the parent reads");
                let token = rig.token();
                asked.insert(token, format!("burned {user} {head}"));
                let hash = rig.user(&name(user));
                rig.client.submit(Request::Burn {
                    token,
                    user: hash,
                    name: name(user).into(),
                    head,
                });
            }
            let payload = [&number.to_be_bytes()[..], &[number as u8; 100]].concat();
            let request = rig.append_request(&name(user), &payload, 0);
            asked.insert(
                request.token().expect("a token"),
                format!("appended {user} {number}"),
            );
            rig.client.submit(request);
        }
        let reply = rig.reply();
        let said = asked.remove(&reply.token()).expect("a token of ours");
        match reply {
            Reply::Appended { sequence, .. } => {
                let user = said
                    .split(' ')
                    .nth(1)
                    .and_then(|user| user.parse().ok())
                    .expect("a user");
                newest.insert(user, sequence);
                writeln!(out, "{said} {sequence}").expect("the parent reads");
            }
            Reply::Burned { .. } => writeln!(out, "{said} 0").expect("the parent reads"),
            other => panic!("{other:?}"),
        }
    }
}

/// What the victims said about one user.
#[derive(Default)]
struct Said {
    /// Sequence and number of what was acknowledged.
    appended: BTreeMap<u64, u64>,
    burning: u64,
    burned: u64,
}

fn listen(
    folder: &Path,
    disk: Option<&Disk>,
    lifetime: Duration,
    said: &mut BTreeMap<u64, Said>,
) -> BTreeSet<u64> {
    let mut victim = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM_FOLDER, folder)
        .envs(disk.map_or_else(Vec::new, |disk| disk.environment(folder)))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the victim starts");
    let out = victim.stdout.take().expect("piped");
    let killer = std::thread::spawn(move || {
        std::thread::sleep(lifetime);
        victim.kill().expect("killed");
        victim.wait().expect("dead");
    });
    let mut sequences = BTreeSet::new();
    for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.split(' ').collect();
        let figure = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        // A last line may be cut short; the sequence at its end tells a whole one, and "0" stands for it.
        match (words.first().copied(), figure(1), figure(2), figure(3)) {
            (Some("appended"), Some(user), Some(number), Some(sequence)) => {
                assert!(sequences.insert(sequence), "sequence {sequence} twice");
                said.entry(user)
                    .or_default()
                    .appended
                    .insert(sequence, number);
            }
            (Some("burning"), Some(user), Some(head), None) => {
                let said = said.entry(user).or_default();
                said.burning = said.burning.max(head);
            }
            (Some("burned"), Some(user), Some(head), Some(0)) => {
                let said = said.entry(user).or_default();
                said.burned = said.burned.max(head);
            }
            _ => {}
        }
    }
    killer.join().expect("the killer");
    sequences
}

/// The totals are written with what they count: after the kill they are the sum of what can be drained.
fn check_totals(rig: &mut Rig) {
    let (mut messages, mut bytes) = (0, 0);
    for name in (0..USERS).map(name).chain(["between".to_string()]) {
        for (_, payload) in rig.drain(&name, 700).0 {
            messages += 1;
            bytes += rig::record_len(&payload);
        }
    }
    assert_eq!(rig.totals(), (messages, bytes));
}

/// Holds the store against what was said; returns the highest sequence in it.
fn check(rig: &mut Rig, said: &BTreeMap<u64, Said>) -> u64 {
    let mut highest = 0;
    for (user, said) in said {
        let (found, lost) = rig.drain(&name(*user), 700);
        assert_eq!(lost, 0);
        assert!(found.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(
            rig.account(&name(*user)).0,
            found.len() as u64,
            "depth of user {user}"
        );
        highest = highest.max(found.last().map_or(0, |last| last.0));
        let found: BTreeMap<u64, Vec<u8>> = found.into_iter().collect();
        if let Some((sequence, _)) = found.first_key_value() {
            assert!(
                *sequence >= said.burned,
                "user {user}: {sequence} came back below {}",
                said.burned
            );
        }
        for (sequence, number) in said.appended.range(said.burning.max(said.burned)..) {
            let payload = found.get(sequence);
            let payload =
                payload.unwrap_or_else(|| panic!("user {user}: lost {sequence}, acknowledged"));
            assert_eq!(
                payload[..8],
                number.to_be_bytes(),
                "user {user}, sequence {sequence}"
            );
            assert_eq!(payload.len(), 108);
        }
        // Of what one victim appended, the order is that of its numbers.
        let numbers: Vec<u64> = said.appended.values().copied().collect();
        let restarts = numbers.windows(2).filter(|pair| pair[0] >= pair[1]).count() as u64;
        assert!(restarts < ROUNDS, "user {user}: order lost");
    }
    highest
}

/// A small generator of its own: the instants must differ from run to run, and need no quality.
fn random(below: u64) -> u64 {
    let mut bytes = [0u8; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .expect("random bytes");
    u64::from_le_bytes(bytes) % below
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    rounds(None);
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    if let Some(disk) = Disk::new(true) {
        rounds(Some(&disk));
    }
}

fn rounds(disk: Option<&Disk>) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut said: BTreeMap<u64, Said> = BTreeMap::new();
    let (mut highest, mut acknowledged) = (0, 0);
    let until = Instant::now() + Duration::from_secs(20);
    for round in 0..ROUNDS {
        if Instant::now() > until {
            break;
        }
        // Short lives hit the creation and the recovery, long ones flushes and merges.
        let lifetime = Duration::from_millis(if round % 3 == 0 {
            random(60)
        } else {
            60 + random(900)
        });
        if let Some(disk) = disk {
            let is_slow = round % 2 == 1;
            disk.becomes(if is_slow {
                Fault::Slow(SYNC_MS)
            } else {
                Fault::None
            });
        }
        let sequences = listen(folder.path(), disk, lifetime, &mut said);
        if let Some(disk) = disk {
            disk.cut(folder.path());
        }
        acknowledged += sequences.len();
        if let Some(lowest) = sequences.first() {
            assert!(
                *lowest > highest,
                "round {round}: sequence {lowest} was used before"
            );
        }
        highest = highest.max(sequences.last().copied().unwrap_or(0));
        let mut rig = Rig::with(options(folder.path()));
        check_totals(&mut rig);
        // Also what was never acknowledged but is there has used up its sequence.
        highest = highest.max(check(&mut rig, &said));
        if round % 2 == 0 {
            let sequence = rig.append("between", b"rounds");
            assert!(sequence > highest);
            highest = sequence;
        }
        rig.close();
    }
    assert!(
        acknowledged > 1000,
        "only {acknowledged} acknowledged: the victims did not get to work"
    );
}
