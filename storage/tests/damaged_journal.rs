//! Damage in a journal costs the messages it hits and no others: what lies behind it is put back, and what is lost is
//! told in numbers.

mod rig;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use iris_storage::{Store, StoreOptions};
use rig::{Rig, name};

const USERS: u64 = 7;

/// One batch for each request, so that the damage of one batch is that of one message.
fn options(path: &Path) -> StoreOptions {
    StoreOptions {
        commit_requests_max: 1,
        databases: 1,
        ..rig::options(path)
    }
}

fn payload(number: u64) -> Vec<u8> {
    rig::payload(number, 100)
}

/// Sequence and number of every message, by user.
type Said = BTreeMap<u64, Vec<(u64, u64)>>;

fn fill(rig: &mut Rig, numbers: std::ops::Range<u64>, said: &mut Said) {
    for number in numbers {
        let user = number % USERS;
        let sequence = rig.append(&name(user), &payload(number));
        said.entry(user).or_default().push((sequence, number));
    }
}

fn journals(folder: &Path) -> Vec<PathBuf> {
    let mut journals: Vec<PathBuf> = fs::read_dir(folder.join("inbox-0"))
        .expect("a database")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    journals.sort();
    journals
}

fn content_len(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1)
}

/// Opens the store, holds it against what was said, and returns how many messages are missing.
fn missing(rig: &mut Rig, said: &Said) -> u64 {
    let mut missing = 0;
    for (user, said) in said {
        let (found, _) = rig.drain(&name(*user), 100);
        let said: BTreeMap<u64, Vec<u8>> = said
            .iter()
            .map(|(sequence, number)| (*sequence, payload(*number)))
            .collect();
        for (sequence, payload) in &found {
            assert_eq!(
                said.get(sequence),
                Some(payload),
                "user {user}: never stored so"
            );
        }
        missing += (said.len() - found.len()) as u64;
    }
    missing
}

#[test]
fn a_break_in_the_middle_costs_what_it_hits() {
    let template = tempfile::tempdir().expect("a folder");
    let mut said = Said::new();
    let mut rig = Rig::with(options(template.path()));
    fill(&mut rig, 0..400, &mut said);
    rig.burn(&name(0), said[&0][10].0);
    said.get_mut(&0).expect("said").drain(..10);
    fill(&mut rig, 400..600, &mut said);
    rig.close();
    let bytes = fs::read(&journals(template.path())[0]).expect("read");
    let len = content_len(&bytes);
    for round in 0..24 {
        let from = 200 + (len - 2000) * round / 24;
        // A flipped byte, a lost sector, a lost page.
        let hole = [1, 512, 4096][round % 3].min(len - 1000 - from);
        let folder = tempfile::tempdir().expect("a folder");
        rig::copy_folder(template.path(), folder.path());
        let mut damaged = bytes.clone();
        if hole == 1 {
            damaged[from] ^= 0x40;
        } else {
            damaged[from..from + hole].fill(0);
        }
        fs::write(&journals(folder.path())[0], &damaged).expect("written");
        let mut rig = Rig::with(options(folder.path()));
        let recovery = rig.store.recovery();
        assert_eq!(recovery.journals_damaged, 1, "round {round}");
        assert!(recovery.messages_put_back > 0, "round {round}");
        let lost = missing(&mut rig, &said);
        // Of the first ones ten were burned: nobody misses them, and nobody can tell them from the others.
        let burned = if from < 70 * 300 { 10 } else { 0 };
        assert!(
            (lost..=lost + burned).contains(&recovery.messages_lost),
            "round {round}: {lost} lost, {recovery:?}"
        );
        assert!(
            lost <= 1 + hole as u64 / 180 + 1,
            "round {round}: {lost} lost"
        );
        assert_eq!(recovery.kept_in.len(), 1);
        assert!(recovery.kept_in[0].join("0.jnl").exists());
        // What was put right stays so, and the store goes on.
        let mut more = said.clone();
        fill(&mut rig, 10_000..10_010, &mut more);
        rig.close();
        let mut rig = Rig::with(options(folder.path()));
        assert!(rig.store.recovery().is_clean(), "round {round}");
        assert_eq!(missing(&mut rig, &more), lost, "round {round}");
        rig.close();
    }
}

/// Killed between the copy and the end of the putting back: the next open finishes it.
#[test]
fn what_was_not_put_back_yet_is_put_back_at_the_next_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut said = Said::new();
    let mut rig = Rig::with(options(folder.path()));
    fill(&mut rig, 0..200, &mut said);
    rig.close();
    let journal = &journals(folder.path())[0];
    let mut bytes = fs::read(journal).expect("read");
    // Behind the end of a batch.
    let half = content_len(&bytes) / 2;
    let trailer = bytes[half..]
        .windows(4)
        .position(|window| window == b"FJL\x03");
    let cut = half + trailer.expect("a batch ends") + 4;
    bytes[cut + 60] ^= 1;
    // As it is after the cut: the journal ends before the damage, the copy has everything.
    let copy = folder.path().join("damaged/1-inbox-0.unfinished");
    fs::create_dir_all(&copy).expect("made");
    fs::write(copy.join("0.jnl"), &bytes).expect("written");
    let partial = folder.path().join("damaged/2-inbox-0.partial");
    fs::create_dir_all(&partial).expect("made");
    fs::write(journal, &bytes[..cut]).expect("written");
    let mut rig = Rig::with(options(folder.path()));
    let recovery = rig.store.recovery();
    assert!(recovery.messages_put_back > 90, "{recovery:?}");
    assert!(missing(&mut rig, &said) <= 1);
    assert!(!copy.exists() && copy.with_extension("").exists() && !partial.exists());
    rig.close();
    let rig = Rig::with(options(folder.path()));
    assert!(rig.store.recovery().is_clean());
}

#[test]
fn a_missing_journal_is_not_an_empty_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut said = Said::new();
    let mut rig = Rig::with(options(folder.path()));
    fill(&mut rig, 0..50, &mut said);
    rig.close();
    fs::remove_file(&journals(folder.path())[0]).expect("removed");
    let store = Store::open(options(folder.path())).expect("opens");
    let recovery = store.recovery();
    assert_eq!(
        (recovery.journals_missing, recovery.journals_damaged),
        (1, 0)
    );
    // An opening takes a sequence for itself.
    assert!((50..=51).contains(&recovery.sequences_lost), "{recovery:?}");
}
