//! A message as it lies in the store.
//!
//! Pure functions. Layout, no padding, integers little-endian:
//! `crc32 u32 | header (rkyv, fixed 49 bytes) | sender | payload`; the CRC covers all that follows it.
//!
//! Who fills what: a core encodes everything it knows with [`encode`]; the committer alone knows where in the
//! inbox the message will stand, and puts `ordinal`, `cumulative_bytes` and the CRC in place (`seal`), without
//! moving the rest. Until then the CRC is not valid, so a record that never passed the committer is never taken
//! for a stored one. Reading checks the CRC first: rkyv's own check finds about one bit flip in ten.

use rkyv::api::low;
use rkyv::rancor;
use rkyv::ser::allocator::SubAllocator;
use rkyv::ser::writer::Buffer;
use rkyv::{Archive, Serialize};
use thiserror::Error;

/// What stands at fixed places in each message.
#[derive(Archive, Serialize)]
struct Header {
    id_sender: u64,
    id_number: u64,
    sent_at_ms: u64,
    expires_at_ms: u64,
    ordinal: u64,
    cumulative_bytes: u64,
    sender_len: u8,
}

pub(crate) const CRC_LEN: usize = 4;
const HEADER_LEN: usize = size_of::<ArchivedHeader>();
/// Bytes of a record besides its sender and payload.
pub const OVERHEAD: usize = CRC_LEN + HEADER_LEN;
/// The longest record: a sender of 255 bytes and a payload of 1 MiB, with room to spare.
pub const RECORD_LEN_MAX: usize = 2 * 1024 * 1024;

// The layout on disk: it may change only together with the number in the FORMAT file.
const _: () = assert!(HEADER_LEN == 49 && align_of::<ArchivedHeader>() == 1);

/// A message to be stored, as the core that appends it knows it.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Message id, first half: the hash of the sender's name.
    pub id_sender: u64,
    /// Message id, second half: the sender's sequence number.
    pub id_number: u64,
    /// When it was sent, Unix milliseconds.
    pub sent_at_ms: u64,
    /// From when on it is not delivered any more, Unix milliseconds; 0: never expires.
    pub expires_at_ms: u64,
    /// Sender's name, at most 255 bytes.
    pub sender: &'a str,
    /// The message itself.
    pub payload: &'a [u8],
}

/// A stored message, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Message id, first half: the hash of the sender's name.
    pub id_sender: u64,
    /// Message id, second half: the sender's sequence number.
    pub id_number: u64,
    /// When it was sent, Unix milliseconds.
    pub sent_at_ms: u64,
    /// From when on it is not delivered any more, Unix milliseconds; 0: never expires.
    pub expires_at_ms: u64,
    /// The how-manieth message of this inbox it is, from 1.
    pub ordinal: u64,
    /// Bytes of all records of this inbox up to and with this one.
    pub cumulative_bytes: u64,
    /// Sender's name.
    pub sender: &'a str,
    /// The message itself.
    pub payload: &'a [u8],
}

impl RecordView<'_> {
    /// Whether its time to live is over.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        is_expired(self.expires_at_ms, now_ms)
    }
}

/// Why bytes are not a sound record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Too short for its header, or for the sender the header speaks of.
    #[error("the record is cut short")]
    Truncated,
    /// Longer than any record may be.
    #[error("the record is longer than {RECORD_LEN_MAX} bytes")]
    TooLong,
    /// The CRC does not match: bits were flipped, or the record was never stored.
    #[error("the record's CRC does not match")]
    Crc,
    /// The sender's name is not UTF-8.
    #[error("the record's sender is not UTF-8")]
    Sender,
}

