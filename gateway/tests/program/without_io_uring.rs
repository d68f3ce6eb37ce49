//! A process that may not use io_uring, as in a container with a strict profile, or on a kernel that
//! was built without it: one line says what to do, and the exit code is 1.
//!
//! The kernel is made to refuse by a seccomp filter that a small C program puts on itself before it
//! becomes the gateway, and the sysctl is covered by a file that only the child sees; so nothing but
//! the child is affected.

use crate::support;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;

/// Refuses `io_uring_setup` with the error number of its first argument and becomes the rest.
const FILTER: &str = r#"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (atoi(argv[1]) & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof program / sizeof program[0], program};
    if (argc < 3 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
        return 99;
    execv(argv[2], argv + 2);
    return 98;
}
"#;
/// What [`FILTER`] exits with if the kernel takes no filter.
const NO_FILTER: i32 = 99;

/// The program, or why there is none.
fn filter(folder: &Path) -> Result<PathBuf, String> {
    let (source, program) = (folder.join("filter.c"), folder.join("filter"));
    std::fs::write(&source, FILTER).expect("written");
    let mut compiler = Command::new("cc");
    compiler.arg("-o").args([&program, &source]);
    match compiler.output() {
        Ok(output) if output.status.success() => Ok(program),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("cc: {error}")),
    }
}

/// Runs the gateway behind what `before` starts with; the one line that it says, or `None` if
/// `before` did not get as far.
fn refused(before: &mut Command, data: &Path) -> Option<String> {
    before
        .arg(env!("CARGO_BIN_EXE_iris"))
        .args(["serve", "--cores", "2", "--max-connections", "64"])
        .args(["--admin", "off", "--listen", "127.0.0.1:0", "--data"])
        .arg(data);
    let output = support::run(before);
    let stderr = String::from_utf8(output.stderr).expect("text");
    if output.status.code() == Some(NO_FILTER) {
        eprintln!("not tested: the kernel does not let a process restrict itself here: {stderr}");
        return None;
    }
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let complaints: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("iris: "))
        .collect();
    assert_eq!(complaints.len(), 1, "{stderr}");
    assert_eq!(stderr.lines().last(), Some(complaints[0]));
    Some(complaints[0].to_owned())
}

#[test]
fn io_uring_that_is_refused_is_one_line_that_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let filter = match filter(folder.path()) {
        Ok(filter) => filter,
        Err(why) => {
            eprintln!("not tested: no program that refuses io_uring can be built: {why}");
            return;
        }
    };
    let refuses = |errno: Errno| {
        let mut command = Command::new(&filter);
        command.arg(errno.raw_os_error().to_string());
        command
    };
    if let Some(line) = refused(&mut refuses(Errno::NOSYS), &data) {
        assert!(line.contains("CONFIG_IO_URING"), "{line}");
    }
    let switch = "/proc/sys/kernel/io_uring_disabled";
    let is_on = std::fs::read_to_string(switch).is_ok_and(|value| value.trim() == "0");
    if is_on && let Some(line) = refused(&mut refuses(Errno::PERM), &data) {
        assert!(line.contains("allow io_uring_setup"), "{line}");
    }
    // In a mount namespace of its own, the child sees the switch as thrown.
    let thrown = folder.path().join("io_uring_disabled");
    std::fs::write(&thrown, "2\n").expect("written");
    let mut command = Command::new("unshare");
    let script = r#"mount --bind "$1" "$2" || exit 99; shift 2; exec "$@""#;
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&thrown)
        .arg(switch)
        .arg(&filter)
        .arg(Errno::PERM.raw_os_error().to_string());
    let may_mount = Command::new("unshare").args(["--mount", "true"]).status();
    if !may_mount.is_ok_and(|status| status.success()) {
        eprintln!("not tested: the sysctl, since no mount namespace can be had here");
        return;
    }
    if let Some(line) = refused(&mut command, &data) {
        assert!(line.contains("kernel.io_uring_disabled is 2"), "{line}");
    }
}
