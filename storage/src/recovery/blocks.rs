//! The blocks of a table file of lsm-tree 3.1.10, each on its own checksums, whatever became of the rest.
//!
//! Pure reading, used by the offline commands. A table is a row of blocks: data first, then index, filter,
//! description, each `"LSM" 3u8 | kind u8 | xxh3-128 of the content u128 | length u32 | uncompressed length u32 | low
//! half of the xxh3-128 of all before it u32 | content` (lsm-tree `src/table/block/header.rs`); kind 0 is data. Memory:
//! one block.

use std::io;
use std::path::Path;

use fjall::Slice;
use lsm_tree::CompressionType;
use lsm_tree::table::block::decoder::ParsedItem;
use lsm_tree::table::{Block, DataBlock};
use xxhash_rust::xxh3::xxh3_128;

use super::fields::Fields;
use super::manifest;
use super::window::Window;

const MAGIC: [u8; 4] = *b"LSM\x03";
const HEADER_LEN: usize = 4 + 1 + 16 + 4 + 4 + 4;
const DATA: u8 = 0;
const DESCRIPTION: u8 = 3;

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

/// What a table says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) id: u64,
    /// Rows in it.
    pub(crate) rows: u64,
    /// The highest.
    pub(crate) seqno: u64,
    pub(crate) first_key: Slice,
    pub(crate) last_key: Slice,
}

impl Description {
    /// Reads the block that is one.
    pub(crate) fn of(block: &[u8]) -> Option<Description> {
        let block = decoded(block).ok()?;
        let property = |name: &[u8]| Some(block.point_read(name, u64::MAX)?.value);
        let number = |name| {
            Some(u64::from_le_bytes(
                property(name)?.as_ref().try_into().ok()?,
            ))
        };
        Some(Description {
            id: number(b"table_id")?,
            rows: number(b"item_count")?,
            seqno: number(b"seqno#max")?,
            first_key: property(b"key#min")?,
            last_key: property(b"key#max")?,
        })
    }
}

fn decoded(mut block: &[u8]) -> io::Result<DataBlock> {
    let block = Block::from_reader(&mut block, CompressionType::None).map_err(io::Error::other)?;
    Ok(DataBlock::new(block))
}

/// What a look at every block of a table found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sieved {
    /// Stretches that are not sound, of whatever kind.
    pub(crate) damaged: u64,
    /// Bytes of these.
    pub(crate) damaged_bytes: u64,
    /// Rows in sound blocks, if they were asked for.
    pub(crate) rows: u64,
    /// Where rows may be missing, if they were asked for.
    pub(crate) gaps: Vec<Gap>,
    pub(crate) description: Option<Description>,
}

/// A stretch of keys, without its ends: `None` for the first and the last there could be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) after: Option<Slice>,
    pub(crate) before: Option<Slice>,
}

impl Gap {
    /// Whether the key may be one of those that are missing. Several versions of a key may lie on both sides.
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        self.after.as_deref().is_none_or(|after| after <= key)
            && self.before.as_deref().is_none_or(|before| key <= before)
    }
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
    let sound = kind <= DESCRIPTION && own == xxh3_128(checked) as u32;
    Ok(sound.then_some(Header {
        kind,
        checksum,
        content_len,
    }))
}

/// The whole block at a place that ends before `end`, if header and content are sound.
fn block(window: &mut Window, at: u64, end: u64) -> io::Result<Option<(u8, &[u8])>> {
    let Some(header) = header(window, at)?.filter(|header| at + header.len() <= end) else {
        return Ok(None);
    };
    let len = usize::try_from(header.len()).unwrap_or(usize::MAX);
    let block = window.bytes(at, len)?;
    let content = block.get(HEADER_LEN..).unwrap_or_default();
    Ok((xxh3_128(content) == header.checksum).then_some((header.kind, block)))
}

/// The description that fills a section.
pub(crate) fn description(
    window: &mut Window,
    section: &manifest::Section,
) -> io::Result<Option<Description>> {
    let block = block(window, section.at, section.at + section.len)?;
    Ok(block
        .filter(|(kind, block)| *kind == DESCRIPTION && block.len() as u64 == section.len)
        .and_then(|(_, block)| Description::of(block)))
}

