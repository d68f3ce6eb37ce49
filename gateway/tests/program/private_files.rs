//! What a gateway writes, only the user it runs as can read, whatever umask it was started with; and a folder that others
//! can enter is told of.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{Framed, Gateway};
use iris_protocol::Outcome;

/// The folder, all in it, and their modes.
fn modes(folder: &Path, found: &mut Vec<(PathBuf, u32)>) {
    let metadata = fs::metadata(folder).expect("there");
    found.push((folder.to_path_buf(), metadata.permissions().mode() & 0o777));
    if metadata.is_dir() {
        for entry in fs::read_dir(folder).expect("listed") {
            modes(&entry.expect("one").path(), found);
        }
    }
}

#[test]
fn everything_in_the_data_folder_is_for_its_owner_alone() {
    let mut gateway = Gateway::serving_without_umask();
    let mut alice = Framed::login(gateway.address(), "alice");
    assert_eq!(alice.sends("bob", b"for bob alone"), Outcome::Stored);
    alice.leave();
    let data = gateway.data();
    gateway.stop();
    let mut found = Vec::new();
    modes(&data, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for (path, mode) in found {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{} has {mode:o}", path.display());
    }
}

#[test]
fn a_folder_that_others_can_enter_is_a_warning_that_says_what_to_do() {
    let mut gateway = Gateway::serving(&[]);
    let data = gateway.data();
    let advice = format!("chmod 700 {}", data.display());
    let is_told = |gateway: &Gateway| gateway.seen().iter().any(|line| line.contains(&advice));
    assert!(!is_told(&gateway), "{:#?}", gateway.seen());
    gateway.stop();
    fs::set_permissions(&data, Permissions::from_mode(0o755)).expect("set");
    gateway.start_again();
    assert!(is_told(&gateway), "{:#?}", gateway.seen());
}
