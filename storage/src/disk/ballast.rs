//! A file that holds room on the disk, to be given up when there is none left.
//!
//! Owner: `iris-watch`, and before it the thread that opens the store. A full disk takes not even a burn, and a
//! database that has failed on it cannot be opened; with the ballast gone both fit. It is a file of ours like any
//! other: whoever is short of space and finds it may remove it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use tracing::{info, warn};

use crate::synced_file;

/// Its name in the data folder.
pub(crate) const BALLAST: &str = "BALLAST";
const CHUNK_BYTES: usize = 1 << 20;

/// The ballast of a data folder.
pub(crate) struct Ballast {
    path: PathBuf,
    bytes: u64,
    held: bool,
}

impl Ballast {
    /// Finds out whether the folder has one. None is ever made if `bytes` is 0.
    pub(crate) fn new(folder: &Path, bytes: u64) -> Ballast {
        let path = folder.join(BALLAST);
        let held = path.exists();
        Ballast { path, bytes, held }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Gives the room up.
    pub(crate) fn release(&mut self) {
        match fs::remove_file(&self.path) {
            Ok(()) => warn!(
                bytes = self.bytes,
                "the disk is nearly full: gave up the ballast, so that burns fit"
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Tried again as long as it is needed.
            Err(error) => return warn!(%error, "the ballast cannot be given up"),
        }
        self.held = false;
    }

    /// Takes the room again.
    pub(crate) fn restore(&mut self) {
        match self.make() {
            Ok(()) => {
                self.held = true;
                info!(bytes = self.bytes, "took room on the disk as ballast");
            }
            Err(error) => {
                warn!(%error, "no ballast: the file cannot be written");
                // A part of it would pass for the whole.
                self.release();
            }
        }
    }

    fn make(&self) -> io::Result<()> {
        let mut file = synced_file::create(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.bytes) {
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let chunk = vec![0; CHUNK_BYTES];
                let mut left = self.bytes;
                while left > 0 {
                    let now = left.min(CHUNK_BYTES as u64);
                    file.write_all(&chunk[..now as usize])?;
                    left -= now;
                }
                Ok(())
            }
            allocated => Ok(allocated?),
        }
    }
}
