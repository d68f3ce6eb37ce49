//! Damage of any kind anywhere in a store that was killed with real content (several databases, tables and journals):
//! bytes flipped or zeroed, files cut, deleted, copied over each other or swapped, one or two at once. A start serves what
//! is intact; every message that was acknowledged and is not served is counted as lost, nothing that was burned comes back
//! unless an account was lost, and the next start serves the same. Where a start is refused, a repair does it.
//!
//! The cases follow from a seed. `IRIS_DAMAGE_SEEDS=100..900` runs others.

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use iris_storage::{StoreError, StoreOptions, StoreState, check, repair};
use rig::{Rig, Seeded, name, payload};

const USERS: u64 = 14;
/// An open of so small a store takes some tenths of a second.
const PATIENCE: Duration = Duration::from_secs(60);

fn options(path: &Path, databases: usize) -> StoreOptions {
    StoreOptions {
        memtable_bytes: 1 << 20,
        databases,
        journal_bytes_max: 256 << 20,
        ..rig::options(path)
    }
}

/// A store as a kill left it, and what was acknowledged.
struct Template {
    folder: tempfile::TempDir,
    databases: usize,
    payload_len: usize,
    /// By user, in order.
    live: BTreeMap<u64, Vec<u64>>,
    burned: BTreeSet<u64>,
}

fn template(databases: usize, messages: u64, payload_len: usize) -> Template {
    let live_folder = tempfile::tempdir().expect("a folder");
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::with(options(live_folder.path(), databases));
    let names: Vec<String> = (0..USERS).map(name).collect();
    let mut live: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut burned = BTreeSet::new();
    // Some users come late, so that their accounts stand in the youngest files only.
    let user_of = |number: u64| match number * 4 / messages {
        3 => number % USERS,
        _ => number % (USERS - 4),
    };
    for part in 0..4 {
        let numbers = part * messages / 4..(part + 1) * messages / 4;
        let all = numbers.clone().map(|number| {
            (
                &*names[user_of(number) as usize],
                payload(number, payload_len),
            )
        });
        let sequences: Vec<u64> = rig.append_all(all);
        for number in numbers.clone() {
            live.entry(user_of(number)).or_default().push(number);
        }
        // Every third user reads a part of what waits.
        for user in (0..USERS).filter(|user| user % 3 == part % 3) {
            let waiting = live.entry(user).or_default();
            let keep = waiting.len() / 2;
            let head = waiting.get(waiting.len() - keep).copied();
            let Some(head) = head.filter(|head| *head >= numbers.start) else {
                continue;
            };
            rig.burn(&name(user), sequences[(head - numbers.start) as usize]);
            burned.extend(waiting.drain(..waiting.len() - keep));
        }
    }
    // Nothing moves any more; the workers end what they have begun.
    std::thread::sleep(Duration::from_millis(300));
    rig::copy_folder(live_folder.path(), folder.path());
    rig.close();
    Template {
        folder,
        databases,
        payload_len,
        live,
        burned,
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path).expect("listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if !matches!(
            path.file_name().and_then(|name| name.to_str()),
            Some("LOCK" | "lock")
        ) {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Damages a file; says how.
fn spoil(folder: &Path, random: &mut Seeded) -> String {
    let files = files(folder);
    // Each kind of file is as likely as the others, however many there are.
    let kind = |path: &PathBuf| -> String {
        let text = path
            .strip_prefix(folder)
            .expect("in it")
            .to_string_lossy()
            .into_owned();
        text.split('/')
            .map(|part| part.trim_matches(|c: char| c.is_ascii_digit()))
            .collect::<Vec<_>>()
            .join("/")
    };
    let kinds: Vec<String> = files
        .iter()
        .map(kind)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    // Journals and tables twice.
    let heavy: Vec<&String> = kinds
        .iter()
        .filter(|kind| kind.contains("jnl") || kind.contains("tables"))
        .collect();
    let chosen = match random.below(3) {
        0 => kinds[random.below(kinds.len() as u64) as usize].clone(),
        _ => heavy[random.below(heavy.len() as u64) as usize].clone(),
    };
    let of_kind: Vec<&PathBuf> = files.iter().filter(|path| kind(path) == chosen).collect();
    let path = of_kind[random.below(of_kind.len() as u64) as usize];
    let other = of_kind[random.below(of_kind.len() as u64) as usize];
    let mut bytes = fs::read(path).expect("read");
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at as u64 + 1);
    let short = path
        .strip_prefix(folder)
        .expect("in it")
        .display()
        .to_string();
    let at = random.below(used) as usize;
    let told = match random.below(9) {
        0..=2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
            format!("flip {at}")
        }
        3 | 4 => {
            let len = 1 + random.below(20_000) as usize;
            let end = (at + len).min(bytes.len());
            bytes[at..end].fill(0);
            format!("zero {at}..{end}")
        }
        5 => {
            bytes.truncate(at);
            format!("cut {at}")
        }
        6 => {
            fs::remove_file(path).expect("removed");
            return format!("remove {short}");
        }
        7 => {
            let other_bytes = fs::read(other).expect("read");
            fs::write(other, &bytes).expect("written");
            bytes = other_bytes;
            format!(
                "swap {}",
                other.strip_prefix(folder).expect("in it").display()
            )
        }
        _ => {
            let number = path
                .file_stem()
                .and_then(|name| name.to_str()?.parse::<u64>().ok());
            let free = number.map(|number| {
                let name = path.file_name().expect("a name").to_string_lossy();
                let free = name.replacen(
                    &number.to_string(),
                    &(number + 1 + random.below(3)).to_string(),
                    1,
                );
                path.with_file_name(free)
            });
            match free {
                Some(free) => {
                    fs::copy(path, &free).expect("copied");
                    return format!("copy {short} to {}", free.display());
                }
                None => {
                    fs::copy(path, other).expect("copied");
                    return format!("copy {short} to {}", other.display());
                }
            }
        }
    };
    fs::write(path, bytes).expect("written");
    format!("{told} of {used} in {short}")
}

