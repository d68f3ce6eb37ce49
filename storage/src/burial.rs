//! Where memory and files that a database has done with are let go of, so that no commit waits for it.
//!
//! Owner: the committer, through its ledger; the letting go is done by a thread of its own, `iris-bury-N`. lsm-tree
//! drops what no version needs any more while it holds the lock that every write takes: a memtable of 32 MB, entry by
//! entry, and the files of merged tables held up commits by 75 to 200 ms. So the committer keeps a reference to the memtables,
//! and who merges messages to their tables, while they are in use, and hands over what is no longer; the thread drops it after
//! the database did. Files, those of
//! left journals too, it gives back piece by piece ([`crate::giving_back`]).
//!
//! Queue: bounded ([`QUEUE_MAX`]); when it is full they wait, so that memory is not taken faster than it is
//! let go of. Invariant: a `Burial` holds nothing once it is dropped, so the database can be closed, and opened again,
//! without a file going afterwards whose name is in use again.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ahash::AHashSet;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use fjall::{AbstractTree, Keyspace};
use lsm_tree::{Memtable, Table};
use tracing::warn;

use crate::database::Tables;
use crate::giving_back::GivingBack;
use crate::priority;

/// What may wait: as many memtables as fjall lets wait for their flush, of both keyspaces.
const QUEUE_MAX: usize = 8;
/// Between two looks at whether the database has done with what is held: at first, and without traffic.
const LOOK_AFTER: Duration = Duration::from_millis(20);
const LOOK_AFTER_MAX: Duration = Duration::from_secs(1);

/// What the database is done with, or soon will be.
enum Dead {
    Memtable(Arc<Memtable>),
    /// Tables that stand in no version from this one on.
    Tables {
        keyspace: Keyspace,
        version: u64,
        tables: Vec<Table>,
    },
    /// Of a journal that the database will remove.
    File(PathBuf),
}

impl Dead {
    /// Whether nobody else holds it.
    fn is_let_go(&self) -> bool {
        match self {
            Dead::Memtable(memtable) => Arc::strong_count(memtable) == 1,
            Dead::Tables {
                keyspace, version, ..
            } => {
                // Versions are numbered one by one, and go from the oldest on. Asked in this order, a version that
                // comes in between only makes more seem to be held than is.
                let newest = keyspace.tree.current_version().id();
                let older = keyspace.tree.version_free_list_len() as u64;
                newest.saturating_sub(older) >= *version
            }
            Dead::File(_) => true,
        }
    }
}

/// The memtable that a keyspace had in use when it was last looked at.
struct MemtableInUse {
    keyspace: Keyspace,
    memtable: Arc<Memtable>,
}

impl MemtableInUse {
    fn of(keyspace: &Keyspace) -> MemtableInUse {
        MemtableInUse {
            keyspace: keyspace.clone(),
            memtable: keyspace.tree.active_memtable(),
        }
    }

    /// Looks again, and gives what has gone out of use.
    fn look(&mut self) -> Option<Dead> {
        let memtable = self.keyspace.tree.active_memtable();
        (memtable.id() != self.memtable.id())
            .then(|| Dead::Memtable(std::mem::replace(&mut self.memtable, memtable)))
    }
}

/// The tables that a keyspace had when it was last looked at.
struct TablesInUse {
    keyspace: Keyspace,
    version: u64,
    tables: Vec<Table>,
}

impl TablesInUse {
    fn of(keyspace: &Keyspace) -> TablesInUse {
        let version = keyspace.tree.current_version();
        TablesInUse {
            keyspace: keyspace.clone(),
            version: version.id(),
            tables: version.iter_tables().cloned().collect(),
        }
    }

    /// Looks again, and gives what has gone out of use.
    fn look(&mut self) -> Option<Dead> {
        let version = self.keyspace.tree.current_version();
        (version.id() != self.version).then(|| {
            self.version = version.id();
            let now: Vec<Table> = version.iter_tables().cloned().collect();
            let mut tables = std::mem::replace(&mut self.tables, now);
            let in_use: AHashSet<u64> = self.tables.iter().map(Table::id).collect();
            tables.retain(|table| !in_use.contains(&table.id()));
            Dead::Tables {
                keyspace: self.keyspace.clone(),
                version: self.version,
                tables,
            }
        })
    }
}

