//! What the store knows of a user: the value in the `users` keyspace.
//!
//! Pure functions. Layout, no padding, integers little-endian:
//! `crc32 u32 | header (rkyv, fixed 65 bytes) | name`; the CRC covers all that follows it.
//!
//! Invariants: the record exists from the user's first message (or first sight) on, so that a user without one
//! has no messages; `head` and the totals burned with it only grow.
//!
//! The record also says where the inbox ended when it was written, and in which life of the database (a
//! sequence, drawn when it was opened). Only the committer of the same life may believe it, because it writes the record
//! anew before it forgets a user; everyone else looks at the messages themselves. So it spares the committer a
//! look-up in every table, and no crash can make it wrong.

use rkyv::api::low;
use rkyv::rancor;
use rkyv::{Archive, Serialize};

use crate::record::{CRC_LEN, check_crc, write_crc, write_fixed};
use crate::request::FailureKind;

#[derive(Archive, Serialize)]
struct Header {
    head: u64,
    burned_messages: u64,
    burned_bytes: u64,
    last_seen_ms: u64,
    tail_life: u64,
    tail_sequence: u64,
    tail_ordinal: u64,
    tail_cumulative_bytes: u64,
    name_len: u8,
}

const HEADER_LEN: usize = size_of::<ArchivedHeader>();
const OVERHEAD: usize = CRC_LEN + HEADER_LEN;
/// The longest name; longer ones do not get past the protocol.
pub(crate) const NAME_LEN_MAX: usize = 255;

// The layout on disk: it may change only together with the number in the FORMAT file.
const _: () = assert!(HEADER_LEN == 65 && align_of::<ArchivedHeader>() == 1);

/// A user's standing: how far the inbox was burned, and when the user was last here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// First sequence that is kept.
    pub(crate) head: u64,
    /// Messages burned so far: the ordinal of the last one before the head.
    pub(crate) burned_messages: u64,
    /// Bytes of the records burned so far.
    pub(crate) burned_bytes: u64,
    /// Unix milliseconds; 0: never.
    pub(crate) last_seen_ms: u64,
}

/// The last message of an inbox, or what stands for it if the inbox is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) sequence: u64,
    /// Messages ever stored for this user, up to here.
    pub(crate) ordinal: u64,
    /// Bytes of their records.
    pub(crate) cumulative_bytes: u64,
}

/// A whole record, as it is written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    pub(crate) account: Account,
    /// Where the inbox ended, as the committer of `tail_life` knew it.
    pub(crate) tail: Tail,
    pub(crate) tail_life: u64,
    pub(crate) name: &'a [u8],
}

/// Whether a name may have an account.
pub(crate) fn name_is_sound(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len())
}

/// The value to store. The name must be sound, or empty if it is not known.
pub(crate) fn encode(stored: &Stored<'_>) -> Vec<u8> {
    let Stored {
        account,
        tail,
        tail_life,
        name,
    } = stored;
    debug_assert!(name.len() <= NAME_LEN_MAX);
    let header = Header {
        head: account.head,
        burned_messages: account.burned_messages,
        burned_bytes: account.burned_bytes,
        last_seen_ms: account.last_seen_ms,
        tail_life: *tail_life,
        tail_sequence: tail.sequence,
        tail_ordinal: tail.ordinal,
        tail_cumulative_bytes: tail.cumulative_bytes,
        name_len: name.len() as u8,
    };
    let mut header_bytes = [0u8; HEADER_LEN];
    write_fixed(&header, &mut header_bytes);
    let mut bytes = Vec::with_capacity(OVERHEAD + name.len());
    bytes.extend_from_slice(&[0; CRC_LEN]);
    bytes.extend_from_slice(&header_bytes);
    bytes.extend_from_slice(name);
    write_crc(&mut bytes);
    bytes
}

/// Reads a stored value.
///
/// # Errors
/// [`FailureKind::Damaged`] if a single bit is not as it was stored.
pub(crate) fn decode(bytes: &[u8]) -> Result<Stored<'_>, FailureKind> {
    check_crc(bytes).map_err(|_| FailureKind::Damaged)?;
    let (fixed, name) = bytes
        .split_at_checked(OVERHEAD)
        .ok_or(FailureKind::Damaged)?;
    let header_bytes = fixed.get(CRC_LEN..).ok_or(FailureKind::Damaged)?;
    let header = low::access::<ArchivedHeader, rancor::Failure>(header_bytes)
        .map_err(|_| FailureKind::Damaged)?;
    if name.len() != header.name_len as usize {
        return Err(FailureKind::Damaged);
    }
    let account = Account {
        head: header.head.to_native(),
        burned_messages: header.burned_messages.to_native(),
        burned_bytes: header.burned_bytes.to_native(),
        last_seen_ms: header.last_seen_ms.to_native(),
    };
    let tail = Tail {
        sequence: header.tail_sequence.to_native(),
        ordinal: header.tail_ordinal.to_native(),
        cumulative_bytes: header.tail_cumulative_bytes.to_native(),
    };
    Ok(Stored {
        account,
        tail,
        tail_life: header.tail_life.to_native(),
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Stored<'static> = Stored {
        account: Account {
            head: 1,
            burned_messages: 2,
            burned_bytes: 3,
            last_seen_ms: 4,
        },
        tail: Tail {
            sequence: 6,
            ordinal: 7,
            cumulative_bytes: 8,
        },
        tail_life: 5,
        name: b"anna",
    };

    #[test]
    fn an_account_reads_as_it_was_encoded() {
        assert_eq!(decode(&encode(&SAMPLE)), Ok(SAMPLE));
    }

    #[test]
    fn every_single_bit_flip_and_every_cut_is_caught() {
        let bytes = encode(&SAMPLE);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), Err(FailureKind::Damaged), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(
                decode(&bytes[..len]),
                Err(FailureKind::Damaged),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn the_layout_is_the_written_one() {
        let mut expected = Vec::new();
        for field in 1u64..=8 {
            expected.extend_from_slice(&field.to_le_bytes());
        }
        expected.push(4);
        expected.extend_from_slice(b"anna");
        assert_eq!(&encode(&SAMPLE)[CRC_LEN..], &expected[..]);
    }
}
