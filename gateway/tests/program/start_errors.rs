//! What can be wrong at the start is said in one line that says what to do, with exit code 1, and a
//! gateway that runs already is not disturbed.

use std::path::Path;

use crate::support;
use crate::support::{Framed, Gateway};

/// Runs `iris serve` to its end, which must be a failure, and gives the last line it says.
#[track_caller]
fn fails(listen: &str, data: &Path) -> String {
    let mut command = support::iris();
    command
        .args(["serve", "--cores", "1", "--max-connections", "64"])
        .args(["--admin", "off", "--listen", listen, "--data"])
        .arg(data);
    let output = support::run(&mut command);
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let mut complaints = stderr.lines().filter(|line| line.starts_with("iris: "));
    let line = complaints.next().expect("a complaint").to_owned();
    assert_eq!(complaints.next(), None, "{stderr}");
    assert_eq!(stderr.lines().last(), Some(line.as_str()));
    line
}

const FREE: &str = "127.0.0.1:0";

#[test]
fn a_port_that_another_gateway_has() {
    let gateway = Gateway::serving(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    let address = gateway.address().to_string();
    let line = fails(&address, &folder.path().join("data"));
    assert!(
        line.contains(&address) && line.contains("--listen"),
        "{line}"
    );
    // Half the connections would go to the other if both listened.
    for number in 0..20 {
        Framed::login(gateway.address(), &format!("user-{number}")).leave();
    }
}

#[test]
fn a_data_folder_that_another_gateway_has() {
    let gateway = Gateway::serving(&[]);
    let data = gateway.data();
    let line = fails(FREE, &data);
    assert!(line.contains(data.to_str().expect("UTF-8")), "{line}");
    assert!(
        line.contains("another") || line.contains("in use"),
        "{line}"
    );
    Framed::login(gateway.address(), "alice").leave();
}

#[test]
fn a_data_folder_that_cannot_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a-file");
    std::fs::write(&file, "not a folder").expect("written");
    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign).expect("made");
    std::fs::write(foreign.join("letters.txt"), "dear").expect("written");
    for data in [
        file.as_path(),
        &file.join("below"),
        Path::new("/proc/iris-data"),
        &foreign,
    ] {
        let line = fails(FREE, data);
        assert!(line.contains(data.to_str().expect("UTF-8")), "{line}");
    }
    let letters = std::fs::read_to_string(foreign.join("letters.txt"));
    assert_eq!(letters.expect("still there"), "dear");
}

#[test]
fn a_damaged_data_folder() {
    let mut gateway = Gateway::serving(&[]);
    gateway.stop();
    let data = gateway.data();
    std::fs::write(data.join("FORMAT"), "iris inbox\nversion 999\n").expect("written");
    let line = fails(FREE, &data);
    assert!(line.contains("FORMAT"), "{line}");
}
