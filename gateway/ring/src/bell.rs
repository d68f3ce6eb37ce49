//! An eventfd that a glommio task can await: how an executor sleeps until a ring has completions.
//!
//! Owner: the executor's thread. It is here because taking a descriptor over is `unsafe` in
//! glommio, and this crate is where such things are kept.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use glommio::io::BufferedFile;

/// The bell that [`Ring::notify`](crate::Ring::notify) rings.
#[derive(Debug)]
pub struct Bell(BufferedFile);

impl Bell {
    /// Takes an eventfd over. To be called, and dropped, on an executor's thread.
    #[must_use]
    pub fn new(eventfd: OwnedFd) -> Bell {
        // SAFETY: the descriptor is open, and `into_raw_fd` gives up its ownership, so the file is
        // the only owner and closes it once.
        Bell(unsafe { BufferedFile::from_raw_fd(eventfd.into_raw_fd()) })
    }

    /// Waits until it rings, and stills it. Rings at once if it did so since the last time.
    ///
    /// # Errors
    /// If the executor's own ring fails.
    pub async fn wait(&self) -> io::Result<()> {
        self.0
            .read_at(0, 8)
            .await
            .map(drop)
            .map_err(io::Error::from)
    }
}
