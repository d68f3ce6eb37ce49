//! The manifest of a keyspace of lsm-tree 3.1.10 (sfa 1.0.0): which tables belong to it, and how one is taken out.
//!
//! Used while a database is closed. The formats, integers little-endian:
//! - `keyspaces/<id>/current`: `version u64 | xxh3-128 of the file v<version> u128 | 0u8` (lsm-tree
//!   `src/version/persist.rs`);
//! - `keyspaces/<id>/v<version>` and `keyspaces/<id>/tables/<table>` are archives of named sections. They end with
//!   `"SFA!" | 1u8 | 0u8 | xxh3-128 of the contents u128 | their place u64 | their length u64` (sfa `src/trailer`,
//!   `src/toc`); the contents are `"TOC!" | entries u32` and for each `place u64 | length u64 | name length u16 | name`;
//! - section `tables` of a version: `levels u8`, for each `runs u8`, for each `tables u32`, for each
//!   `id u64 | 0u8 | checksum u128 | seqno u64` (lsm-tree `src/version/mod.rs`). No run is empty.
//!
//! Invariant: `current` leads to the whole old manifest or to the whole new one, at every instant.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use super::fields::Fields;
use super::tree::{Fault, fault};
use super::window::Window;
use crate::synced_file;

const MANIFEST_LEN_MAX: u64 = 256 * 1024 * 1024;
const CONTENTS_LEN_MAX: u64 = 1024 * 1024;
const TRAILER_LEN: u64 = 4 + 1 + 1 + 16 + 8 + 8;
const TRAILER_MAGIC: &[u8] = b"SFA!\x01\x00";
const CONTENTS_MAGIC: &[u8] = b"TOC!";
const TABLES: &[u8] = b"tables";

/// Tables by level and run, as a manifest names them.
type Levels = Vec<Vec<Vec<Entry>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    id: u64,
    checksum: u128,
    seqno: u64,
}

/// A manifest that passes its checksum.
struct Manifest {
    version: u64,
    content: Vec<u8>,
    sections: Vec<Section>,
    levels: Levels,
}

/// A named part of an archive.
pub(crate) struct Section {
    pub(crate) name: Vec<u8>,
    pub(crate) at: u64,
    pub(crate) len: u64,
}

/// The tables of a keyspace, as its manifest names them: newest first.
pub(crate) fn tables(keyspace: &Path) -> Result<Vec<u64>, Fault> {
    let manifest = Manifest::read(keyspace)?;
    let entries = manifest.levels.iter().flatten().flatten();
    Ok(entries.map(|entry| entry.id).collect())
}

/// Makes a keyspace forget tables. On disk when it returns; their files stay.
pub(crate) fn take_out(keyspace: &Path, tables: &[u64]) -> io::Result<()> {
    let mut manifest = Manifest::read(keyspace)
        .map_err(|fault| io::Error::other(format!("{}: {}", fault.path.display(), fault.what)))?;
    for level in &mut manifest.levels {
        for run in level.iter_mut() {
            run.retain(|entry| !tables.contains(&entry.id));
        }
        level.retain(|run| !run.is_empty());
    }
    let version = manifest.version + 1;
    let content = manifest.encode();
    let path = keyspace.join(format!("v{version}"));
    let mut file = synced_file::create(&path)?;
    file.write_all(&content)?;
    file.sync_all()?;
    synced_file::sync_folder_of(&path)?;
    let mut current = version.to_le_bytes().to_vec();
    current.extend_from_slice(&xxh3_128(&content).to_le_bytes());
    current.push(0);
    synced_file::replace(&keyspace.join("current"), &current)
}

impl Manifest {
    fn read(keyspace: &Path) -> Result<Manifest, Fault> {
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
        let content = fs::read(&path).map_err(|error| fault(&path, error))?;
        if xxh3_128(&content) != checksum {
            return Err(fault(&path, "the manifest's checksum does not match"));
        }
        let sections = sections(&path)?;
        let Some(section) = sections.iter().find(|section| section.name == TABLES) else {
            return Err(fault(&path, "the manifest names no tables"));
        };
        let Some(levels) = section.of(&content).and_then(levels) else {
            return Err(fault(&path, "the manifest's list of tables is cut short"));
        };
        Ok(Manifest {
            version,
            content,
            sections,
            levels,
        })
    }

