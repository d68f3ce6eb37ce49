//! The data folder on a machine with other users: nobody else reads what is made there, and no link that somebody put
//! there is followed.

mod rig;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use iris_storage::{Store, StoreError, check, repair};
use rig::{Rig, options};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn the_folder_and_our_files_are_for_the_owner_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    let mut rig = Rig::open(&path);
    rig.append("anna", b"x");
    rig.close();
    assert_eq!(mode(&path), 0o700);
    for name in ["LOCK", "FORMAT", "SEQUENCE", "SYNCED-0"] {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }
}

#[test]
fn no_file_of_ours_may_be_a_link() {
    for name in ["LOCK", "FORMAT", "SEQUENCE", "SYNCED-0", "BALLAST", "PROBE"] {
        let folder = tempfile::tempdir().expect("a folder");
        Rig::open(folder.path()).close();
        let (ours, theirs) = (folder.path().join(name), folder.path().join("../theirs"));
        let theirs = theirs.with_extension(format!("{name}-{}", std::process::id()));
        fs::write(&theirs, "theirs").expect("written");
        let _ = fs::remove_file(&ours);
        symlink(&theirs, &ours).expect("linked");
        for refused in [
            Store::open(options(folder.path())).map(drop),
            check(folder.path()).map(drop),
            repair(folder.path()).map(drop),
        ] {
            match refused {
                Err(StoreError::Link { path }) => assert_eq!(path, ours),
                other => panic!("{name}: {other:?}"),
            }
        }
        let kept = fs::read_to_string(&theirs).expect("there");
        fs::remove_file(&theirs).expect("removed");
        assert_eq!(kept, "theirs", "{name}");
    }
}

#[test]
fn a_link_that_leads_nowhere_is_no_new_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, nowhere) = (folder.path().join("data"), folder.path().join("nowhere"));
    fs::create_dir(&path).expect("made");
    for name in ["FORMAT", "LOCK"] {
        symlink(&nowhere, path.join(name)).expect("linked");
        let opened = Store::open(options(&path)).map(drop);
        assert!(matches!(opened, Err(StoreError::Link { .. })), "{opened:?}");
        fs::remove_file(path.join(name)).expect("removed");
    }
    assert!(!nowhere.exists());
}

#[test]
fn a_link_beside_a_file_that_is_replaced_is_not_written_through() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, theirs) = (folder.path().join("data"), folder.path().join("theirs"));
    fs::create_dir(&path).expect("made");
    fs::write(&theirs, "theirs").expect("written");
    for name in ["FORMAT.new", "SEQUENCE.new"] {
        // Whatever is here when the folder is new is not ours, but for what a first start leaves.
        if name != "FORMAT.new" {
            Rig::open(&path).close();
        }
        symlink(&theirs, path.join(name)).expect("linked");
        Rig::open(&path).close();
        assert!(!path.join(name).is_symlink(), "{name}");
    }
    assert_eq!(fs::read_to_string(&theirs).expect("there"), "theirs");
}

#[test]
fn a_folder_that_others_can_enter_is_still_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("set");
    Rig::open(folder.path()).close();
    assert_eq!(
        mode(folder.path()),
        0o755,
        "whose folder it is decides that"
    );
}
