//! Any place of a file, through a buffer of bounded size.
//!
//! Used while the store opens and by the offline commands. Invariant: it only reads, and it holds no more than what
//! was asked for last, or [`AHEAD`] if that is more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::io::Errno;

/// Read at once: enough that a walk through a file makes few calls.
const AHEAD: usize = 256 * 1024;
const PAGE: usize = 4096;

/// A file that is looked at piece by piece.
pub(crate) struct Window {
    file: File,
    len: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl Window {
    pub(crate) fn open(path: &Path) -> io::Result<Window> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Window {
            file,
            len,
            start: 0,
            buffer: Vec::new(),
        })
    }

    /// The file's length when it was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes from a place on; fewer than asked for only at the end of the file.
    pub(crate) fn bytes(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let len = usize::try_from(self.len.saturating_sub(at)).map_or(len, |left| left.min(len));
        let held = self.start + self.buffer.len() as u64;
        if at < self.start || at + len as u64 > held {
            let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
            self.buffer.clear();
            self.buffer.resize(len.max(AHEAD).min(left), 0);
            self.buffer.shrink_to(AHEAD.max(len));
            self.start = at;
            if let Err(error) = read(&self.file, &mut self.buffer, at) {
                self.buffer.clear();
                return Err(error);
            }
        }
        let from = (at - self.start) as usize;
        Ok(self.buffer.get(from..from + len).unwrap_or_default())
    }

    /// All that is at hand from a place on, at least one byte; empty at the end of the file.
    pub(crate) fn stretch(&mut self, at: u64) -> io::Result<&[u8]> {
        self.bytes(at, 1)?;
        let from = at.saturating_sub(self.start) as usize;
        Ok(self.buffer.get(from..).unwrap_or_default())
    }

    /// The next byte that is not zero.
    pub(crate) fn nonzero(&mut self, mut at: u64) -> io::Result<Option<u64>> {
        while at < self.len {
            let stretch = self.stretch(at)?;
            if let Some(offset) = stretch.iter().position(|byte| *byte != 0) {
                return Ok(Some(at + offset as u64));
            }
            at += stretch.len().max(1) as u64;
        }
        Ok(None)
    }
}

/// Reads it whole. What the disk cannot read is zeros, a page at a time: no checksum will match.
fn read(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    let is_lost = |error: &io::Error| error.raw_os_error() == Some(Errno::IO.raw_os_error());
    match file.read_exact_at(buffer, at) {
        Err(error) if is_lost(&error) => {}
        read => return read,
    }
    for (page, at) in buffer.chunks_mut(PAGE).zip((at..).step_by(PAGE)) {
        match file.read_exact_at(page, at) {
            Err(error) if is_lost(&error) => page.fill(0),
            read => read?,
        }
    }
    Ok(())
}