/// Sections of a table that are rows of blocks. The others hold a version number, or do not occur with us.
const BLOCK_SECTIONS: [&[u8]; 6] = [b"data", b"tli", b"index", b"filter_tli", b"filter", b"meta"];

/// Looks at every block of a table.
pub(crate) fn sieve(path: &Path) -> io::Result<Sieved> {
    Sieve::default().through(path, None)
}

/// Looks at every block of a table, and shows every row in the sound ones.
pub(crate) fn rows(path: &Path, show: &mut Show<'_>) -> io::Result<Sieved> {
    Sieve::default().through(path, Some(show))
}

/// Who is shown a key and its value.
pub(crate) type Show<'a> = dyn FnMut(&Slice, &Slice) -> io::Result<()> + 'a;

#[derive(Default)]
struct Sieve {
    sieved: Sieved,
    /// Of the row that was shown last.
    last_key: Option<Slice>,
    /// Something that cannot be read stands behind it.
    in_gap: bool,
}

impl Sieve {
    fn through(mut self, path: &Path, mut show: Option<&mut Show<'_>>) -> io::Result<Sieved> {
        let mut window = Window::open(path)?;
        match manifest::sections(path) {
            Ok(sections) => {
                for section in sections
                    .iter()
                    .filter(|it| BLOCK_SECTIONS.contains(&&*it.name))
                {
                    let end = section.at + section.len;
                    let is_data = section.name == b"data";
                    self.stretch(&mut window, section.at, end, is_data, &mut show)?;
                }
            }
            // The end of the file, which is no block, counts as damaged then; something of it is.
            Err(_) => {
                let end = window.len();
                self.stretch(&mut window, 0, end, true, &mut show)?;
                self.sieved.damaged = self.sieved.damaged.max(1);
                self.in_gap = true;
            }
        }
        if self.in_gap {
            self.gap(None);
        }
        Ok(self.sieved)
    }

    fn stretch(
        &mut self,
        window: &mut Window,
        mut at: u64,
        end: u64,
        is_data: bool,
        show: &mut Option<&mut Show<'_>>,
    ) -> io::Result<()> {
        while at < end {
            match block(window, at, end)? {
                Some((kind, block)) => {
                    at += block.len() as u64;
                    match (kind, show.as_mut()) {
                        (DATA, Some(show)) => self.show(block, show)?,
                        (DESCRIPTION, _) => self.sieved.description = Description::of(block),
                        _ => {}
                    }
                }
                None => {
                    // Its header may still say where it ends.
                    let next = match header(window, at)? {
                        Some(header) => (at + header.len()).min(end),
                        None => next_header(window, at + 1, end)?,
                    };
                    self.sieved.damaged += 1;
                    self.sieved.damaged_bytes += next - at;
                    self.in_gap |= is_data;
                    at = next;
                }
            }
        }
        Ok(())
    }

    fn show(&mut self, block: &[u8], show: &mut Show<'_>) -> io::Result<()> {
        let block = decoded(block)?;
        for row in block.iter() {
            let row = row.materialize(block.as_slice());
            if std::mem::take(&mut self.in_gap) {
                self.gap(Some(row.key.user_key.clone()));
            }
            show(&row.key.user_key, &row.value)?;
            self.sieved.rows += 1;
            self.last_key = Some(row.key.user_key);
        }
        Ok(())
    }

    fn gap(&mut self, before: Option<Slice>) {
        self.sieved.gaps.push(Gap {
            after: self.last_key.clone(),
            before,
        });
    }
}

fn next_header(window: &mut Window, mut at: u64, end: u64) -> io::Result<u64> {
    while at < end {
        let stretch = window.stretch(at)?;
        match stretch.iter().position(|byte| *byte == MAGIC[0]) {
            Some(offset) => {
                at += offset as u64;
                if at < end && header(window, at)?.is_some() {
                    return Ok(at);
                }
                at += 1;
            }
            None => at += stretch.len().max(1) as u64,
        }
    }
    Ok(end)
}
