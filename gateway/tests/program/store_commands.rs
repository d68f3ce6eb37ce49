//! `iris store`: what it prints about the folder of a real gateway, and its exit codes.

use std::fs;
use std::path::Path;

use crate::support;
use crate::support::{Framed, Gateway};
use iris_protocol::Outcome;

fn store(command: &[&str], folder: &Path) -> (Option<i32>, String, String) {
    let output = support::run(support::iris().arg("store").args(command).arg(folder));
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn a_folder_is_counted_checked_and_repaired() {
    let mut gateway = Gateway::serving(&[]);
    let at = gateway.address();
    let mut alice = Framed::login(at, "alice");
    for number in 0..30u8 {
        let target = if number < 20 { "bob" } else { "eve \"x\"" };
        assert_eq!(alice.sends(target, &[number; 50]), Outcome::Stored);
    }
    alice.leave();
    let data = gateway.data();
    let (code, _, said) = store(&["check"], &data);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("in use by process"), "{said}");
    gateway.stop();

    let (code, found, said) = store(&["check"], &data);
    assert_eq!((code, said.as_str()), (Some(0), ""), "{found}");
    assert!(
        found.ends_with("sound\n") && found.contains("messages 30, "),
        "{found}"
    );
    let (code, found, said) = store(&["stats", "--json"], &data);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    for part in [
        "\"messages\":30,",
        "\"messages_missing\":0,",
        "{\"name\":\"bob\",\"messages\":20,",
        "{\"name\":\"eve \\\"x\\\"\",\"messages\":10,",
    ] {
        assert!(found.contains(part), "{part} is not in {found}");
    }

    fs::remove_file(data.join("inbox-0/keyspaces/1/current")).expect("removed");
    let refused = support::run(
        support::iris()
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "off",
                "--data",
            ])
            .arg(&data),
    );
    let line = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{line}");
    assert!(
        line.contains(&format!("iris store repair {}", data.display())),
        "{line}"
    );
    let (code, found, said) = store(&["check"], &data);
    assert_eq!(code, Some(3), "{said}");
    assert!(found.contains("inbox-0/keyspaces/1/current"), "{found}");
    let (code, found, said) = store(&["repair"], &data);
    assert_eq!(code, Some(0), "{found}{said}");
    assert!(found.contains("kept 30 messages of 3 users"), "{found}");
    assert!(found.contains("missing 0 messages"), "{found}");
    let (code, _, _) = store(&["check"], &data);
    assert_eq!(code, Some(0));

    let (code, _, said) = store(&["stats"], &data.join("nowhere"));
    assert_eq!(code, Some(1));
    assert!(said.contains("holds no Iris data"), "{said}");
    let (code, _, _) = store(&["mend"], &data);
    assert_eq!(code, Some(2));

    gateway.start_again();
    let (mut bob, depth) = Framed::login_depth(gateway.address(), "bob");
    assert_eq!(depth, 20);
    assert_eq!(bob.receives().text().as_bytes(), [0; 50]);
}
