//! The data folder: made if missing, never shared, never another's; each refusal is one line that says what to do.

mod rig;

use std::fs;
use std::path::Path;

use iris_storage::{Store, StoreError};
use rig::{Rig, options};

fn refusal(path: &Path) -> StoreError {
    match Store::open(options(path)) {
        Ok(_) => panic!("opened"),
        Err(error) => {
            let line = error.to_string();
            assert!(
                !line.contains('\n') && line.contains(&path.display().to_string()),
                "{line}"
            );
            error
        }
    }
}

#[test]
fn a_missing_folder_is_made_and_found_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deeply/nested");
    let mut rig = Rig::open(&path);
    let key = rig.store.name_key();
    rig.append("anna", b"x");
    rig.close();
    assert_eq!(Rig::open(&path).store.name_key(), key);
    let other = tempfile::tempdir().expect("a folder");
    assert_ne!(
        Rig::open(other.path()).store.name_key(),
        key,
        "each folder draws its own key"
    );
}

#[test]
fn two_stores_never_share_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Rig::open(folder.path());
    let error = refusal(folder.path());
    assert!(matches!(error, StoreError::Locked { .. }));
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    first.close();
    // A dropped store gives the folder up just as a closed one does.
    drop(Rig::open(folder.path()).store);
    Rig::open(folder.path()).close();
}

#[test]
fn what_is_not_a_folder_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "content").expect("written");
    assert!(matches!(refusal(&file), StoreError::NotAFolder { .. }));
    let below = file.join("below");
    assert!(matches!(refusal(&below), StoreError::Unwritable { .. }));
    assert_eq!(fs::read_to_string(&file).expect("there"), "content");
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("letters.txt"), "dear").expect("written");
    assert!(matches!(refusal(folder.path()), StoreError::Foreign { .. }));
    let names: Vec<_> = fs::read_dir(folder.path())
        .expect("listed")
        .map(|entry| entry.expect("one").file_name())
        .collect();
    assert_eq!(names, ["letters.txt"]);
}

#[test]
fn a_place_that_takes_no_files_is_refused() {
    // Also the superuser makes no folder here.
    assert!(matches!(
        refusal(Path::new("/proc/iris-data")),
        StoreError::Unwritable { .. }
    ));
}

#[test]
fn a_format_of_another_version_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    Rig::open(folder.path()).close();
    let path = folder.path().join("FORMAT");
    let ours = fs::read_to_string(&path).expect("text");
    let of_version = |version: u32| {
        let text = ours.replace("version 3", &format!("version {version}"));
        let (checked, _) = text.rsplit_once("crc ").expect("FORMAT ends in a CRC");
        let text = format!("{checked}crc {:08x}\n", crc32fast::hash(checked.as_bytes()));
        fs::write(&path, &text).expect("written");
        let error = refusal(folder.path());
        assert_eq!(fs::read_to_string(&path).expect("text"), text);
        error
    };
    let newer = of_version(4);
    assert!(matches!(
        newer,
        StoreError::Newer {
            found: 4,
            known: 3,
            ..
        }
    ));
    for version in [1, 2] {
        let older = of_version(version);
        assert!(matches!(older, StoreError::Older { known: 3, .. }));
        assert!(older.to_string().contains("a new data folder"), "{older}");
    }
}

#[test]
fn a_creation_that_was_cut_short_is_begun_again() {
    let folder = tempfile::tempdir().expect("a folder");
    // What is left if the process dies while the database is made: fjall would not go on from this.
    fs::create_dir(folder.path().join("inbox-0.new")).expect("made");
    fs::write(folder.path().join("inbox-0.new/0.jnl"), "").expect("written");
    fs::write(folder.path().join("FORMAT.new"), "iri").expect("written");
    assert!(
        matches!(refusal(folder.path()), StoreError::Foreign { .. }),
        "without FORMAT it may be another's"
    );
    let whole = tempfile::tempdir().expect("a folder");
    Rig::open(whole.path()).close();
    fs::copy(whole.path().join("FORMAT"), folder.path().join("FORMAT")).expect("copied");
    let mut rig = Rig::open(folder.path());
    rig.append("anna", b"x");
    rig.close();
}
