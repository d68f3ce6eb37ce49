//! The files of a fjall 3.1.13 database (lsm-tree 3.1.10) besides its journals, looked at before fjall does.
//!
//! Pure reading, used while the store opens and by the offline commands. It costs two small reads for each table, not
//! a look at the data. fjall must not be let near a database that fails here: where a marker or a manifest is missing
//! it deletes the keyspace or begins a new one, and some wrong bytes make it ask for memory without bound or panic.
//!
//! The layout: `version` holds `"FJL" 3u8` (fjall `src/version.rs`); `keyspaces/<id>` is fjall's own for id 0, ours for
//! 1 and 2, in the order of their creation; a table's description is a row of properties (lsm-tree `src/table/meta.rs`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::blocks::{self, Description};
use super::manifest;
use super::window::Window;
use crate::database::{MESSAGES, USERS};
use crate::totals::TOTALS_KEY;
use crate::user::{BEAT_KEY, Place, UserKey, split_message_key};

const VERSION: &[u8] = b"FJL\x03";
/// fjall's own keyspace: which there are.
const META_ID: u64 = 0;
/// Keyspaces are numbered in the order of their creation.
pub(crate) const MESSAGES_ID: u64 = 1;
pub(crate) const USERS_ID: u64 = 2;
const KEYSPACES: [u64; 3] = [META_ID, MESSAGES_ID, USERS_ID];

/// What is wrong with a database: a file of it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) path: PathBuf,
    pub(crate) what: String,
}

/// A table by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableName {
    pub(crate) keyspace: u64,
    pub(crate) id: u64,
}

impl TableName {
    pub(crate) fn path(self, database: &Path) -> PathBuf {
        let TableName { keyspace, id } = self;
        database.join(format!("keyspaces/{keyspace}/tables/{id}"))
    }
}

/// The tables of a database as two small reads of each show them.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) sound: Vec<(TableName, Description)>,
    /// Tables of ours that fjall cannot open, or that are not what their name says.
    pub(crate) damaged: Vec<(TableName, Fault)>,
}

impl Tree {
    /// Up to which seqno the tables of a keyspace hold what was written to it.
    pub(crate) fn flushed(&self, keyspace: u64) -> u64 {
        let of_keyspace = self
            .sound
            .iter()
            .filter(|(name, _)| name.keyspace == keyspace);
        let seqnos = of_keyspace.map(|(_, description)| description.seqno);
        seqnos.max().unwrap_or(0)
    }
}

/// Looks for whatever fjall must not meet. The error is what cannot be healed by taking a table out.
pub(crate) fn look(database: &Path, place: Place) -> Result<Tree, Fault> {
    let version = database.join("version");
    match fs::read(&version) {
        Ok(content) if content == VERSION => {}
        Ok(_) => return Err(fault(&version, "not the marker of this database's version")),
        Err(error) => return Err(fault(&version, error)),
    }
    let keyspaces = database.join("keyspaces");
    let listed = fs::read_dir(&keyspaces).map_err(|error| fault(&keyspaces, error))?;
    let mut missing = KEYSPACES.to_vec();
    let mut tree = Tree::default();
    for entry in listed {
        let path = entry.map_err(|error| fault(&keyspaces, error))?.path();
        let id = path
            .file_name()
            .and_then(|name| name.to_str()?.parse::<u64>().ok());
        let Some(keyspace) = id.filter(|id| path.is_dir() && KEYSPACES.contains(id)) else {
            return Err(fault(&path, "not a keyspace"));
        };
        missing.retain(|missing| *missing != keyspace);
        for id in manifest::tables(&path)? {
            let name = TableName { keyspace, id };
            match look_at_table(&name.path(database), name, place) {
                Ok(description) => tree.sound.push((name, description)),
                Err(fault) if keyspace == META_ID => return Err(fault),
                Err(fault) => tree.damaged.push((name, fault)),
            }
        }
    }
    match missing.first() {
        Some(id) => return Err(fault(&keyspaces.join(id.to_string()), "missing")),
        None => check_names(database, &tree)?,
    }
    Ok(tree)
}

/// Whether fjall's own keyspace names ours: it deletes a keyspace without a name.
fn check_names(database: &Path, tree: &Tree) -> Result<(), Fault> {
    let mut unnamed = vec![(MESSAGES_ID, MESSAGES), (USERS_ID, USERS)];
    let named = tree.sound.iter().map(|(name, _)| *name);
    for table in named.filter(|name| name.keyspace == META_ID) {
        let path = table.path(database);
        let rows = blocks::rows(&path, &mut |key, value| {
            unnamed.retain(|(id, name)| {
                let is_its_name = key.strip_prefix(b"n") == Some(&id.to_be_bytes());
                !is_its_name || **value != *name.as_bytes()
            });
            Ok(())
        });
        let damaged = rows.map_err(|error| fault(&path, error))?.damaged;
        if damaged > 0 {
            return Err(fault(&path, "a block of it is damaged"));
        }
    }
    match unnamed.first() {
        Some((_, name)) => {
            let path = database.join(format!("keyspaces/{META_ID}"));
            Err(fault(&path, format!("no keyspace is named {name}")))
        }
        None => Ok(()),
    }
}

/// Whether a table's contents can be believed, and what fjall reads of it at the start is where it should be.
fn look_at_table(path: &Path, name: TableName, place: Place) -> Result<Description, Fault> {
    let sections = manifest::sections(path)?;
    let failed = |error: io::Error| fault(path, error);
    let mut window = Window::open(path).map_err(failed)?;
    let section = |name: &[u8]| sections.iter().find(|section| section.name == name);
    let (Some(index), Some(description)) = (section(b"tli"), section(b"meta")) else {
        return Err(fault(path, "the table has no index or no description"));
    };
    let header = blocks::header(&mut window, index.at).map_err(failed)?;
    let index_is_sound = header.is_some_and(|header| header.len() == index.len);
    let description = blocks::description(&mut window, description).map_err(failed)?;
    let (true, Some(description)) = (index_is_sound, description) else {
        return Err(fault(path, "the table's index or description is damaged"));
    };
    if !is_named(&description, name, place) {
        return Err(fault(path, "another table than its name says"));
    }
    Ok(description)
}

/// Whether a table is the one of this name, in this database.
pub(super) fn is_named(description: &Description, name: TableName, place: Place) -> bool {
    description.id == name.id
        && is_key(name.keyspace, &description.first_key, place)
        && is_key(name.keyspace, &description.last_key, place)
}

/// Whether a key may stand in a keyspace of this database.
pub(super) fn is_key(keyspace: u64, key: &[u8], place: Place) -> bool {
    match keyspace {
        MESSAGES_ID => {
            key == BEAT_KEY || split_message_key(key).is_some_and(|(user, _)| place.owns(user))
        }
        USERS_ID => key == TOTALS_KEY || UserKey::try_from(key).is_ok_and(|user| place.owns(user)),
        // Nobody writes these through a journal.
        META_ID => key.len() > size_of::<u64>(),
        _ => false,
    }
}

pub(super) fn fault(path: &Path, what: impl ToString) -> Fault {
    Fault {
        path: path.to_path_buf(),
        what: what.to_string(),
    }
}
