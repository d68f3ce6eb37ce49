//! Tables go to the disk piece by piece while they are written, not all at once when they are complete.
//!
//! Owner: a thread for each database, `iris-writeback-N`. fjall syncs a table when it is complete; whatever is synced
//! to the same disk meanwhile waits for its 20 to 64 MB, and that is the journal, which senders wait for. So the thread
//! hears of each new file in the folders of tables (inotify) and syncs it whenever it has grown by [`PIECE_BYTES`].
//!
//! Invariant: nothing relies on it. fjall syncs each table itself, through a descriptor of its own that is told of
//! every failed write; if the thread cannot work, commits wait longer. Without a table in the making it sleeps.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tracing::warn;

use crate::database::Tables;
use crate::priority;

/// Some milliseconds of a disk that takes a gigabyte a second.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;
/// Between two looks at the tables in the making: as long as the disk takes for a piece.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Events taken from the kernel at once; each takes 16 bytes and a name of a few digits.
const EVENTS_BYTES: usize = 4096;

/// The thread, for as long as the database is written.
pub(crate) struct Writeback {
    end: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Writeback {
    /// Begins to watch a database. `None`, and a warning, if that cannot be.
    pub(crate) fn open(number: usize, tables: &Tables) -> Option<Writeback> {
        let begin = || -> io::Result<Writeback> {
            let folders = [&tables.messages, &tables.users].map(|it| it.path().join("tables"));
            let mut growing = Growing::watch(folders.into())?;
            let end = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
            let ended = Arc::clone(&end);
            let run = move || {
                priority::stand_back();
                while let Ok(false) = growing.wait(&ended) {
                    growing.look();
                }
            };
            let thread = thread::Builder::new()
                .name(format!("iris-writeback-{number}"))
                .spawn(run)?;
            let thread = Some(thread);
            Ok(Writeback { end, thread })
        };
        begin()
            .inspect_err(|error| {
                warn!(%error, "tables cannot be written back while they grow: commits wait longer");
            })
            .ok()
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        // An eventfd takes a one at any time.
        let _written = rustix::io::write(&self.end, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// A table in the making.
struct Table {
    name: OsString,
    watch: i32,
    file: File,
    synced_bytes: u64,
}

/// The tables in the making, as the kernel tells of them.
struct Growing {
    inotify: OwnedFd,
    folders: Vec<(i32, PathBuf)>,
    tables: Vec<Table>,
}

impl Growing {
    fn watch(folders: Vec<PathBuf>) -> io::Result<Growing> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let of_files = WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR;
        let watch =
            |folder: PathBuf| Ok((inotify::add_watch(&inotify, &folder, of_files)?, folder));
        let folders = folders.into_iter().map(watch).collect::<io::Result<_>>()?;
        Ok(Growing {
            inotify,
            folders,
            tables: Vec::new(),
        })
    }

    /// Waits until there may be something to do. True: it is over.
    fn wait(&self, end: &OwnedFd) -> io::Result<bool> {
        let look_every = Timespec::try_from(LOOK_EVERY).map_err(io::Error::other)?;
        let timeout = (!self.tables.is_empty()).then_some(&look_every);
        let mut both = [
            PollFd::new(&self.inotify, PollFlags::IN),
            PollFd::new(end, PollFlags::IN),
        ];
        match poll(&mut both, timeout) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let [_, end] = &both;
        Ok(!end.revents().is_empty())
    }

    /// Syncs what has grown by a piece; says how many files.
    fn look(&mut self) -> usize {
        self.hear();
        let mut synced = 0;
        for table in &mut self.tables {
            let len = table.file.metadata().map_or(0, |metadata| metadata.len());
            if len >= table.synced_bytes + PIECE_BYTES {
                table.synced_bytes = len;
                // A failure is told to fjall, too, when it syncs the whole.
                let _told = table.file.sync_data();
                synced += 1;
            }
        }
        synced
    }

    /// Takes what the kernel tells. After an overflow a table is missed, or a complete one looked at in vain until
    /// the next of its name.
    fn hear(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = events.next() {
            let Some(name) = event.file_name() else {
                continue;
            };
            let (name, watch) = (OsStr::from_bytes(name.to_bytes()), event.wd());
            self.tables
                .retain(|table| table.watch != watch || table.name != name);
            let folder = self.folders.iter().find(|(known, _)| *known == watch);
            if event.events().contains(ReadFlags::CREATE)
                && let Some((_, folder)) = folder
                && let Ok(file) = File::open(folder.join(name))
            {
                self.tables.push(Table {
                    name: name.to_os_string(),
                    watch,
                    file,
                    synced_bytes: 0,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_synced_for_each_piece_until_it_is_complete() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut growing = Growing::watch(vec![folder.path().to_path_buf()]).expect("watched");
        let piece = vec![7; PIECE_BYTES as usize];
        let mut file = File::create(folder.path().join("1")).expect("made");
        let mut step = |bytes: &[u8], synced: usize| {
            file.write_all(bytes).expect("written");
            assert_eq!(growing.look(), synced);
        };
        step(&piece, 1);
        step(&piece[1..], 0);
        step(&piece[..1], 1);
        step(&[], 0);
        drop(file);
        File::create(folder.path().join("2")).expect("made");
        assert_eq!((growing.look(), growing.tables.len()), (0, 0));
    }

    #[test]
    fn it_sleeps_without_a_table_and_ends_when_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let growing = Growing::watch(vec![folder.path().to_path_buf()]).expect("watched");
        let end = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"));
        let ended = Arc::clone(&end);
        let waits = thread::spawn(move || growing.wait(&ended).expect("waited"));
        thread::sleep(LOOK_EVERY * 20);
        assert!(!waits.is_finished());
        drop(Writeback { end, thread: None });
        assert!(waits.join().expect("no panic"));
    }
}
