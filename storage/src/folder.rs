//! The data folder: ours alone, of a format we know, with its seed.
//!
//! Used while the store opens and closes. What lies in it:
//! - `LOCK`: locked (flock) by the process that has the folder open; holds its process id, for people;
//! - `FORMAT`: version of everything in here, and the random seed of the user hashes. Written once;
//! - `SEQUENCE`: see the sequence counter;
//! - `inbox/`: the database.
//!
//! Invariants: one process at a time; nothing is written into a folder that holds something else.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::StoreError;
use crate::synced_file;

/// Version of the layout of the folder and of everything in it.
const VERSION: u32 = 1;
const TITLE: &str = "iris inbox store";
const FILE_LEN_MAX: u64 = 4096;

/// An open data folder. Dropping it gives up the lock.
pub(crate) struct Folder {
    path: PathBuf,
    seed: u64,
    _lock: File,
}

impl Folder {
    /// Creates the folder if it is missing, locks it, and reads or writes its FORMAT.
    pub(crate) fn open(path: &Path) -> Result<Folder, StoreError> {
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => {
                return Err(StoreError::NotAFolder {
                    path: path.to_path_buf(),
                });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path).map_err(failed(path, "creating the folder"))?;
                synced_file::sync_folder_of(path)
                    .map_err(failed(path, "syncing the folder above"))?;
            }
            Err(error) => return Err(failed(path, "looking at the folder")(error)),
        }
        let format = path.join("FORMAT");
        if !format.exists() {
            refuse_foreign(path)?;
        }
        let lock = lock(path)?;
        // Looked at again under the lock: another process may have written it in between.
        let seed = if format.exists() {
            read_format(&format)?
        } else {
            write_format(&format)?
        };
        Ok(Folder {
            path: path.to_path_buf(),
            seed,
            _lock: lock,
        })
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn sequence_path(&self) -> PathBuf {
        self.path.join("SEQUENCE")
    }

    pub(crate) fn database_path(&self) -> PathBuf {
        self.path.join("inbox")
    }
}

/// A database that is being created, before it gets its name.
pub(crate) const UNFINISHED_SUFFIX: &str = "new";

fn refuse_foreign(path: &Path) -> Result<(), StoreError> {
    let entries = fs::read_dir(path).map_err(failed(path, "listing the folder"))?;
    for entry in entries {
        let name = entry
            .map_err(failed(path, "listing the folder"))?
            .file_name();
        let name = name.to_string_lossy();
        // What a first open leaves that was cut short, and what a fresh file system brings along.
        if !matches!(&*name, "LOCK" | "FORMAT.new" | "lost+found") {
            return Err(StoreError::Foreign {
                path: path.to_path_buf(),
                found: name.into_owned(),
            });
        }
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("LOCK");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed(&path, "opening the lock file"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(StoreError::Locked {
                path: folder.to_path_buf(),
                holder: holder(&mut file),
            });
        }
        Err(error) => return Err(failed(&path, "locking")(error.into())),
    }
    // For people only; the lock itself is the kernel's and ends with the process.
    let told = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    told.map_err(failed(&path, "writing the lock file"))?;
    Ok(file)
}

fn holder(file: &mut File) -> String {
    let mut content = String::new();
    let read = file.take(FILE_LEN_MAX).read_to_string(&mut content);
    match (read, content.trim().parse::<u32>()) {
        (Ok(_), Ok(id)) => format!("process {id}"),
        _ => "another process".to_string(),
    }
}

fn write_format(path: &Path) -> Result<u64, StoreError> {
    let mut seed = [0u8; 8];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut seed))
        .map_err(failed(Path::new("/dev/urandom"), "reading"))?;
    let seed = u64::from_le_bytes(seed);
    synced_file::replace(path, format_text(seed).as_bytes()).map_err(failed(path, "writing"))?;
    Ok(seed)
}

fn format_text(seed: u64) -> String {
    let checked = format!("{TITLE}\nversion {VERSION}\nseed {seed:016x}\n");
    let crc = crc32fast::hash(checked.as_bytes());
    format!("{checked}crc {crc:08x}\n")
}

fn read_format(path: &Path) -> Result<u64, StoreError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(FILE_LEN_MAX).read_to_string(&mut text))
        .map_err(failed(path, "reading"))?;
    parse_format(&text).map_err(|problem| match problem {
        FormatProblem::Newer(found) => StoreError::Newer {
            path: path.to_path_buf(),
            found,
            known: VERSION,
        },
        FormatProblem::Damaged(what) => StoreError::Damaged {
            path: path.to_path_buf(),
            what: what.to_string(),
        },
    })
}

#[derive(Debug, PartialEq, Eq)]
enum FormatProblem {
    Newer(u32),
    Damaged(&'static str),
}

fn parse_format(text: &str) -> Result<u64, FormatProblem> {
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(FormatProblem::Damaged("the first line is not ours"));
    }
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("version ")?.parse::<u32>().ok());
    match version {
        Some(VERSION) => {}
        // A newer version may have other lines; its number is all this program may read of it.
        Some(found) if found > VERSION => return Err(FormatProblem::Newer(found)),
        _ => return Err(FormatProblem::Damaged("no version")),
    }
    let seed = lines
        .next()
        .and_then(|line| u64::from_str_radix(line.strip_prefix("seed ")?, 16).ok())
        .ok_or(FormatProblem::Damaged("no seed"))?;
    // Another seed would lead every user to an empty inbox: it is believed only with its CRC.
    if text != format_text(seed) {
        return Err(FormatProblem::Damaged("the CRC does not match"));
    }
    Ok(seed)
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Unwritable {
        path,
        action,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_reads_as_it_was_written() {
        assert_eq!(parse_format(&format_text(0xfeed)), Ok(0xfeed));
    }

    #[test]
    fn a_seed_with_a_flipped_digit_is_not_believed() {
        let text = format_text(0xfeed).replace("feed", "feee");
        assert_eq!(
            parse_format(&text),
            Err(FormatProblem::Damaged("the CRC does not match"))
        );
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let newer = format!("{TITLE}\nversion {}\nanything else\n", VERSION + 1);
        assert_eq!(parse_format(&newer), Err(FormatProblem::Newer(VERSION + 1)));
        assert_eq!(
            parse_format(TITLE),
            Err(FormatProblem::Damaged("no version"))
        );
        assert_eq!(
            parse_format(""),
            Err(FormatProblem::Damaged("the first line is not ours"))
        );
    }
}