    /// The archive with the levels as they are now; all else is as it was read.
    fn encode(&self) -> Vec<u8> {
        let mut archive = Vec::with_capacity(self.content.len());
        let mut contents = CONTENTS_MAGIC.to_vec();
        contents.extend_from_slice(&(self.sections.len() as u32).to_le_bytes());
        for section in &self.sections {
            let at = archive.len();
            if section.name == TABLES {
                encode_levels(&self.levels, &mut archive);
            } else {
                archive.extend_from_slice(section.of(&self.content).unwrap_or_default());
            }
            contents.extend_from_slice(&(at as u64).to_le_bytes());
            contents.extend_from_slice(&((archive.len() - at) as u64).to_le_bytes());
            contents.extend_from_slice(&(section.name.len() as u16).to_le_bytes());
            contents.extend_from_slice(&section.name);
        }
        let at = archive.len() as u64;
        archive.extend_from_slice(&contents);
        archive.extend_from_slice(TRAILER_MAGIC);
        archive.extend_from_slice(&xxh3_128(&contents).to_le_bytes());
        archive.extend_from_slice(&at.to_le_bytes());
        archive.extend_from_slice(&(contents.len() as u64).to_le_bytes());
        archive
    }
}

impl Section {
    fn of<'a>(&self, archive: &'a [u8]) -> Option<&'a [u8]> {
        let at = usize::try_from(self.at).ok()?;
        let end = usize::try_from(self.at.checked_add(self.len)?).ok()?;
        archive.get(at..end)
    }
}

fn levels(bytes: &[u8]) -> Option<Levels> {
    let mut fields = Fields(bytes);
    let mut levels = Vec::new();
    for _ in 0..fields.u8()? {
        let mut level = Vec::new();
        for _ in 0..fields.u8()? {
            let mut run = Vec::new();
            for _ in 0..fields.u32()? {
                let (id, 0) = (fields.u64()?, fields.u8()?) else {
                    return None;
                };
                run.push(Entry {
                    id,
                    checksum: fields.u128()?,
                    seqno: fields.u64()?,
                });
            }
            level.push(run);
        }
        levels.push(level);
    }
    Some(levels)
}

fn encode_levels(levels: &Levels, bytes: &mut Vec<u8>) {
    bytes.push(levels.len() as u8);
    for level in levels {
        bytes.push(level.len() as u8);
        for run in level {
            bytes.extend_from_slice(&(run.len() as u32).to_le_bytes());
            for entry in run {
                bytes.extend_from_slice(&entry.id.to_le_bytes());
                bytes.push(0);
                bytes.extend_from_slice(&entry.checksum.to_le_bytes());
                bytes.extend_from_slice(&entry.seqno.to_le_bytes());
            }
        }
    }
}

/// The contents of an archive.
pub(crate) fn sections(path: &Path) -> Result<Vec<Section>, Fault> {
    let read = || -> io::Result<Option<Vec<Section>>> {
        let mut window = Window::open(path)?;
        let Some(trailer_at) = window.len().checked_sub(TRAILER_LEN) else {
            return Ok(None);
        };
        let trailer = window.bytes(trailer_at, TRAILER_LEN as usize)?;
        let Some(trailer) = trailer.strip_prefix(TRAILER_MAGIC) else {
            return Ok(None);
        };
        let mut fields = Fields(trailer);
        let (Some(checksum), Some(at)) = (fields.u128(), fields.u64()) else {
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
    let mut fields = Fields(bytes.strip_prefix(CONTENTS_MAGIC)?);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// lsm-tree itself opens what was written here, and has the other tables.
    #[test]
    fn a_table_that_is_taken_out_is_gone_and_the_others_are_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || {
            let database = fjall::Database::builder(folder.path())
                .open()
                .expect("opens");
            let options = fjall::KeyspaceCreateOptions::default;
            let keyspace = database.keyspace("messages", options).expect("a keyspace");
            (database, keyspace)
        };
        let (database, keyspace) = open();
        for n in 0..3u8 {
            keyspace.insert([n], [n; 100]).expect("written");
            keyspace.rotate_memtable_and_wait().expect("flushed");
        }
        drop((database, keyspace));
        let path = folder.path().join("keyspaces/1");
        let before = tables(&path).expect("sound");
        let manifest = Manifest::read(&path).expect("sound");
        assert_eq!(manifest.encode(), manifest.content);
        let oldest = *before.iter().min().expect("some");
        take_out(&path, &[oldest]).expect("written");
        let left: Vec<u64> = before.into_iter().filter(|id| *id != oldest).collect();
        assert_eq!(tables(&path).expect("sound"), left);
        let (database, keyspace) = open();
        let found = [0u8, 1, 2].map(|n| keyspace.contains_key([n]).expect("readable"));
        assert_eq!(found, [false, true, true]);
        drop((database, keyspace));
        take_out(&path, &left).expect("written");
        assert_eq!(tables(&path).expect("sound"), [0; 0]);
        // What the journal still has comes back from there.
        let (_database, keyspace) = open();
        assert_eq!(keyspace.len().expect("readable"), 3);
    }
}
