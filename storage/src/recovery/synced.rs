//! What a database must at least show when it is opened again: the file `SYNCED-N` beside it.
//!
//! Owner: the database's committer, which writes it after each sync, and syncs the file itself about once a second. So
//! a killed process leaves it exact, and a power cut not much older: a lower bound. It also carries what FORMAT says,
//! because nothing can be found in a data folder without its seed.
//!
//! Layout, integers little-endian: `"IRISSYN1" | seed u64 | databases u64 | sequence u64 | first journal u64 | last
//! journal u64 | crc32 u32`; the CRC covers all before it.

use std::fs;
use std::path::Path;

use super::fields::Fields;

const MAGIC: &[u8; 8] = b"IRISSYN1";
const LEN: usize = 8 + 5 * 8 + 4;

/// What was synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) seed: u64,
    pub(crate) databases: u64,
    /// The highest sequence of a message that was synced.
    pub(crate) sequence: u64,
    /// Numbers of the oldest and the newest journal file.
    pub(crate) first_journal: u64,
    pub(crate) last_journal: u64,
}

impl Synced {
    /// Reads the file; `None` if it is missing, or fails its CRC.
    pub(crate) fn read(path: &Path) -> Option<Synced> {
        let content = fs::read(path).ok()?;
        let (checked, crc) = content.split_last_chunk::<4>()?;
        if content.len() != LEN || crc32fast::hash(checked) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut fields = Fields(checked.strip_prefix(MAGIC)?);
        Some(Synced {
            seed: fields.u64()?,
            databases: fields.u64()?,
            sequence: fields.u64()?,
            first_journal: fields.u64()?,
            last_journal: fields.u64()?,
        })
    }
}
