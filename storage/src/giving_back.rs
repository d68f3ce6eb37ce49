//! What the database removes is given back to the disk piece by piece.
//!
//! Owner: the thread of the burial. Where a file system tells the disk what has become free (the mount option `discard`),
//! a removed file is one request for all of it, and what the disk is asked for meanwhile waits: requests of 8 to 32 MB
//! took 2 to 9 ms each, and the journal's syncs stood behind them. So a file is held open beyond its removal, and cut from
//! its end.
//!
//! Invariant: only a file without a name is cut, so it is nobody's. What is held when the thread ends is freed at once.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::debug;

/// Some tenths of a millisecond of a disk that is told.
const PIECE_BYTES: u64 = 1024 * 1024;
/// How much longer the disk is left alone than it has taken for a piece.
const PAUSE_FACTOR: u32 = 2;
/// From here on there is no pause: room that is as good as free, and does not look so.
const BACKLOG_MAX: u64 = 256 * 1024 * 1024;

/// A file that somebody else is about to remove.
struct Held {
    file: File,
    path: PathBuf,
}

impl Held {
    /// Whether it is still there; else how long it is, if it has no other name either.
    fn look(&self) -> io::Result<Looked> {
        let metadata = self.file.metadata()?;
        if metadata.nlink() == 0 {
            return Ok(Looked::Removed(metadata.len()));
        }
        let there = self.path.symlink_metadata();
        let is_there = there.is_ok_and(|there| there.ino() == metadata.ino());
        Ok(if is_there {
            Looked::There
        } else {
            Looked::LivesOn
        })
    }
}

enum Looked {
    There,
    /// It has so many bytes and no name.
    Removed(u64),
    /// Under another name.
    LivesOn,
}

/// What is held.
#[derive(Default)]
pub(crate) struct GivingBack {
    held: Vec<Held>,
    /// Without a name, with what is left of them, never nothing.
    removed: VecDeque<(File, u64)>,
    backlog: u64,
}

impl GivingBack {
    /// Holds a file until it is removed.
    pub(crate) fn hold(&mut self, path: &Path) {
        match File::options().write(true).open(path) {
            Ok(file) => self.held.push(Held {
                file,
                path: path.to_path_buf(),
            }),
            Err(error) => {
                debug!(%error, path = %path.display(), "a file will be given back at once")
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.removed.is_empty()
    }

    /// Looks which of them have been removed.
    pub(crate) fn look(&mut self) {
        let mut still_there = Vec::with_capacity(self.held.len());
        for held in self.held.drain(..) {
            match held.look() {
                Ok(Looked::There) => still_there.push(held),
                Ok(Looked::Removed(len)) if len > 0 => {
                    self.removed.push_back((held.file, len));
                    self.backlog += len;
                }
                Ok(Looked::Removed(_) | Looked::LivesOn) | Err(_) => {}
            }
        }
        self.held = still_there;
    }

    /// Gives back a piece, and says for how long to leave the disk alone then. `None`: there is nothing.
    pub(crate) fn step(&mut self) -> Option<Duration> {
        let began = Instant::now();
        let (file, len) = self.removed.front_mut()?;
        let left = (*len - 1) / PIECE_BYTES * PIECE_BYTES;
        // What cannot be cut is freed when it is closed.
        let left = file.set_len(left).map_or(0, |()| left);
        self.backlog -= *len - left;
        *len = left;
        if left == 0 {
            self.removed.pop_front();
        }
        Some(if self.backlog > BACKLOG_MAX {
            Duration::ZERO
        } else {
            began.elapsed() * PAUSE_FACTOR
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_cut_only_once_it_has_no_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let content = vec![7; PIECE_BYTES as usize * 2 + 1];
        let mut giving_back = GivingBack::default();
        for name in ["removed", "kept", "renamed", "twice"] {
            fs::write(path(name), &content).expect("written");
            giving_back.hold(&path(name));
        }
        giving_back.hold(&path("missing"));
        let len = |file: &File| file.metadata().expect("metadata").len();
        let removed = File::open(path("removed")).expect("opened");
        giving_back.look();
        assert_eq!(giving_back.step(), None);
        fs::remove_file(path("removed")).expect("removed");
        fs::rename(path("renamed"), path("other")).expect("renamed");
        fs::hard_link(path("twice"), path("second")).expect("linked");
        fs::remove_file(path("twice")).expect("removed");
        giving_back.look();
        assert_eq!((giving_back.held.len(), giving_back.removed.len()), (1, 1));
        assert_eq!(giving_back.backlog, content.len() as u64);
        for left in [2, 1, 0] {
            assert!(giving_back.step().is_some());
            assert_eq!(len(&removed), left * PIECE_BYTES);
        }
        assert_eq!((giving_back.step(), giving_back.backlog), (None, 0));
        for name in ["kept", "other", "second"] {
            assert_eq!(fs::read(path(name)).expect("read"), content);
        }
        assert!(!giving_back.is_empty());
        fs::remove_file(path("kept")).expect("removed");
        giving_back.look();
        while giving_back.step().is_some() {}
        assert!(giving_back.is_empty());
    }

    #[test]
    fn beyond_the_backlog_there_is_no_pause() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("long");
        let file = File::create(&path).expect("made");
        file.set_len(BACKLOG_MAX + 2 * PIECE_BYTES).expect("long");
        let mut giving_back = GivingBack::default();
        giving_back.hold(&path);
        fs::remove_file(&path).expect("removed");
        giving_back.look();
        assert_eq!(giving_back.step(), Some(Duration::ZERO));
        assert!(giving_back.step().is_some_and(|pause| !pause.is_zero()));
    }
}
