//! The program's command line: configuration, its sources and mistakes, exit codes.

use crate::support;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A run that ends by itself.
fn iris(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = support::iris();
    command.args(arguments).envs(environment.iter().copied());
    support::run(&mut command)
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The one line on stderr of a run that failed with this code.
fn failure(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).expect("text");
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let line = stderr.lines().last().unwrap_or_default().to_owned();
    assert!(line.starts_with("iris: "), "{stderr}");
    line
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.into_os_string()
            .into_string()
            .expect("a path in UTF-8")
    }
}

/// The value and the source that `iris check` shows for a key.
fn shown(output: &Output, key: &str) -> (String, String) {
    let text = stdout(output);
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{key} = ")))
        .expect("the key is shown");
    let (assignment, source) = line.split_once(" # ").expect("the source is shown");
    let value = assignment.split_once(" = ").expect("a value").1;
    (value.trim().to_owned(), source.to_owned())
}

#[test]
fn an_unknown_key_names_itself_the_file_and_the_line() {
    let folder = Folder::new();
    let file = folder.file(
        "iris.toml",
        "# limits\nmax_connections = 10\nidle_timout = \"5s\"\n",
    );
    for command in ["check", "serve"] {
        let line = failure(&iris(&[command, "--config", &file], &[]), 2);
        assert!(
            line.contains(&format!("{file}:3:")) && line.contains("`idle_timout`"),
            "{line}"
        );
    }
}

#[test]
fn flag_wins_over_environment_over_file_over_default() {
    let folder = Folder::new();
    let file = folder.file("iris.toml", "idle_timeout = \"11s\"\n");
    let with_file = ["check", "--config", &file];
    let variable = [("IRIS_IDLE_TIMEOUT", "12s")];
    let key = "idle_timeout";
    let of = |value: &str, source: String| (format!("\"{value}\""), source);
    assert_eq!(
        shown(&iris(&["check"], &[]), key),
        of("5min", "default".into())
    );
    assert_eq!(
        shown(&iris(&with_file, &[]), key),
        of("11s", format!("file {file}:1"))
    );
    assert_eq!(
        shown(&iris(&with_file, &variable), key),
        of("12s", "env IRIS_IDLE_TIMEOUT".into())
    );
    let all = [&with_file[..], &["--idle-timeout", "13s"]].concat();
    assert_eq!(
        shown(&iris(&all, &variable), key),
        of("13s", "flag --idle-timeout".into())
    );
    let by_variable = iris(&["check"], &[("IRIS_CONFIG", &file)]);
    assert_eq!(
        shown(&by_variable, key),
        of("11s", format!("file {file}:1"))
    );
}

#[test]
fn what_check_shows_can_be_fed_back() {
    let folder = Folder::new();
    let secret = folder.file("secret", "correct horse battery staple\n");
    let arguments = [
        "check",
        "--listen",
        "127.0.0.1:1",
        "--listen",
        "[::1]:2",
        "--admin",
        "off",
        "--cores",
        "0,",
        "--max-connections",
        "77",
        "--secret-file",
        &secret,
        "--log",
        "json",
        "--ttl-max",
        "90d",
    ];
    let first = stdout(&iris(&arguments, &[]));
    assert!(!first.contains("horse"), "the secret is shown");
    let file = folder.file("fed-back.toml", &first);
    let second = stdout(&iris(&["check", "--config", &file], &[]));
    let values = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.contains(" = "));
        lines
            .map(|line| {
                line.split(" # ")
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            })
            .collect()
    };
    assert_eq!(values(&first), values(&second));
    assert!(
        values(&first).contains(&"listen = [\"127.0.0.1:1\", \"[::1]:2\"]".to_owned()),
        "{first}"
    );
    assert!(
        !second.contains("# default") && !second.contains("# flag"),
        "{second}"
    );
}

#[test]
fn a_bad_value_says_what_is_allowed_and_why() {
    for (flag, value, hints) in [
        (
            "--payload-bytes-max",
            "2MiB",
            &["1KiB to 1MiB", "because"][..],
        ),
        ("--payload-bytes-max", "64KB", &["not a size", "64KiB"]),
        ("--idle-timeout", "5", &["no unit", "5s"]),
        ("--max-connections", "0", &["1 to 16000000", "because"]),
        ("--max-connections", "many", &["whole number"]),
        ("--cores", "0", &["1 to 1024", "because"]),
        ("--cores", "0,4095", &["cpu 4095"]),
        ("--listen", "localhost", &["127.0.0.1:8085"]),
        ("--log", "xml", &["human, json"]),
        ("--protocols", "telnet", &["classic, framed"]),
        ("--protocols", ",", &["at least one"]),
        ("--sender-inbox-percent", "0", &["1 to 100", "because"]),
        ("--sender-store-percent", "101", &["1 to 100", "because"]),
        ("--log-level", "inof", &["error, warn, info"]),
        (
            "--secret-file",
            "/nonexistent/secret",
            &["cannot read /nonexistent/secret"],
        ),
        ("--outbox-bytes-max", "4KiB", &["payload_bytes_max"]),
    ] {
        let line = failure(&iris(&["check", flag, value], &[]), 2);
        assert!(line.contains(flag), "{line}");
        for hint in hints {
            assert!(line.contains(hint), "{flag} {value}: {line}");
        }
    }
}

