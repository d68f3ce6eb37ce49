//! Files of our own: who may read them, and small ones that are replaced as a whole and are on disk when the call returns.
//!
//! Used while the store opens, and by the committer once in a million messages. Invariants: at every instant the
//! name of a replaced file leads to the whole old content or the whole new one; nobody but the owner reads what is made
//! here; no symbolic link is followed, so that whoever gets one into the data folder has nothing else overwritten.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// The kernel's word for it: opening fails where the name is that of a symbolic link.
const NO_LINK: i32 = OFlags::NOFOLLOW.bits() as i32;

/// Opens a file of ours to be read.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(NO_LINK).open(path)
}

/// How a file of ours is opened to be written in place; made if it is missing.
pub(crate) fn to_write() -> OpenOptions {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    options.mode(0o600).custom_flags(NO_LINK);
    options
}

/// Makes a file of ours, or empties the one that is there.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    to_write().truncate(true).open(path)
}

/// Makes a folder of ours, and those above it that are missing.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The content of a file of ours.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    io::Read::read_to_end(&mut open(path)?, &mut content)?;
    Ok(content)
}

/// Replaces the file's content: written beside it, synced, renamed over it, and the folder synced.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        // What an earlier try left, or somebody put there.
        _ => {}
    }
    let mut file = to_write().create_new(true).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_folder_of(path)
}

/// Makes everything in a folder durable, names and content, down to the last folder in it.
pub(crate) fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

/// Makes a change of names in the folder that holds `path` durable.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_is_followed_whatever_the_file_is_opened_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        fs::write(&theirs, "theirs").expect("written");
        symlink(&theirs, &ours).expect("linked");
        let looped = Some(rustix::io::Errno::LOOP.raw_os_error());
        for opened in [open(&ours), to_write().open(&ours), create(&ours)] {
            assert_eq!(opened.expect_err("a link").raw_os_error(), looped);
        }
        // A link in the place of what is replaced goes; what it led to stays.
        replace(&ours, b"ours").expect("replaced");
        assert_eq!(read(&ours).expect("a file"), b"ours");
        assert_eq!(read(&theirs).expect("there"), b"theirs");
    }
}
