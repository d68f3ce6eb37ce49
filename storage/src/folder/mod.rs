//! The data folder: ours alone, of a format we know, with its key.
//!
//! Used while the store opens and closes. What lies in it:
//! - `LOCK`: locked (flock) by the process that has the folder open; holds its process id, for people;
//! - `FORMAT`: version of everything in here, the random key of the users' names, and how many databases there
//!   are. Written once; see `format`;
//! - `SEQUENCE`: see the sequence counter;
//! - `inbox-0/`, `inbox-1/`, …: the databases;
//! - `SYNCED-0`, `SYNCED-1`, …: what each of them must show at least;
//! - `damaged/`: copies of files that were found damaged, for people to look at or to delete.
//!
//! Invariants: one process at a time; nothing is written into a folder that holds something else; whoever can read the
//! folder knows the key, so nobody but the owner can, and the files here are no links to others.

mod format;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::disk::{BALLAST, PROBE};
use crate::error::StoreError;
use crate::name_key::NameKey;
use crate::options::DATABASES_MAX;
use crate::recovery::synced::Synced;
use crate::synced_file;
use crate::user::Place;
use format::Format;

/// Far more than any of our small files has.
const FILE_LEN_MAX: u64 = 4096;

/// An open data folder. Dropping it gives up the lock.
pub(crate) struct Folder {
    path: PathBuf,
    format: Format,
    _lock: File,
}

impl Folder {
    /// Creates the folder if it is missing, locks it, and reads or writes its FORMAT. A new folder gets so many
    /// `databases`; one that exists keeps what it has.
    pub(crate) fn open(path: &Path, databases: usize) -> Result<Folder, StoreError> {
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => {
                return Err(StoreError::NotAFolder {
                    path: path.to_path_buf(),
                });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                synced_file::create_folder(path).map_err(failed(path, "creating the folder"))?;
                synced_file::sync_folder_of(path)
                    .map_err(failed(path, "syncing the folder above"))?;
            }
            Err(error) => return Err(failed(path, "looking at the folder")(error)),
        }
        warn_if_open_to_others(path);
        refuse_links(path)?;
        let format_path = path.join("FORMAT");
        if !format_path.exists() {
            refuse_foreign(path)?;
        }
        let lock = lock(path)?;
        // Looked at again under the lock: another process may have written it in between.
        let format = if format_path.exists() {
            format::read(&format_path)?
        } else {
            format::create(&format_path, databases)?
        };
        Ok(Folder {
            path: path.to_path_buf(),
            format,
            _lock: lock,
        })
    }

    /// Locks a folder that holds a store already.
    pub(crate) fn open_existing(path: &Path) -> Result<Folder, StoreError> {
        if !path.join("FORMAT").exists() && !database_path(path, 0).exists() {
            return Err(StoreError::NoStore {
                path: path.to_path_buf(),
            });
        }
        if !path.join("FORMAT").exists() {
            return Err(StoreError::Damaged {
                path: path.join("FORMAT"),
                what: "missing".to_string(),
            });
        }
        Folder::open(path, 1)
    }

    /// Locks a folder that is to be repaired. A FORMAT that is damaged or gone is written anew, if the mark of a
    /// database tells what stood in it.
    pub(crate) fn open_to_repair(path: &Path) -> Result<Folder, StoreError> {
        let damaged = match Folder::open_existing(path) {
            Err(error @ StoreError::Damaged { .. }) => error,
            opened => return opened,
        };
        let marked = (0..DATABASES_MAX).find_map(|number| Synced::read(&synced_path(path, number)));
        let Some(marked) = marked else {
            return Err(damaged);
        };
        let lock = lock(path)?;
        let format = Format {
            name_key: marked.name_key,
            databases: usize::try_from(marked.databases)
                .unwrap_or(DATABASES_MAX)
                .clamp(1, DATABASES_MAX),
        };
        format::write(&path.join("FORMAT"), &format)?;
        Ok(Folder {
            path: path.to_path_buf(),
            format,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn name_key(&self) -> NameKey {
        self.format.name_key
    }

    /// How many databases there are.
    pub(crate) fn databases(&self) -> usize {
        self.format.databases
    }

    /// Which users' inboxes are in a database.
    pub(crate) fn place(&self, number: usize) -> Place {
        Place {
            number,
            databases: self.format.databases,
        }
    }

    pub(crate) fn sequence_path(&self) -> PathBuf {
        self.path.join("SEQUENCE")
    }

    pub(crate) fn database_path(&self, number: usize) -> PathBuf {
        database_path(&self.path, number)
    }

    pub(crate) fn synced_path(&self, number: usize) -> PathBuf {
        synced_path(&self.path, number)
    }
}

/// A database that is being created, before it gets its name.
pub(crate) const UNFINISHED_SUFFIX: &str = "new";

fn database_path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("inbox-{number}"))
}

fn synced_path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("SYNCED-{number}"))
}

/// Whoever can enter may read the key and the messages.
fn warn_if_open_to_others(path: &Path) {
    let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        let path = path.display();
        tracing::warn!("others can enter the data folder; `chmod 700 {path}` keeps them out");
    }
}

/// Our files are opened without following links; this says it of all of them at once, and says what to do.
fn refuse_links(path: &Path) -> Result<(), StoreError> {
    let single = ["LOCK", "FORMAT", "SEQUENCE", BALLAST, PROBE].map(|name| path.join(name));
    let marks = (0..DATABASES_MAX).map(|number| synced_path(path, number));
    match single
        .into_iter()
        .chain(marks)
        .find(|file| file.is_symlink())
    {
        Some(path) => Err(StoreError::Link { path }),
        None => Ok(()),
    }
}

fn refuse_foreign(path: &Path) -> Result<(), StoreError> {
    let entries = fs::read_dir(path).map_err(failed(path, "listing the folder"))?;
    for entry in entries {
        let name = entry
            .map_err(failed(path, "listing the folder"))?
            .file_name();
        let name = name.to_string_lossy();
        let is_database = name.starts_with("inbox-") && !name.ends_with(UNFINISHED_SUFFIX);
        if name == "SEQUENCE" || name.starts_with("SYNCED-") || is_database {
            return Err(StoreError::Damaged {
                path: path.join("FORMAT"),
                what: format!("missing, though {name} is there"),
            });
        }
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
    let mut file = synced_file::to_write()
        .read(true)
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

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Unwritable {
        path,
        action,
        source,
    }
}
