//! A disk below a real process that fails when it is told to, and whose power can be cut. Linux only, as Iris is.
//!
//! `shim.c` says how it works. Here it is built, told what to do, and, after the process was killed, the data folder is
//! made anew from what the disk had kept.

#![allow(dead_code, reason = "each test uses its own part of this")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// As in `errno.h` of Linux.
const EIO: u32 = 5;
const ENOSPC: u32 = 28;

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Every write and every sync fails.
    Dead,
    /// Every sync fails, and forgets what it should have written.
    Unsynced,
    /// One sync fails, after so many others.
    OneSync(u32),
    /// Nothing can be written; what is there can be synced.
    Full,
    /// Every sync takes so many milliseconds.
    Slow(u32),
    /// Every sync takes so many milliseconds, and then it fails and forgets.
    SlowUnsynced(u32),
}

/// The disk of one process.
pub struct Disk {
    folder: TempDir,
    control: File,
    keeps_shadow: bool,
}

impl Disk {
    /// A disk that works, until told otherwise. With `power` it can be cut. None, with a line that says so, if the
    /// machine has no C compiler.
    pub fn new(power: bool) -> Option<Disk> {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("shim.c");
        fs::write(&source, include_str!("shim.c")).expect("written");
        let built = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o",
            ])
            .arg(folder.path().join("shim.so"))
            .arg(source)
            .status();
        match built {
            Ok(status) => assert!(status.success(), "the shim does not build"),
            Err(error) => {
                eprintln!("SKIPPED: needs a C compiler: cc: {error}");
                return None;
            }
        }
        let control = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(folder.path().join("control"))
            .expect("a file");
        let disk = Disk {
            folder,
            control,
            keeps_shadow: power,
        };
        disk.becomes(Fault::None);
        disk.renew_shadow();
        Some(disk)
    }

    /// From now on it does this.
    pub fn becomes(&self, fault: Fault) {
        turn(&self.control, fault);
    }

    /// After the process was killed: what was not synced is gone.
    pub fn cut(&self, data: &Path) {
        let shadow = self.shadow();
        // Killed before the picture was complete: nothing had been done yet.
        if shadow.join("ready").exists() {
            fs::remove_dir_all(data).expect("removed");
            restore(&shadow, 0, data);
        }
        self.renew_shadow();
    }

    /// Variables that put it below a process with this data folder, which must be there.
    pub fn environment(&self, data: &Path) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.into_os_string().into_string().expect("UTF-8");
        let mut variables = vec![
            (
                "LD_PRELOAD".to_owned(),
                text(self.folder.path().join("shim.so")),
            ),
            (
                "DISK_CONTROL".to_owned(),
                text(self.folder.path().join("control")),
            ),
            ("DISK_FOLDER".to_owned(), text(data.to_owned())),
        ];
        if self.keeps_shadow {
            variables.push(("DISK_SHADOW".to_owned(), text(self.shadow())));
        }
        variables
    }

    fn shadow(&self) -> PathBuf {
        self.folder.path().join("shadow")
    }

    /// Each start takes a new picture.
    fn renew_shadow(&self) {
        let shadow = self.shadow();
        if shadow.exists() {
            fs::remove_dir_all(&shadow).expect("removed");
        }
        fs::create_dir(shadow).expect("made");
    }
}

/// The disk below this very process becomes so.
pub fn becomes_here(fault: Fault) {
    let control = std::env::var_os("DISK_CONTROL").expect("below a process with a disk");
    let control = File::options().write(true).open(control);
    turn(&control.expect("a file"), fault);
}

fn turn(control: &File, fault: Fault) {
    let [write_errno, sync_errno, sync_ms, countdown] = match fault {
        Fault::None => [0; 4],
        Fault::Dead => [EIO, EIO, 0, 0],
        Fault::Unsynced => [0, EIO, 0, 0],
        Fault::OneSync(after) => [0, EIO, 0, after],
        Fault::Full => [ENOSPC, 0, 0, 0],
        Fault::Slow(ms) => [0, 0, ms, 0],
        Fault::SlowUnsynced(ms) => [0, EIO, ms, 0],
    };
    let words = [write_errno, sync_errno, 0, sync_ms, countdown];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    control.write_all_at(&bytes, 0).expect("written");
}

/// Makes folder `number` of the picture. What was never synced is there by its name only.
fn restore(shadow: &Path, number: u64, to: &Path) {
    fs::create_dir(to).expect("made");
    let list = fs::read_to_string(shadow.join(format!("folders/{number}"))).unwrap_or_default();
    for line in list.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(kind), Some(number), Some(name)) = (words.next(), words.next(), words.next())
        else {
            panic!("not an entry: {line:?}");
        };
        let number = number.parse().expect("a number");
        let to = to.join(name);
        match kind {
            "d" => restore(shadow, number, &to),
            _ => {
                let kept = shadow.join(format!("objects/{number}"));
                if kept.exists() {
                    fs::rename(kept, to).expect("moved");
                } else {
                    File::create(to).expect("made");
                }
            }
        }
    }
}
