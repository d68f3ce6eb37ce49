//! The comparison starts a gateway with the flags it promises, and sets its cost against the
//! limit's. A stand-in for the gateway, which is the yardstick itself behind those flags, comes
//! out at about the limit.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use support::BENCH;

#[test]
fn a_gateway_is_started_as_promised_and_measured_against_the_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let (gateway, seen) = (folder.path().join("iris"), folder.path().join("seen"));
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {}\ntest -d \"$5\" || exit 9\nexec {BENCH} limit --listen \"$3\"\n",
        seen.display()
    );
    fs::write(&gateway, script).expect("a script");
    fs::set_permissions(&gateway, fs::Permissions::from_mode(0o755)).expect("executable");

    let output = Command::new(BENCH)
        .args([
            "compare-limit",
            "--shape",
            "gather,reply,bursts",
            "--connections",
            "100",
            "--in-flight",
            "4",
            "--size",
            "64",
            "--rounds",
            "1",
            "--warm-up",
            "0.1",
            "--duration",
            "0.3",
        ])
        .arg("--gateway")
        .arg(&gateway)
        .output()
        .expect("the program");
    assert!(output.status.success(), "{output:?}");

    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for shape in ["gather", "reply", "bursts"] {
        let name = format!("{shape} 100 x 4, 64 B gateway/limit");
        let line = text
            .lines()
            .find(|line| line.starts_with(&name))
            .expect(&text);
        let ratio = line[name.len()..].split_ascii_whitespace().next();
        let ratio: f64 = ratio.and_then(|word| word.parse().ok()).expect(line);
        // The same program twice; the width is for a busy machine.
        assert!((0.1..10.0).contains(&ratio), "{line}");
    }

    let bursts = "  those in bursts, gateway/limit";
    assert_eq!(text.matches(bursts).count(), 1, "{text}");

    let seen = fs::read_to_string(seen).expect("what it was started with");
    assert_eq!(seen.lines().count(), 3);
    for line in seen.lines() {
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!(words[..2], ["serve", "--listen"], "{line}");
        let rest = "--cores 0, --admin off --max-connections 20000";
        assert!(words[3] == "--data" && line.ends_with(rest), "{line}");
        assert!(
            !fs::exists(words[4]).expect("a path"),
            "{} was left behind",
            words[4]
        );
    }
}

#[test]
fn the_framed_protocol_is_held_against_the_classic_one_of_the_same_gateway() {
    support::gateway();
    let gateway = Path::new(BENCH).with_file_name("iris");
    let flags = "compare-limit --protocol framed --shape eager --connections 50 --in-flight 2 \
                 --rounds 1 --warm-up 0.1 --duration 0.3 --gateway";
    let output = Command::new(BENCH)
        .args(flags.split_ascii_whitespace())
        .arg(gateway)
        .output()
        .expect("the program");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    for name in ["classic", "framed", "framed/classic"] {
        let line = format!("\neager 50 x 2, 64 B {name} ");
        assert!(text.contains(&line), "{text}");
    }
}
