//! The blocks of a table file of lsm-tree 3.1.10, each on its own checksums, whatever became of the rest.
//!
//! Pure reading, used by the offline commands. A table is a row of blocks: data first, then index, filter,
//! description, each `"LSM" 3u8 | kind u8 | xxh3-128 of the content u128 | length u32 | uncompressed length u32 | low
//! half of the xxh3-128 of all before it u32 | content` (lsm-tree `src/table/block/header.rs`); kind 0 is data. Memory:
//! one block.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use fjall::Slice;
use lsm_tree::CompressionType;
use lsm_tree::table::Scanner;
use xxhash_rust::xxh3::xxh3_128;

use super::fields::Fields;
use super::tree;
use super::window::Window;

const MAGIC: [u8; 4] = *b"LSM\x03";
const HEADER_LEN: usize = 4 + 1 + 16 + 4 + 4 + 4;
const DATA: u8 = 0;
const KIND_MAX: u8 = 3;

/// A block's header that passes its checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    kind: u8,
    checksum: u128,
    content_len: u32,
}

impl Header {
    /// Of the whole block.
    pub(crate) fn len(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.content_len)
    }
}

/// What a look at every block of a table found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sieved {
    /// Data blocks that are sound.
    pub(crate) data_blocks: u64,
    /// Stretches that are not, of whatever kind.
    pub(crate) damaged: u64,
    /// Bytes of these.
    pub(crate) damaged_bytes: u64,
}

/// The header at a place, if it is sound.
pub(crate) fn header(window: &mut Window, at: u64) -> io::Result<Option<Header>> {
    let bytes = window.bytes(at, HEADER_LEN)?;
    let mut fields = Fields(bytes.strip_prefix(&MAGIC).unwrap_or_default());
    let read = (
        fields.u8(),
        fields.u128(),
        fields.u32(),
        fields.u32(),
        fields.u32(),
    );
    let (Some(kind), Some(checksum), Some(content_len), Some(_), Some(own)) = read else {
        return Ok(None);
    };
    let checked = bytes.get(..HEADER_LEN - 4).unwrap_or_default();
    let sound = kind <= KIND_MAX && own == xxh3_128(checked) as u32;
    Ok(sound.then_some(Header {
        kind,
        checksum,
        content_len,
    }))
}

/// Sections of a table that are rows of blocks. The others hold a version number, or do not occur with us.
const BLOCK_SECTIONS: [&[u8]; 6] = [b"data", b"tli", b"index", b"filter_tli", b"filter", b"meta"];

/// Looks at every block of a table, and hands on the data blocks that are sound.
pub(crate) fn sieve(
    path: &Path,
    mut sound: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Sieved> {
    let mut window = Window::open(path)?;
    let mut sieved = Sieved::default();
    match tree::sections(path) {
        Ok(sections) => {
            for section in sections
                .iter()
                .filter(|it| BLOCK_SECTIONS.contains(&&*it.name))
            {
                let end = section.at + section.len;
                sieve_stretch(&mut window, section.at, end, &mut sieved, &mut sound)?;
            }
        }
        // The end of the file, which is no block, counts as damaged then; something of it is.
        Err(_) => {
            let end = window.len();
            sieve_stretch(&mut window, 0, end, &mut sieved, &mut sound)?;
            sieved.damaged = sieved.damaged.max(1);
        }
    }
    Ok(sieved)
}

fn sieve_stretch(
    window: &mut Window,
    mut at: u64,
    end: u64,
    sieved: &mut Sieved,
    sound: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    while at < end {
        let header = header(window, at)?;
        let next = match header {
            Some(header) => at + header.len(),
            None => next_header(window, at + 1, end)?,
        };
        let len = usize::try_from(next - at).unwrap_or(usize::MAX);
        let is_sound = match header {
            Some(header) if next <= end => {
                let block = window.bytes(at, len)?;
                let content = block.get(HEADER_LEN..).unwrap_or_default();
                let is_sound = xxh3_128(content) == header.checksum;
                if is_sound && header.kind == DATA {
                    sieved.data_blocks += 1;
                    sound(block)?;
                }
                is_sound
            }
            _ => false,
        };
        if !is_sound {
            sieved.damaged += 1;
            sieved.damaged_bytes += next.min(end) - at;
        }
        at = next;
    }
    Ok(())
}

fn next_header(window: &mut Window, mut at: u64, end: u64) -> io::Result<u64> {
    while at < end {
        let stretch = window.stretch(at)?;
        match stretch.iter().position(|byte| *byte == MAGIC[0]) {
            Some(offset) => {
                at += offset as u64;
                if header(window, at)?.is_some() {
                    return Ok(at);
                }
                at += 1;
            }
            None => at += stretch.len().max(1) as u64,
        }
    }
    Ok(end)
}

/// Shows every row in the sound data blocks of a table. `beside`: a file to be made for the while.
pub(crate) fn rows(
    path: &Path,
    beside: &Path,
    show: &mut dyn FnMut(Slice, Slice) -> io::Result<()>,
) -> io::Result<Sieved> {
    // lsm-tree reads rows from a file that begins with its data blocks: all that is needed of a table.
    let mut file = BufWriter::new(File::create(beside)?);
    let sieved = sieve(path, |block| file.write_all(block))?;
    file.flush()?;
    drop(file);
    let blocks = usize::try_from(sieved.data_blocks).unwrap_or(usize::MAX);
    if blocks > 0 {
        let rows =
            Scanner::new(beside, blocks, CompressionType::None, 0).map_err(io::Error::other)?;
        for row in rows {
            let row = row.map_err(io::Error::other)?;
            show(row.key.user_key, row.value)?;
        }
    }
    std::fs::remove_file(beside)?;
    Ok(sieved)
}
