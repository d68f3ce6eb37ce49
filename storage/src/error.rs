//! What can go wrong with a store as a whole. One line each, which says what to do.
//!
//! What goes wrong with a single request is a [`FailureKind`](crate::FailureKind).

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a store could not be opened or closed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has the folder open.
    #[error(
        "{path}: the data folder is in use by {holder}; stop that process or choose another folder"
    )]
    Locked {
        /// The data folder.
        path: PathBuf,
        /// The process that holds it, as far as it said.
        holder: String,
    },
    /// The path is there and is not a folder.
    #[error("{path} is not a folder; move it away or choose another data folder")]
    NotAFolder {
        /// The data folder.
        path: PathBuf,
    },
    /// There is no store in the folder.
    #[error("{path} holds no Iris data; name the data folder of a gateway")]
    NoStore {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds something that is not ours.
    #[error(
        "{path} is not empty and holds no Iris data (found {found}); choose an empty or a new folder"
    )]
    Foreign {
        /// The data folder.
        path: PathBuf,
        /// One name in it.
        found: String,
    },
    /// The folder or a file in it cannot be created, read or written.
    #[error(
        "{path}: {action} failed: {source}; check that this user may write there and that the disk has room"
    )]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Written by a later version of Iris.
    #[error(
        "{path} has format {found}, this Iris knows up to {known}; run the newer Iris that wrote it"
    )]
    Newer {
        /// The FORMAT file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// Written by an earlier version of Iris, whose format is not read any more.
    #[error(
        "{path} has format {found}, this Iris reads only {known}; let the Iris that wrote it deliver what is in it, or choose a new data folder"
    )]
    Older {
        /// The FORMAT file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// A file of ours is a symbolic link.
    #[error(
        "{path} is a symbolic link, and none is followed here; find out who made it, then put the file itself in its place or remove it"
    )]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// A file of ours is not as we wrote it.
    #[error(
        "{path} is damaged ({what}); `iris store repair {}` keeps it aside and rebuilds what can be read",
        .path.parent().unwrap_or(.path).display()
    )]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The database below did not open.
    #[error(
        "{path}: the database does not open: {source}; see the log, and if it stays so, `iris store repair {}` rebuilds what can be read",
        .path.parent().unwrap_or(.path).display()
    )]
    Database {
        /// The database's folder.
        path: PathBuf,
        /// What fjall said.
        source: fjall::Error,
    },
    /// A thread of the store could not be started.
    #[error("cannot start the store's thread {name}: {source}; check the limit on processes")]
    Thread {
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A thread of the store died, or writes had failed before the store was closed.
    #[error(
        "the store stopped before it was closed: {what}; acknowledged messages are on disk, open it again"
    )]
    Stopped {
        /// What happened.
        what: &'static str,
    },
}
