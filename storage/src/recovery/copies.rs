//! What was found damaged, kept in the folder `damaged/` of the data folder: for people, and until what is sound in it
//! was put back.
//!
//! Used by the thread that opens a database, and by the rebuilding of one. A copy is a folder, named by the time and the
//! database, with journals (`3.jnl`) and tables (`1-17.table`: keyspace and number). Its name ends in `.unfinished` until
//! all that is sound in it stands in the database. Invariant: what has such a name is whole, and on disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::tree::TableName;
use crate::clock;
use crate::synced_file;

/// Folder in the data folder that keeps what was damaged, for people to look at or to delete.
pub(crate) const DAMAGED: &str = "damaged";
const PARTIAL: &str = "partial";
const UNFINISHED: &str = "unfinished";
const TABLE: &str = "table";

/// Copies of this database from which something may have to be put back.
pub(super) fn unfinished(data: &Path, database: &Path) -> io::Result<Vec<PathBuf>> {
    let mut copies = Vec::new();
    let entries = match fs::read_dir(data.join(DAMAGED)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(copies),
        Err(error) => return Err(error),
    };
    let ending = format!("-{}", name_of(database));
    for entry in entries {
        let path = entry?.path();
        let of_this = path
            .file_stem()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.ends_with(&ending));
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(UNFINISHED) if of_this => copies.push(path),
            Some(PARTIAL) if of_this => fs::remove_dir_all(&path)?,
            _ => {}
        }
    }
    copies.sort();
    Ok(copies)
}

/// Keeps all journals of a database and some of its tables aside.
pub(super) fn keep(
    data: &Path,
    database: &Path,
    journals: &[(u64, PathBuf)],
    tables: &[TableName],
) -> io::Result<PathBuf> {
    let name = free_name(data, database, UNFINISHED)?;
    let partial = name.with_extension(PARTIAL);
    synced_file::create_folder(&partial)?;
    for (number, path) in journals {
        let copy = partial.join(format!("{number}.jnl"));
        fs::copy(path, &copy)?;
        File::open(&copy)?.sync_all()?;
    }
    for table in tables {
        let path = table.path(database);
        let copy = partial.join(format!("{}-{}.{TABLE}", table.keyspace, table.id));
        // Nobody writes to a table, so a second name will do.
        match fs::hard_link(&path, &copy).or_else(|_| fs::copy(&path, &copy).map(drop)) {
            // An empty one stands for a table that is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                drop(synced_file::create(&copy)?)
            }
            kept => kept?,
        }
    }
    synced_file::sync_tree(&partial)?;
    fs::rename(&partial, &name)?;
    synced_file::sync_folder_of(&name)?;
    Ok(name)
}

/// All that was sound in it was put back. Its new name.
pub(super) fn finish(copy: &Path) -> io::Result<PathBuf> {
    let done = copy.with_extension("");
    fs::rename(copy, &done)?;
    synced_file::sync_folder_of(&done)?;
    Ok(done)
}

/// Moves a database aside whole.
pub(super) fn keep_whole(data: &Path, database: &Path) -> io::Result<PathBuf> {
    let aside = free_name(data, database, "whole")?;
    fs::rename(database, &aside)?;
    synced_file::sync_folder_of(&aside)?;
    Ok(aside)
}

/// The tables of a copy.
pub(super) fn tables(copy: &Path) -> io::Result<Vec<(TableName, PathBuf)>> {
    let mut tables = Vec::new();
    for entry in fs::read_dir(copy)? {
        let path = entry?.path();
        let named = path.file_name().and_then(|name| name.to_str());
        let name =
            named.and_then(|name| name.strip_suffix(TABLE)?.strip_suffix('.')?.split_once('-'));
        if let Some((keyspace, id)) = name
            && let (Ok(keyspace), Ok(id)) = (keyspace.parse(), id.parse())
        {
            tables.push((TableName { keyspace, id }, path));
        }
    }
    tables.sort_unstable();
    Ok(tables)
}

/// A name that no copy has yet: the clock may have been set back.
fn free_name(data: &Path, database: &Path, extension: &str) -> io::Result<PathBuf> {
    let kept = data.join(DAMAGED);
    synced_file::create_folder(&kept)?;
    synced_file::sync_folder_of(&kept)?;
    let database = name_of(database);
    let name = |at_ms: u64| kept.join(format!("{at_ms}-{database}.{extension}"));
    let is_free = |at_ms: &u64| {
        [extension, PARTIAL, ""]
            .iter()
            .all(|extension| !name(*at_ms).with_extension(extension).exists())
    };
    let now_ms = clock::now_ms();
    let free = (now_ms..).find(is_free).unwrap_or(now_ms);
    Ok(name(free))
}

fn name_of(database: &Path) -> String {
    let name = database.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
