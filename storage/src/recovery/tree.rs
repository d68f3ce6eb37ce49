//! The files of a fjall 3.1.13 database (lsm-tree 3.1.10, sfa 1.0.0) besides its journals, looked at before fjall does.
//!
//! Pure reading, used while the store opens and by the offline commands. It costs two small reads for each table, not
//! a look at the data. fjall must not be let near a database that fails here: where a marker or a manifest is missing
//! it deletes the keyspace or begins a new one, and some wrong bytes make it ask for memory without bound or panic.
//!
//! The formats, integers little-endian:
//! - `version`: `"FJL" 3u8` (fjall `src/version.rs`);
//! - `keyspaces/<id>/current`: `version u64 | xxh3-128 of the file v<version> u128 | 0u8` (lsm-tree
//!   `src/version/persist.rs`); fjall's own keyspace has id 0, ours 1 and 2, in the order of their creation;
//! - `keyspaces/<id>/v<version>` and `keyspaces/<id>/tables/<table>` are archives of named sections. They end with
//!   `"SFA!" | 1u8 | 0u8 | xxh3-128 of the contents u128 | their place u64 | their length u64` (sfa `src/trailer`,
//!   `src/toc`); the contents are `"TOC!" | entries u32` and for each `place u64 | length u64 | name length u16 | name`;
//! - section `tables` of a version: `levels u8`, for each `runs u8`, for each `tables u32`, for each
//!   `id u64 | 0u8 | checksum u128 | seqno u64` (lsm-tree `src/version/mod.rs`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use super::blocks;
use super::fields::Fields;
use super::window::Window;

const VERSION: &[u8] = b"FJL\x03";
const KEYSPACES: [u64; 3] = [0, 1, 2];
const MANIFEST_LEN_MAX: u64 = 256 * 1024 * 1024;
const CONTENTS_LEN_MAX: u64 = 1024 * 1024;
const TRAILER_LEN: u64 = 4 + 1 + 1 + 16 + 8 + 8;

/// What is wrong with a database: a file of it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) path: PathBuf,
    pub(crate) what: String,
}

/// Looks for whatever fjall must not meet.
pub(crate) fn check(database: &Path) -> Result<(), Fault> {
    let version = database.join("version");
    match fs::read(&version) {
        Ok(content) if content == VERSION => {}
        Ok(_) => return Err(fault(&version, "not the marker of this database's version")),
        Err(error) => return Err(fault(&version, error)),
    }
    let keyspaces = database.join("keyspaces");
    let listed = fs::read_dir(&keyspaces).map_err(|error| fault(&keyspaces, error))?;
    let mut missing = KEYSPACES.to_vec();
    for entry in listed {
        let path = entry.map_err(|error| fault(&keyspaces, error))?.path();
        let id = path
            .file_name()
            .and_then(|name| name.to_str()?.parse::<u64>().ok());
        let Some(id) = id.filter(|_| path.is_dir()) else {
            return Err(fault(&path, "not a keyspace"));
        };
        missing.retain(|missing| *missing != id);
        for table in tables(&path)? {
            check_table(&path.join("tables").join(table.to_string()))?;
        }
    }
    match missing.first() {
        Some(id) => Err(fault(&keyspaces.join(id.to_string()), "missing")),
        None => Ok(()),
    }
}

/// The tables of a keyspace, as its manifest names them.
pub(crate) fn tables(keyspace: &Path) -> Result<Vec<u64>, Fault> {
    let current = keyspace.join("current");
    let content = fs::read(&current).map_err(|error| fault(&current, error))?;
    let mut fields = Fields(&content);
    let (Some(version), Some(checksum), Some(0), []) =
        (fields.u64(), fields.u128(), fields.u8(), fields.0)
    else {
        return Err(fault(&current, "not a version, its checksum and a zero"));
    };
    let path = keyspace.join(format!("v{version}"));
    let len = fs::metadata(&path)
        .map_err(|error| fault(&path, error))?
        .len();
    if len > MANIFEST_LEN_MAX {
        return Err(fault(&path, "longer than any manifest"));
    }
    let manifest = fs::read(&path).map_err(|error| fault(&path, error))?;
    if xxh3_128(&manifest) != checksum {
        return Err(fault(&path, "the manifest's checksum does not match"));
    }
    let sections = sections(&path)?;
    let Some(section) = sections.iter().find(|section| section.name == b"tables") else {
        return Err(fault(&path, "the manifest names no tables"));
    };
    let end = section.at.saturating_add(section.len);
    let listed = usize::try_from(section.at)
        .ok()
        .zip(usize::try_from(end).ok())
        .and_then(|(at, end)| table_ids(manifest.get(at..end)?));
    listed.ok_or_else(|| fault(&path, "the manifest's list of tables is cut short"))
}