#[derive(Debug, Default)]
struct Found {
    numbers: BTreeSet<u64>,
    lost: u64,
    refused: Vec<u64>,
}

fn read_all(rig: &mut Rig, template: &Template, case: &str) -> Found {
    let mut all = Found::default();
    for user in 0..USERS {
        let inbox = rig.read_on(&name(user), case);
        all.lost += inbox.lost;
        if inbox.refused {
            all.refused.push(user);
        }
        let mut last = None;
        for content in &inbox.payloads {
            let number = u64::from_be_bytes(content[..8].try_into().expect("eight bytes"));
            if number == u64::MAX {
                continue;
            }
            assert_eq!(content, &payload(number, template.payload_len), "{case}");
            assert!(last < Some(number), "{case}: out of order or twice");
            last = Some(number);
            all.numbers.insert(number);
        }
    }
    all
}

fn open(path: &Path, databases: usize, case: &str) -> Result<Rig, StoreError> {
    Rig::open_aside(options(path, databases), PATIENCE, case)
}

/// Reads until nothing is refused or broken any more: the store heals by itself.
fn settle(rig: &mut Rig, template: &Template, case: &str) -> Found {
    let began = Instant::now();
    loop {
        let broken = rig.store.metrics().pages_broken;
        let found = read_all(rig, template, case);
        let is_whole = found.refused.is_empty() && rig.store.metrics().pages_broken == broken;
        if is_whole && rig.store.state() == StoreState::Open {
            return found;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{case}: does not heal: {:?}, {}",
            found.refused,
            rig.store.state()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn one(template: &Template, seed: u64) -> &'static str {
    let mut random = Seeded::new(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    rig::copy_folder(template.folder.path(), path);
    let mut case = format!("seed {seed}: {}", spoil(path, &mut random));
    if random.below(3) == 0 {
        case += &format!(" and {}", spoil(path, &mut random));
    }
    if std::env::var_os("IRIS_DAMAGE_SEEDS").is_some() {
        println!("{case}");
    }
    let live: BTreeSet<u64> = template.live.values().flatten().copied().collect();
    let (mut rig, was_refused) = match open(path, template.databases, &case) {
        Ok(rig) => (rig, false),
        Err(error) => {
            let told = error.to_string();
            assert!(told.contains("iris store repair"), "{case}: {told}");
            assert!(!check(path).expect("checked").faults.is_empty(), "{case}");
            match repair(path) {
                Ok(_) => {}
                // Without FORMAT and all marks nothing tells the seed.
                Err(StoreError::Damaged { .. })
                    if !path.join("FORMAT").exists() || case.contains("FORMAT") =>
                {
                    return "beyond repair";
                }
                Err(error) => panic!("{case}: {error}"),
            }
            let rig = open(path, template.databases, &case);
            (rig.unwrap_or_else(|error| panic!("{case}: {error}")), true)
        }
    };
    let found = settle(&mut rig, template, &case);
    let recovery = rig.store.recovery();
    let missing = live.difference(&found.numbers).count() as u64;
    let returned = found.numbers.intersection(&template.burned).count() as u64;
    let told = recovery.lost() + found.lost;
    let context = format!(
        "{case}: {missing} missing, {returned} returned, {told} told, {} lost on pages; {recovery:?}",
        found.lost
    );
    if !was_refused {
        assert!(told >= missing, "{context}");
        let accounts_lost =
            recovery.table_accounts_lost + recovery.journals_damaged + recovery.journals_missing;
        assert!(returned == 0 || accounts_lost > 0, "{context}");
        assert!(
            missing == 0
                || !recovery.kept_in.is_empty()
                || found.lost > 0
                || recovery.sequences_lost > 0,
            "{context}"
        );
    }
    // It goes on, and the next start shows the same.
    for user in 0..USERS {
        rig.append(&name(user), &u64::MAX.to_be_bytes());
    }
    rig.store
        .close()
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let mut rig =
        open(path, template.databases, &case).unwrap_or_else(|error| panic!("{context}: {error}"));
    let again = settle(&mut rig, template, &case);
    assert_eq!(again.numbers, found.numbers, "{context}");
    let recovery = rig.store.recovery();
    assert_eq!(recovery.lost(), 0, "{context}, and then {recovery:?}");
    rig.store
        .close()
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let checked = check(path).unwrap_or_else(|error| panic!("{context}: {error}"));
    // What is burned is not read; a block of nothing else may wait for a merge to find it.
    let faults: Vec<&String> = checked
        .faults
        .iter()
        .filter(|fault| !fault.contains("/tables/"))
        .collect();
    assert_eq!(faults, Vec::<&String>::new(), "{context}");
    match (was_refused, missing) {
        (true, _) => "refused and repaired",
        (false, 0) => "served whole",
        (false, missing) if told == missing => "served, the loss told exactly",
        (false, _) => "served, the loss told as at most",
    }
}

/// The first few, and those that found something once.
fn seeds(first: Range<u64>, found: &[u64]) -> Vec<u64> {
    let Ok(text) = std::env::var("IRIS_DAMAGE_SEEDS") else {
        return first.chain(found.iter().copied()).collect();
    };
    let (from, to) = text.split_once("..").expect("FROM..TO");
    (from.parse().expect("a number")..to.parse().expect("a number")).collect()
}

fn run(template: &Template, seeds: Vec<u64>) {
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds {
        *outcomes.entry(one(template, seed)).or_default() += 1;
    }
    println!("{outcomes:?}");
}

#[test]
fn tables_and_journals_of_several_databases() {
    run(
        &template(2, 16_000, 300),
        seeds(0..36, &[54, 130, 131, 357, 588, 595]),
    );
}

#[test]
fn several_journals_of_one_database() {
    run(&template(1, 9_000, 20_000), seeds(0..4, &[]));
}