#[test]
fn mistakes_on_the_command_line_end_with_2() {
    for arguments in [
        &["--no-such-flag"][..],
        &["dance"],
        &["serve", "--listen"],
        &["chat"],
        &["chat", "a\u{7}b"],
    ] {
        let output = iris(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn help_is_enough_for_an_operator() {
    for command in [&["--help"][..], &["serve", "--help"], &["check", "--help"]] {
        let help = stdout(&iris(command, &[]));
        for part in [
            "Exit codes:",
            "Signals:",
            "--listen",
            "[default: 127.0.0.1:8085]",
            "IRIS_",
            "iris check",
        ] {
            assert!(help.contains(part), "{command:?} lacks {part:?}");
        }
    }
    assert!(stdout(&iris(&["chat", "--help"], &[])).contains("/follow bob"));
}

#[test]
fn warnings_of_check_go_to_stderr() {
    let output = iris(&["check"], &[("IRIS_IDLE_TIMOUT", "5s")]);
    assert!(!stdout(&output).contains("IDLE_TIMOUT"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("IRIS_IDLE_TIMOUT"));
}

/// What `iris check` says on stderr.
fn warned(arguments: &[&str]) -> String {
    let output = iris(&[&["check"], arguments].concat(), &[]);
    stdout(&output);
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn a_door_that_stands_open_is_one_line() {
    let folder = Folder::new();
    let secret = folder.file("secret", "correct horse battery staple\n");
    let mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&secret, permissions).expect("its own");
    };
    let public = "--listen=127.0.0.1:1,0.0.0.0:1,[::]:1";
    let open = warned(&[public]);
    assert_eq!(open.lines().count(), 1, "{open}");
    assert!(
        open.contains("0.0.0.0:1") && open.contains("secret_file"),
        "{open}"
    );
    assert_eq!(warned(&["--listen=127.0.0.1:1,[::1]:1"]), "");
    mode(0o600);
    assert_eq!(warned(&[public, "--secret-file", &secret]), "");
    for bits in [0o640, 0o604, 0o620] {
        mode(bits);
        let readable = warned(&[public, "--secret-file", &secret]);
        assert_eq!(readable.lines().count(), 1, "{readable}");
        for hint in [&secret[..], "chmod 600", "LoadCredential"] {
            assert!(readable.contains(hint), "{readable}");
        }
    }
    // What starts says the same.
    let mut gateway = support::Gateway::start_small(&["--listen=0.0.0.0:0"], &[]);
    gateway.logged("may log in as anyone");
}

#[test]
fn an_address_in_use_ends_with_1_and_what_to_do() {
    let folder = Folder::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let data = folder.0.path().join("data");
    let data = data.to_str().expect("a path in UTF-8");
    let common = [
        "serve",
        "--cores",
        "1",
        "--max-connections",
        "64",
        "--data",
        data,
    ];
    let run = |more: &[&str]| failure(&iris(&[&common[..], more].concat(), &[]), 1);
    let line = run(&["--admin", "off", "--listen", &address]);
    assert!(
        line.contains(&address) && line.contains("--listen"),
        "{line}"
    );
    let line = run(&["--admin", &address, "--listen", "127.0.0.1:0"]);
    assert!(
        line.contains(&address) && line.contains("--admin"),
        "{line}"
    );
}

#[test]
fn too_few_descriptors_end_with_1_and_what_to_raise() {
    let folder = Folder::new();
    let program = support::iris();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -n 90; exec \"$0\" \"$@\""])
        .arg(program.get_program())
        .args(["serve", "--cores", "12", "--admin", "off"])
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(folder.0.path().join("data"));
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let line = failure(&shell.output().expect("sh runs"), 1);
    assert!(
        line.contains("limit is 90") && line.contains("ulimit -n") && line.contains("--cores"),
        "{line}"
    );
}

#[test]
fn chat_without_a_gateway_ends_with_1_and_what_to_do() {
    // Nobody listens at a port that was never opened; one just closed may still be heard at by
    // a process that another test is starting.
    let address = "127.0.0.1:1";
    let line = failure(&iris(&["chat", "alice", "--server", address], &[]), 1);
    assert!(
        line.contains(address) && line.contains("is `iris` running"),
        "{line}"
    );
}
