//! The comparison against the real servers, as far as they are installed: each speaks its protocol,
//! loses nothing, and has its figures beside its settings. One that is missing is left out, and the
//! way to install it is said.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BENCH: &str = env!("CARGO_BIN_EXE_iris-bench");

fn compare(arguments: &[&str]) -> Command {
    let mut command = Command::new(BENCH);
    command.arg("compare").args(arguments);
    command.args(["--rounds", "1", "--warm-up", "0.1", "--duration", "0.3"]);
    command
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a program is installed; a line says so if it is not.
fn is_installed(package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders
        .map(|folder| folder.join(package))
        .any(|file| file.is_file());
    if !found {
        eprintln!("skipped: {package} is not installed: apt-get install {package}");
    }
    found
}

/// The cells of the table's row for `name`.
fn row<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!("| {name} ");
    let line = text.lines().find(|line| line.starts_with(&begin));
    let line = line.unwrap_or_else(|| panic!("no row for {name} in {text}"));
    line.split('|').map(str::trim).collect()
}

fn assert_sound(text: &str, names: &[&str]) {
    for name in names {
        let cells = row(text, name);
        let rate: f64 = cells[2].replace(',', "").parse().expect("a rate");
        assert!(rate > 10.0, "{name}: {text}");
        assert_eq!(cells[cells.len() - 2], "nothing", "{name}: {text}");
    }
}

#[test]
fn nats_passes_and_keeps_messages() {
    if is_installed("nats-server") {
        let loads = ["--servers", "nats", "--loads", "steady,few,stored"];
        let text = text(&compare(&loads).output().expect("the program"));
        assert_sound(&text, &["NATS core", "JetStream, default sync"]);
        let begin = "- JetStream, sync_interval always: ";
        let always = text.lines().find_map(|line| line.strip_prefix(begin));
        let always = always.expect("the settings");
        assert!(always.contains("sync_interval"), "{always}");
    }
}

#[test]
fn mosquitto_passes_at_both_qualities() {
    if is_installed("mosquitto") {
        let loads = ["--servers", "mosquitto", "--loads", "few"];
        let text = text(&compare(&loads).output().expect("the program"));
        assert_sound(&text, &["Mosquitto, QoS 0", "Mosquitto, QoS 1"]);
    }
}

#[test]
fn redis_passes_and_keeps_messages() {
    if is_installed("redis-server") {
        let loads = ["--servers", "redis", "--loads", "few,stored"];
        let text = text(&compare(&loads).output().expect("the program"));
        let stored = [
            "Redis Streams, fsync always",
            "Redis Streams, fsync everysec",
        ];
        assert_sound(&text, &["Redis pub/sub"]);
        assert_sound(&text, &stored);
        assert!(
            text.contains("appendonly yes; appendfsync always"),
            "{text}"
        );
    }
}

#[test]
fn the_yardstick_needs_nothing_and_its_memory_is_measured() {
    let loads = ["--servers", "limit", "--loads", "few,memory"];
    let text = text(&compare(&loads).output().expect("the program"));
    assert_sound(&text, &["bare ring"]);
    assert!(text.contains("| resident, bytes/user |"), "{text}");
}

#[test]
fn a_server_that_is_missing_is_left_out_with_a_word_on_how_to_install_it() {
    if Path::new("/usr/sbin/redis-server").exists() {
        eprintln!("skipped: redis-server is in /usr/sbin, where it is found without a PATH");
        return;
    }
    let loads = ["--servers", "limit,redis", "--loads", "few,stored"];
    let mut command = compare(&loads);
    let text = text(
        &command
            .env("PATH", "/nonexistent")
            .output()
            .expect("the program"),
    );
    let word =
        "- Redis pub/sub: left out: redis-server is not installed: apt-get install redis-server";
    assert!(text.contains(word), "{text}");
    assert_sound(&text, &["bare ring"]);
    assert!(!text.contains("| Redis"), "{text}");
}
