//! Damage at many places of every file of a data folder: a start serves everything, or tells the loss in numbers, or is
//! refused with a line that says what to do. Never silently less, never a wrong payload, never a panic, never a hang; and a
//! repair afterwards serves all that is intact.

mod rig;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use iris_storage::{StoreError, repair};
use rig::{Rig, Seeded, name, small_tables};

const USERS: u64 = 12;
const MESSAGES: u64 = 5000;
/// An open of so small a store takes some hundredths of a second.
const PATIENCE: Duration = Duration::from_secs(30);

fn payload(number: u64) -> Vec<u8> {
    rig::payload(number, 200)
}

/// Stores messages. `flushed`: all of them are in tables and the journal is empty; else the journal has all, too.
fn fill(path: &Path, flushed: bool) {
    let mut rig = Rig::with(small_tables(path));
    let names: Vec<String> = (0..USERS).map(name).collect();
    let all =
        (0..MESSAGES).map(|number| (names[(number % USERS) as usize].as_str(), payload(number)));
    rig.append_all(all);
    rig.close();
    if flushed {
        rig::flush(path);
    }
    // Without the zeros at its end, for the sake of the copies; flushed, it has nothing more to say.
    let journal = path.join("inbox-0/0.jnl");
    let bytes = fs::read(&journal).expect("a journal");
    let len = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    let file = fs::File::options()
        .write(true)
        .open(&journal)
        .expect("opened");
    file.set_len(if flushed { 0 } else { len as u64 })
        .expect("cut");
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path).expect("listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[derive(Clone, Copy, Debug)]
enum Spoil {
    Flip(u64),
    Zero(u64),
    Cut(u64),
    Remove,
}

impl Spoil {
    fn apply(self, path: &Path) {
        let mut bytes = fs::read(path).expect("read");
        match self {
            Spoil::Remove => return fs::remove_file(path).expect("removed"),
            Spoil::Flip(at) => {
                if let Some(byte) = bytes.get_mut(at as usize) {
                    *byte ^= 1 << (at % 8);
                }
            }
            Spoil::Zero(from) => {
                let end = (from as usize + 4096).min(bytes.len());
                if let Some(block) = bytes.get_mut(from as usize..end) {
                    block.fill(0);
                }
            }
            Spoil::Cut(len) => bytes.truncate(len as usize),
        }
        fs::write(path, bytes).expect("written");
    }
}

/// What a reader finds in a store: how many messages, how many are told as lost, and of how many users nothing is
/// given out but an error.
#[derive(Debug, Default)]
struct Found {
    messages: u64,
    lost: u64,
    users_refused: u64,
}

fn read_all(rig: &mut Rig, case: &str) -> Found {
    let mut all = Found::default();
    for user in 0..USERS {
        let inbox = rig.read_on(&name(user), case);
        all.messages += inbox.payloads.len() as u64;
        all.lost += inbox.lost;
        all.users_refused += u64::from(inbox.refused);
        let mut last = None;
        for content in &inbox.payloads {
            let number = u64::from_be_bytes(content[..8].try_into().expect("eight bytes"));
            assert_eq!(content, &payload(number), "{case}");
            assert_eq!(number % USERS, user, "{case}: of another user");
            assert!(last < Some(number), "{case}: out of order or twice");
            last = Some(number);
        }
    }
    all
}

fn open(path: &Path, case: &str) -> Result<Rig, StoreError> {
    Rig::open_aside(small_tables(path), PATIENCE, case)
}

/// One case; what became of it.
fn spoil_and_look(template: &Path, file: &Path, spoil: Spoil) -> &'static str {
    let case = format!("{} {spoil:?}", file.display());
    let folder = tempfile::tempdir().expect("a folder");
    rig::copy_folder(template, folder.path());
    spoil.apply(&folder.path().join(file));
    let mut before = None;
    let outcome = match open(folder.path(), &case) {
        Err(error) => {
            let told = error.to_string();
            assert!(
                told.contains("iris store repair") || told.contains("check that"),
                "{case}: {told}"
            );
            "refused"
        }
        Ok(mut rig) => {
            let found = read_all(&mut rig, &case);
            let recovery = rig.store.recovery();
            let told = found.lost + recovery.lost();
            let missing = MESSAGES - found.messages;
            // At the end of an inbox the number cannot be known; that something cannot be read is told all the same.
            let is_broken = found.users_refused > 0 || rig.store.metrics().pages_broken > 0;
            // An opening takes a sequence for itself.
            let extra = told.saturating_sub(missing);
            assert!(
                // Whose key was hit is told as unclaimed, since nobody can tell it from a user whose account is lost.
                (told..=told + recovery.messages_unclaimed).contains(&missing)
                    || (recovery.sequences_lost > 0 && extra <= 1)
                    // What a journal lost may be in a table, or the other way round: then more is told than is missing,
                    // never less.
                    || (recovery.messages_lost + recovery.table_messages_lost > 0 && told >= missing)
                    || (is_broken && told < missing),
                "{case}: {missing} missing, {told} told; {found:?} {recovery:?}"
            );
            before = Some(found.messages);
            rig.close();
            match (missing, is_broken) {
                (0, _) => "served whole",
                (_, false) => "served, the loss told exactly",
                (_, true) => "served, the loss told as a break",
            }
        }
    };
    let repaired = repair(folder.path()).unwrap_or_else(|error| panic!("{case}: {error}"));
    let mut rig = open(folder.path(), &case).unwrap_or_else(|error| panic!("{case}: {error}"));
    let found = read_all(&mut rig, &case);
    assert_eq!(found.users_refused, 0, "{case}");
    // A message whose key was hit stands in an inbox of its own that has no name, and nobody can open.
    let unnamed = repaired.survey.users_unnamed;
    assert!(
        (found.messages..=found.messages + unnamed).contains(&repaired.messages),
        "{case}: {found:?}, {} kept, {unnamed} without a name",
        repaired.messages
    );
    assert!(
        before.is_none_or(|before| found.messages >= before),
        "{case}: {before:?}, {found:?}"
    );
    rig.close();
    outcome
}

#[test]
fn damage_anywhere_is_told() {
    let mut random = Seeded::new(0x1715_2026_1122);
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    for flushed in [false, true] {
        let template = tempfile::tempdir().expect("a folder");
        fill(template.path(), flushed);
        for path in files(template.path()) {
            let file = path.strip_prefix(template.path()).expect("in it");
            let len = fs::metadata(&path).expect("there").len();
            if file == Path::new("LOCK") || len == 0 {
                continue;
            }
            let is_large = len > 10_000;
            let mut spoils = vec![Spoil::Remove, Spoil::Cut(random.below(len))];
            if is_large {
                spoils.push(Spoil::Zero(random.below(len)));
            }
            let flips = if is_large { 4 } else { 1 };
            spoils.extend((0..flips).map(|_| Spoil::Flip(random.below(len))));
            for spoil in spoils {
                *outcomes
                    .entry(spoil_and_look(template.path(), file, spoil))
                    .or_default() += 1;
            }
        }
    }
    println!("{outcomes:?}");
    for expected in ["refused", "served whole", "served, the loss told exactly"] {
        assert!(
            outcomes.contains_key(expected),
            "no case was {expected}: {outcomes:?}"
        );
    }
}
