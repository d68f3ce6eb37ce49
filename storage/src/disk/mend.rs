//! What must be done to the files of a database between a failed write and the next opening.
//!
//! Owner: `iris-watch`, while the database is closed. Why it is needed: a kernel that could not write a page back
//! reports it to one sync and then takes the page for clean. The page is still read as it was meant to be, and the
//! next sync succeeds, but the disk never got it. A database that went on from there would add acknowledged batches
//! behind a hole, and after a power cut everything behind the hole would be gone. So whatever the last sync did not
//! vouch for is written once more, which makes the pages dirty, and synced.
//!
//! That concerns the newest journal: a sealed one and every table were synced before anything relied on them. The
//! names of all files are synced as well.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::synced_file;

/// As much as a page cache loses at least: what holds only zeros was never written, and needs no room on disk.
const PAGE_BYTES: usize = 4096;
const CHUNK_BYTES: usize = 256 * PAGE_BYTES;
const JOURNAL_EXTENSION: &str = "jnl";
/// The name in the data folder of what is written to try the disk.
pub(crate) const PROBE: &str = "PROBE";

/// Whether the disk takes a write and a sync: asked before a database that can still be read is closed.
pub(super) fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join(PROBE);
    let written = synced_file::create(&path).and_then(|mut file| {
        file.write_all(&[0; PAGE_BYTES])?;
        file.sync_all()
    });
    // Also what was half written goes; the next probe would write over it.
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// Makes sure that the disk holds what is read from the database's newest journal, and the names of its files.
pub(super) fn mend(database: &Path) -> io::Result<()> {
    if let Some(journal) = newest_journal(database)? {
        write_again(&journal)?;
    }
    synced_file::sync_tree(database)
}

/// Journals are named by numbers that grow.
fn newest_journal(database: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        let number = path
            .extension()
            .filter(|extension| *extension == JOURNAL_EXTENSION)
            .and_then(|_| path.file_stem()?.to_str()?.parse().ok());
        if let Some(number) = number
            && newest.as_ref().is_none_or(|(known, _)| *known < number)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

fn write_again(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    loop {
        let len = file.read_at(&mut chunk, at)?;
        if len == 0 {
            break;
        }
        for (page, offset) in chunk[..len]
            .chunks(PAGE_BYTES)
            .zip((at..).step_by(PAGE_BYTES))
        {
            if page.iter().any(|byte| *byte != 0) {
                file.write_all_at(page, offset)?;
            }
        }
        at += len as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_journal_is_found_by_its_number_and_kept_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(newest_journal(folder.path()).expect("listed"), None);
        let mut content = vec![0; 3 * CHUNK_BYTES + 77];
        content[5] = 1;
        content[CHUNK_BYTES + 4095] = 2;
        content[3 * CHUNK_BYTES + 76] = 3;
        for name in ["9.jnl", "10.jnl", "11.tmp", "x.jnl"] {
            fs::write(folder.path().join(name), &content).expect("written");
        }
        let newest = folder.path().join("10.jnl");
        assert_eq!(
            newest_journal(folder.path()).expect("listed"),
            Some(newest.clone())
        );
        mend(folder.path()).expect("mended");
        assert_eq!(fs::read(newest).expect("there"), content);
    }

    #[test]
    fn a_probe_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        probe(folder.path()).expect("a sound disk");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0);
        assert!(probe(Path::new("/proc/nowhere")).is_err());
    }
}
