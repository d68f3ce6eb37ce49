//! A folder of version 1 becomes one of this version with everything in it, wherever the change was cut short.

mod rig;

use std::fs;
use std::path::Path;

use iris_storage::{Store, StoreError, StoreOptions};
use rig::{Rig, options};

const MESSAGES: usize = 50;

/// FORMAT as version 1 wrote it, from one of this version.
fn format_one(format: &str) -> String {
    let seed = format.lines().find(|line| line.starts_with("seed "));
    let text = format!(
        "iris inbox store\nversion 1\n{}\n",
        seed.expect("FORMAT has a seed")
    );
    let crc = crc32fast::hash(text.as_bytes());
    format!("{text}crc {crc:08x}\n")
}

/// A folder as version 1 left it: its database and its FORMAT had another name and content, all else is as it is now.
fn folder_of_version_one(path: &Path) -> (String, String) {
    let mut rig = Rig::open(path);
    for n in 0..MESSAGES {
        rig.append("anna", &n.to_be_bytes());
    }
    rig.burn("ben", u64::MAX);
    rig.close();
    let new = fs::read_to_string(path.join("FORMAT")).expect("text");
    let old = format_one(&new);
    fs::write(path.join("FORMAT"), &old).expect("written");
    fs::rename(path.join("inbox-0"), path.join("inbox")).expect("renamed");
    (old, new)
}

fn check(path: &Path, format: &str) {
    // Asked for more: what was one database stays one.
    let mut rig = Rig::with(StoreOptions {
        databases: 3,
        ..options(path)
    });
    let (found, lost) = rig.drain("anna", 7);
    assert_eq!((found.len(), lost), (MESSAGES, 0));
    let last = found.last().expect("some").0;
    assert!(rig.append("anna", b"on") > last);
    rig.burn("anna", last + 1);
    rig.close();
    assert_eq!(
        fs::read_to_string(path.join("FORMAT")).expect("text"),
        format
    );
    assert!(!path.join("inbox").exists() && !path.join("inbox-1").exists());
    assert_eq!(Rig::open(path).account("anna").0, 1);
}

#[test]
fn an_upgrade_goes_on_from_wherever_it_was_cut_short() {
    // What a killed upgrade can leave, step by step.
    for step in 0..5 {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let (_, new) = folder_of_version_one(path);
        if step >= 1 {
            fs::rename(path.join("inbox"), path.join("inbox-0")).expect("renamed");
        }
        match step {
            2 => fs::write(path.join("FORMAT.new"), &new[..20]).expect("written"),
            3 => fs::write(path.join("FORMAT.new"), &new).expect("written"),
            4 => fs::write(path.join("FORMAT"), &new).expect("written"),
            _ => {}
        }
        check(path, &new);
    }
}

#[test]
fn a_folder_of_version_1_without_its_database_is_begun_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    folder_of_version_one(path);
    let kept = fs::read(path.join("SEQUENCE")).expect("there");
    // Killed while its first database was made: nothing was ever acknowledged.
    fs::rename(path.join("inbox"), path.join("inbox.new")).expect("renamed");
    fs::remove_file(path.join("SEQUENCE")).expect("removed");
    Rig::open(path).close();
    assert!(!path.join("inbox.new").exists());
    // Lost later: never begun anew in silence.
    fs::remove_dir_all(path.join("inbox-0")).expect("removed");
    fs::write(path.join("SEQUENCE"), kept).expect("written");
    let format = fs::read_to_string(path.join("FORMAT")).expect("text");
    fs::write(path.join("FORMAT"), format_one(&format)).expect("written");
    assert!(matches!(
        Store::open(options(path)),
        Err(StoreError::Damaged { .. })
    ));
}