/// Appends one record to `out`, which should be empty: a request holds one record.
///
/// `out` grows by exactly [`OVERHEAD`] + sender + payload. A sender longer than 255 bytes is cut at a character,
/// because names that long do not get past the protocol.
pub fn encode(out: &mut Vec<u8>, record: &NewRecord<'_>) {
    let sender_len = record.sender.floor_char_boundary(u8::MAX as usize);
    let sender = record.sender.get(..sender_len).unwrap_or_default();
    let header = Header {
        id_sender: record.id_sender,
        id_number: record.id_number,
        sent_at_ms: record.sent_at_ms,
        expires_at_ms: record.expires_at_ms,
        ordinal: 0,
        cumulative_bytes: 0,
        sender_len: sender_len as u8,
    };
    let mut header_bytes = [0u8; HEADER_LEN];
    write_fixed(&header, &mut header_bytes);
    out.reserve_exact(OVERHEAD + sender.len() + record.payload.len());
    out.extend_from_slice(&[0; CRC_LEN]);
    out.extend_from_slice(&header_bytes);
    out.extend_from_slice(sender.as_bytes());
    out.extend_from_slice(record.payload);
}

/// Reads a stored record in place, after checking its CRC.
///
/// # Errors
/// If a single bit of it is not as it was stored.
pub fn view(bytes: &[u8]) -> Result<RecordView<'_>, RecordError> {
    check_crc(bytes)?;
    let (header, rest) = split(bytes)?;
    let (sender, payload) = rest
        .split_at_checked(header.sender_len as usize)
        .ok_or(RecordError::Truncated)?;
    Ok(RecordView {
        id_sender: header.id_sender.to_native(),
        id_number: header.id_number.to_native(),
        sent_at_ms: header.sent_at_ms.to_native(),
        expires_at_ms: header.expires_at_ms.to_native(),
        ordinal: header.ordinal.to_native(),
        cumulative_bytes: header.cumulative_bytes.to_native(),
        sender: std::str::from_utf8(sender).map_err(|_| RecordError::Sender)?,
        payload,
    })
}

/// Puts the record in its place in an inbox: the running totals, then the CRC over everything.
///
/// # Errors
/// If `bytes` did not come from [`encode`]. Nothing is changed then.
pub fn seal(bytes: &mut [u8], ordinal: u64, cumulative_bytes: u64) -> Result<(), RecordError> {
    if bytes.len() > RECORD_LEN_MAX {
        return Err(RecordError::TooLong);
    }
    let (header, rest) = split(bytes)?;
    if rest.len() < header.sender_len as usize {
        return Err(RecordError::Truncated);
    }
    let placed = Header {
        id_sender: header.id_sender.to_native(),
        id_number: header.id_number.to_native(),
        sent_at_ms: header.sent_at_ms.to_native(),
        expires_at_ms: header.expires_at_ms.to_native(),
        ordinal,
        cumulative_bytes,
        sender_len: header.sender_len,
    };
    write_fixed(
        &placed,
        bytes
            .get_mut(CRC_LEN..OVERHEAD)
            .ok_or(RecordError::Truncated)?,
    );
    write_crc(bytes);
    Ok(())
}

/// Whether the record says it has expired, without checking it: good for a first sieve, not for a verdict.
pub(crate) fn claims_expired(bytes: &[u8], now_ms: u64) -> bool {
    split(bytes).is_ok_and(|(header, _)| is_expired(header.expires_at_ms.to_native(), now_ms))
}

/// The sender's name as it stands in the record, without checking it; `None` if that is cut short.
pub(crate) fn sender(bytes: &[u8]) -> Option<&[u8]> {
    let (header, rest) = split(bytes).ok()?;
    rest.get(..usize::from(header.sender_len))
}

fn is_expired(expires_at_ms: u64, now_ms: u64) -> bool {
    expires_at_ms != 0 && expires_at_ms <= now_ms
}

fn split(bytes: &[u8]) -> Result<(&ArchivedHeader, &[u8]), RecordError> {
    let (fixed, rest) = bytes
        .split_at_checked(OVERHEAD)
        .ok_or(RecordError::Truncated)?;
    let header_bytes = fixed.get(CRC_LEN..).ok_or(RecordError::Truncated)?;
    let header = low::access::<ArchivedHeader, rancor::Failure>(header_bytes)
        .map_err(|_| RecordError::Truncated)?;
    Ok((header, rest))
}