/// Keeps what a database has in use until it can be let go of on the side.
pub(crate) struct Burial {
    memtables: [MemtableInUse; 2],
    /// Of accounts. Those of messages are looked at where they are merged.
    tables: TablesInUse,
    /// None while it ends.
    dead: Option<Sender<Dead>>,
    thread: Option<JoinHandle<()>>,
}

/// Keeps the tables of messages until they can be let go of on the side. It goes before its [`Burial`] does.
pub(crate) struct MergedTables {
    in_use: TablesInUse,
    dead: Option<Sender<Dead>>,
}

impl MergedTables {
    /// After each merge: hands over what has gone out of use.
    pub(crate) fn look(&mut self) {
        if let Some(gone) = self.in_use.look() {
            hand_over(self.dead.as_ref(), gone);
        }
    }
}

impl Burial {
    /// Begins with what is in use now. Without its thread, all is let go of where it was before.
    pub(crate) fn open(number: usize, tables: &Tables) -> Burial {
        let (dead, to_bury) = bounded(QUEUE_MAX);
        let thread = thread::Builder::new()
            .name(format!("iris-bury-{number}"))
            .spawn(move || bury(&to_bury))
            .inspect_err(|error| warn!(%error, "a thread cannot be started: commits wait for what is let go of"));
        Burial {
            memtables: [&tables.messages, &tables.users].map(MemtableInUse::of),
            tables: TablesInUse::of(&tables.users),
            dead: Some(dead),
            thread: thread.ok(),
        }
    }

    /// For who merges messages.
    pub(crate) fn merged_tables(&self, tables: &Tables) -> MergedTables {
        MergedTables {
            in_use: TablesInUse::of(&tables.messages),
            dead: self.dead.clone(),
        }
    }

    /// Between two batches: hands over what has gone out of use.
    pub(crate) fn look(&mut self) {
        let memtables = self.memtables.iter_mut().filter_map(MemtableInUse::look);
        for gone in memtables.chain(self.tables.look()) {
            hand_over(self.dead.as_ref(), gone);
        }
    }

    /// The database has left this journal, and will remove it.
    pub(crate) fn journal_left(&self, path: PathBuf) {
        hand_over(self.dead.as_ref(), Dead::File(path));
    }
}

impl Drop for Burial {
    fn drop(&mut self) {
        self.dead = None;
        if let Some(thread) = self.thread.take() {
            // It panics only if the database does; then there is nothing it holds.
            let _ended = thread.join();
        }
    }
}

fn hand_over(thread: Option<&Sender<Dead>>, gone: Dead) {
    if let Some(thread) = thread {
        // If the thread is gone, it is let go of here.
        let _gone = thread.send(gone);
    }
}