fn table_ids(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut fields = Fields(bytes);
    let mut ids = Vec::new();
    for _ in 0..fields.u8()? {
        for _ in 0..fields.u8()? {
            for _ in 0..fields.u32()? {
                ids.push(fields.u64()?);
                let (_kind, _checksum, _seqno) = (fields.u8()?, fields.u128()?, fields.u64()?);
            }
        }
    }
    Some(ids)
}

/// Whether a table's contents can be believed, and what fjall reads of it at the start is where it should be.
fn check_table(path: &Path) -> Result<(), Fault> {
    let sections = sections(path)?;
    let mut window = Window::open(path).map_err(|error| fault(path, error))?;
    for name in [&b"tli"[..], b"meta"] {
        let section = sections.iter().find(|section| section.name == name);
        let header = match section {
            Some(section) => blocks::header(&mut window, section.at),
            None => Ok(None),
        };
        match header.map_err(|error| fault(path, error))? {
            Some(header) if section.is_some_and(|it| header.len() == it.len) => {}
            _ => return Err(fault(path, "the table's index or description is damaged")),
        }
    }
    Ok(())
}

/// A named part of an archive.
pub(crate) struct Section {
    pub(crate) name: Vec<u8>,
    pub(crate) at: u64,
    pub(crate) len: u64,
}

/// The contents of an archive.
pub(crate) fn sections(path: &Path) -> Result<Vec<Section>, Fault> {
    let read = || -> io::Result<Option<Vec<Section>>> {
        let mut window = Window::open(path)?;
        let Some(trailer_at) = window.len().checked_sub(TRAILER_LEN) else {
            return Ok(None);
        };
        let mut fields = Fields(window.bytes(trailer_at, TRAILER_LEN as usize)?);
        let (Some(0x2141_4653), Some(1), Some(0), Some(checksum), Some(at)) = (
            fields.u32(),
            fields.u8(),
            fields.u8(),
            fields.u128(),
            fields.u64(),
        ) else {
            return Ok(None);
        };
        let len = trailer_at.saturating_sub(at);
        if len == 0 || len > CONTENTS_LEN_MAX {
            return Ok(None);
        }
        let contents = window.bytes(at, len as usize)?;
        if xxh3_128(contents) != checksum {
            return Ok(None);
        }
        Ok(contents_of(contents, at))
    };
    match read() {
        Ok(Some(sections)) => Ok(sections),
        Ok(None) => Err(fault(
            path,
            "cut short, or its table of contents is damaged",
        )),
        Err(error) => Err(fault(path, error)),
    }
}

fn contents_of(bytes: &[u8], end: u64) -> Option<Vec<Section>> {
    let mut fields = Fields(bytes.strip_prefix(b"TOC!")?);
    let mut sections = Vec::new();
    for _ in 0..fields.u32()? {
        let (at, len) = (fields.u64()?, fields.u64()?);
        let name_len = usize::from(fields.u16()?);
        let name = fields.0.get(..name_len)?.to_vec();
        fields.0 = fields.0.get(name_len..)?;
        (at.checked_add(len)? <= end).then_some(())?;
        sections.push(Section { name, at, len });
    }
    Some(sections)
}

fn fault(path: &Path, what: impl ToString) -> Fault {
    Fault {
        path: path.to_path_buf(),
        what: what.to_string(),
    }
}