/// Serialises a struct of plain integers into exactly the bytes of its archived form.
pub(crate) fn write_fixed<T>(value: &T, out: &mut [u8])
where
    T: for<'a> Serialize<low::LowSerializer<Buffer<'a>, SubAllocator<'a>, rancor::Failure>>,
{
    low::to_bytes_in_with_alloc::<_, _, rancor::Failure>(
        value,
        Buffer::from(out),
        SubAllocator::empty(),
    )
    .expect("a struct of integers needs no more than its archived size, which the caller gives");
}

/// Writes the CRC of all that follows it into the first four bytes, if there are as many.
pub(crate) fn write_crc(bytes: &mut [u8]) {
    if let Some((crc, rest)) = bytes.split_first_chunk_mut::<CRC_LEN>() {
        *crc = crc32fast::hash(rest).to_le_bytes();
    }
}

/// Holds the CRC in the first four bytes against all that follows it.
pub(crate) fn check_crc(bytes: &[u8]) -> Result<(), RecordError> {
    let (crc, rest) = bytes
        .split_first_chunk::<CRC_LEN>()
        .ok_or(RecordError::Truncated)?;
    if u32::from_le_bytes(*crc) == crc32fast::hash(rest) {
        Ok(())
    } else {
        Err(RecordError::Crc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(
            &mut bytes,
            &NewRecord {
                id_sender: 1,
                id_number: 2,
                sent_at_ms: 3,
                expires_at_ms: 4,
                sender: "anna",
                payload: b"hello",
            },
        );
        bytes
    }

    #[test]
    fn a_sealed_record_reads_as_it_was_encoded() {
        let mut bytes = sample();
        assert_eq!(bytes.len(), OVERHEAD + 4 + 5);
        assert_eq!(bytes.capacity(), bytes.len());
        seal(&mut bytes, 7, 900).expect("sealed");
        let view = view(&bytes).expect("sound");
        let expected = RecordView {
            id_sender: 1,
            id_number: 2,
            sent_at_ms: 3,
            expires_at_ms: 4,
            ordinal: 7,
            cumulative_bytes: 900,
            sender: "anna",
            payload: b"hello",
        };
        assert_eq!(view, expected);
        assert!(view.is_expired(4) && !view.is_expired(3));
    }

    #[test]
    fn a_record_that_was_not_sealed_is_not_a_stored_one() {
        assert_eq!(view(&sample()), Err(RecordError::Crc));
    }

    #[test]
    fn every_single_bit_flip_is_caught() {
        let mut bytes = sample();
        seal(&mut bytes, 1, 1).expect("sealed");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(view(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_caught() {
        let mut bytes = sample();
        seal(&mut bytes, 1, 1).expect("sealed");
        for len in 0..bytes.len() {
            assert!(view(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn what_is_not_a_record_is_not_sealed() {
        assert_eq!(
            seal(&mut [0; OVERHEAD - 1], 1, 1),
            Err(RecordError::Truncated)
        );
        let mut cut = sample();
        cut.truncate(OVERHEAD + 3);
        assert_eq!(seal(&mut cut, 1, 1), Err(RecordError::Truncated));
        assert_eq!(
            seal(&mut vec![0; RECORD_LEN_MAX + 1], 1, 1),
            Err(RecordError::TooLong)
        );
    }

    /// The bytes on disk, spelt out: little-endian, in the order of the fields, nothing between them.
    #[test]
    fn the_layout_is_the_written_one() {
        let mut bytes = sample();
        seal(&mut bytes, 5, 6).expect("sealed");
        let mut expected = Vec::new();
        for field in [1u64, 2, 3, 4, 5, 6] {
            expected.extend_from_slice(&field.to_le_bytes());
        }
        expected.push(4);
        expected.extend_from_slice(b"annahello");
        assert_eq!(&bytes[CRC_LEN..], &expected[..]);
        assert_eq!(bytes[..CRC_LEN], crc32fast::hash(&expected).to_le_bytes());
    }
}
