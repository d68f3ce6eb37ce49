//! The entries of fjall's journal files, as fjall 3.1.13 writes them.
//!
//! From its `src/journal/entry.rs`, `writer.rs`, `reader.rs`, `src/file.rs`; integers little-endian. A file is a row of
//! batches, then zeros up to the 64 MiB it was created with:
//! - start: `1u8 | items u32 | seqno u64`;
//! - item: `2u8 | value type u8 | compression u8 | keyspace u64 | key length u16 | value length u32 |
//!   length on disk u32 | key | value`;
//! - clear: `4u8 | keyspace u64`, counted as an item;
//! - end: `3u8 | xxh3-64 of the items as they lie there u64 | "FJL" 3u8`.
//!
//! Pure reading of foreign bytes, no I/O: what could not have been written is `None`.

use crate::record::RECORD_LEN_MAX;
use crate::recovery::fields::Fields;

pub(super) const START: u8 = 1;
pub(super) const ITEM: u8 = 2;
pub(super) const END: u8 = 3;
const CLEAR: u8 = 4;
const START_LEN: u64 = 1 + 4 + 8;
const ITEM_HEAD_LEN: u64 = 1 + 1 + 1 + 8 + 2 + 4 + 4;
const END_LEN: u64 = 1 + 8 + 4;
const CLEAR_LEN: u64 = 1 + 8;
pub(super) const TRAILER: &[u8; 4] = b"FJL\x03";
pub(super) const COMPRESSION_NONE: u8 = 0;
/// No entry has more before its key and value.
pub(super) const HEAD_LEN_MAX: usize = ITEM_HEAD_LEN as usize;
/// `lsm_tree::ValueType`: value 0, tombstone 1, weak tombstone 2. Pointers (4) never stand in a journal.
const VALUE_TYPE_MAX: u8 = 2;
/// Keyspaces are numbered from 1 in the order of their creation; there are a handful.
const KEYSPACE_MAX: u64 = 1 << 16;

/// A stretch of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: u64,
    pub(super) len: usize,
}

/// A key and its value, or that it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) keyspace: u64,
    pub(super) is_value: bool,
    pub(super) key: Span,
    pub(super) value: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Start { items: u32, seqno: u64 },
    Item(Item),
    Clear,
    End { checksum: u64 },
}

/// The entry whose bytes begin with `head`, at this place of a file of `file_len` bytes, and where it ends; `None` if
/// there is none that could have been written.
pub(super) fn read(head: &[u8], at: u64, file_len: u64) -> Option<(Entry, u64)> {
    let mut fields = Fields(head);
    match fields.u8()? {
        START => {
            let (items, seqno) = (fields.u32()?, fields.u64()?);
            (items > 0).then_some((Entry::Start { items, seqno }, at + START_LEN))
        }
        ITEM => {
            let (value_type, compression) = (fields.u8()?, fields.u8()?);
            let keyspace = fields.u64()?;
            let key_len = usize::from(fields.u16()?);
            let (value_len, on_disk) = (fields.u32()?, fields.u32()?);
            let value_len = usize::try_from(value_len).ok()?;
            let could_be = value_type <= VALUE_TYPE_MAX
                && compression == COMPRESSION_NONE
                && keyspace <= KEYSPACE_MAX
                && key_len > 0
                && value_len <= RECORD_LEN_MAX
                && on_disk as usize == value_len;
            let key = Span {
                at: at + ITEM_HEAD_LEN,
                len: key_len,
            };
            let value = Span {
                at: key.at + key_len as u64,
                len: value_len,
            };
            let end = value.at + value_len as u64;
            let item = Item {
                keyspace,
                is_value: value_type == 0,
                key,
                value,
            };
            (could_be && end <= file_len).then_some((Entry::Item(item), end))
        }
        CLEAR => {
            let keyspace = fields.u64()?;
            (keyspace <= KEYSPACE_MAX).then_some((Entry::Clear, at + CLEAR_LEN))
        }
        END => {
            let checksum = fields.u64()?;
            let trailer = fields.0.get(..TRAILER.len())?;
            (trailer == TRAILER).then_some((Entry::End { checksum }, at + END_LEN))
        }
        _ => None,
    }
}