fn bury(dead: &Receiver<Dead>) {
    priority::stand_far_back();
    let mut held: Vec<Dead> = Vec::new();
    let mut files = GivingBack::default();
    let mut look_after = LOOK_AFTER;
    let mut looked_at = Instant::now();
    loop {
        let next = if let Some(pause) = files.step() {
            dead.recv_timeout(pause)
        } else if held.is_empty() && files.is_empty() {
            dead.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            dead.recv_timeout(look_after)
        };
        match next {
            Ok(gone) => {
                match &gone {
                    Dead::Memtable(_) => {}
                    Dead::Tables { tables, .. } => {
                        tables.iter().for_each(|table| files.hold(&table.path));
                    }
                    Dead::File(path) => files.hold(path),
                }
                held.push(gone);
                look_after = LOOK_AFTER;
            }
            Err(RecvTimeoutError::Timeout) if looked_at.elapsed() < look_after => continue,
            Err(RecvTimeoutError::Timeout) => look_after = (look_after * 2).min(LOOK_AFTER_MAX),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        held.retain(|gone| !gone.is_let_go());
        files.look();
        looked_at = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// A table more, and a chance for the database to let go of what is old.
    fn write_table(tables: &Tables) {
        tables.messages.insert([1; 20], [7; 100]).expect("written");
        tables
            .messages
            .rotate_memtable_and_wait()
            .expect("written as a table");
    }

    #[test]
    fn it_holds_what_goes_out_of_use_until_nobody_else_does() {
        let (_folder, tables) = Tables::of_new();
        write_table(&tables);
        let mut memtable_in_use = MemtableInUse::of(&tables.messages);
        let mut tables_in_use = TablesInUse::of(&tables.messages);
        let memtable = Arc::clone(&memtable_in_use.memtable);
        let merged = tables_in_use.tables.clone();
        write_table(&tables);
        tables.messages.major_compact().expect("merged");
        let memtables = memtable_in_use.look().into_iter();
        let mut dead: Vec<Dead> = memtables.chain(tables_in_use.look()).collect();
        let holds = |dead: &[Dead], tables: &[Table]| {
            dead.iter().any(|gone| match gone {
                Dead::Tables { tables: held, .. } => tables
                    .iter()
                    .all(|table| held.iter().any(|held| held.id() == table.id())),
                _ => false,
            })
        };
        assert!(holds(&dead, &merged));
        let deadline = Instant::now() + Duration::from_secs(20);
        let let_go = |dead: &mut Vec<Dead>, left: usize| {
            while dead.len() > left {
                assert!(Instant::now() < deadline, "{} still held", dead.len());
                write_table(&tables);
                dead.retain(|gone| !gone.is_let_go());
            }
        };
        let_go(&mut dead, 1);
        assert!(matches!(&dead[..], [Dead::Memtable(held)] if Arc::ptr_eq(held, &memtable)));
        drop(memtable);
        let_go(&mut dead, 0);
    }

    #[test]
    fn what_is_handed_over_goes_and_at_the_end_nothing_is_held() {
        let (_folder, tables) = Tables::of_new();
        write_table(&tables);
        let mut burial = Burial::open(0, &tables);
        let mut merged_tables = burial.merged_tables(&tables);
        let memtable = Arc::downgrade(&tables.messages.tree.active_memtable());
        let version = tables.messages.tree.current_version();
        let table = version.iter_tables().next().expect("one was written");
        let file = table.path.to_path_buf();
        drop(version);
        let deadline = Instant::now() + Duration::from_secs(20);
        while memtable.strong_count() > 0 || file.exists() {
            assert!(Instant::now() < deadline, "still held");
            write_table(&tables);
            tables.messages.major_compact().expect("merged");
            burial.look();
            merged_tables.look();
            thread::sleep(LOOK_AFTER);
        }
        // Held by the thread, because the test holds it, too.
        let last = tables.messages.tree.active_memtable();
        while Arc::strong_count(&last) > 2 {
            assert!(Instant::now() < deadline, "still in use");
            write_table(&tables);
            burial.look();
        }
        drop(merged_tables);
        drop(burial);
        assert_eq!(Arc::strong_count(&last), 1);
    }

    /// Whether this process has the file open to write to it. Tables are open to be read.
    fn is_held(path: &Path) -> bool {
        let open = fs::read_dir("/proc/self/fd").expect("listed");
        open.filter_map(Result::ok).any(|open| {
            let info = Path::new("/proc/self/fdinfo").join(open.file_name());
            let info = fs::read_to_string(info).unwrap_or_default();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
            fs::read_link(open.path()).is_ok_and(|it| it == path)
                && flags.is_some_and(|flags| flags.ends_with('1'))
        })
    }

    #[test]
    fn files_are_held_from_when_they_are_out_of_use_until_they_are_removed() {
        let (folder, tables) = Tables::of_new();
        write_table(&tables);
        let burial = Burial::open(0, &tables);
        let mut merged_tables = burial.merged_tables(&tables);
        // While it is held, so is the table's file.
        let version = tables.messages.tree.current_version();
        let table = version.iter_tables().next().expect("one was written");
        let journal = folder.path().join("left");
        fs::write(&journal, "content").expect("written");
        let files = [table.path.to_path_buf(), journal.clone()];
        assert!(!files.iter().any(|file| is_held(file)));
        write_table(&tables);
        tables.messages.major_compact().expect("merged");
        merged_tables.look();
        burial.journal_left(journal.clone());
        let deadline = Instant::now() + Duration::from_secs(20);
        let wait_for = |is_so: &dyn Fn() -> bool| {
            while !is_so() {
                assert!(Instant::now() < deadline, "waited in vain");
                thread::sleep(LOOK_AFTER);
            }
        };
        wait_for(&|| files.iter().all(|file| is_held(file)));
        let content = fs::File::open(&journal).expect("opened");
        fs::remove_file(&journal).expect("removed");
        wait_for(&|| content.metadata().expect("metadata").len() == 0);
        drop(merged_tables);
        drop(burial);
        assert!(!is_held(&files[0]));
    }
}
