//! The message that clients send each other: it says how long it is, when it was due, on which
//! stream it belongs and as which of that stream, so that its reader can find loss, disorder,
//! repeats and strays.
//!
//! Layout, little-endian, since only we read it: mark u32, length u32 (of all of it), due u64
//! (ns, see [`super::clock`]), stream u32, number u32 (of the stream, from 1), then zeroes.

use crate::dialect::Garbled;

/// Told apart from anything a server might say of itself.
const MARK: u32 = 0x4952_4953;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// When it ought to have been sent, in ns.
    pub due_ns: u64,
    /// From whom to whom: an index into the streams of the run.
    pub stream: u32,
    /// Its number in the stream, 1 and up.
    pub number: u32,
}

impl Message {
    /// The shortest message in bytes: what it has to say.
    pub const BYTES_MIN: u32 = 24;
    /// The longest: what a classic length can say.
    pub const BYTES_MAX: u32 = 65_535;

    /// Writes the message in `len` bytes, in [`Self::BYTES_MIN`] if that is more, over the front of
    /// another one that was written here before, if any, and answers these bytes. What is behind
    /// them stays, so that messages of changing length are not filled with zeroes again and again.
    #[inline(always)]
    pub fn encode_over<'a>(&self, out: &'a mut Vec<u8>, len: u32) -> &'a [u8] {
        let len = len.max(Self::BYTES_MIN);
        if out.len() < len as usize {
            out.resize(len as usize, 0);
        }
        if let Some(head) = out.first_chunk_mut::<{ Self::BYTES_MIN as usize }>() {
            head[..4].copy_from_slice(&MARK.to_le_bytes());
            head[4..8].copy_from_slice(&len.to_le_bytes());
            head[8..16].copy_from_slice(&self.due_ns.to_le_bytes());
            head[16..20].copy_from_slice(&self.stream.to_le_bytes());
            head[20..].copy_from_slice(&self.number.to_le_bytes());
        }
        &out[..len as usize]
    }

    /// The length of the message that `bytes` begin with; `None` if that is not there yet.
    ///
    /// # Errors
    /// No message of ours begins like this.
    pub fn len(bytes: &[u8]) -> Result<Option<usize>, Garbled> {
        let Some((mark, rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        if u32::from_le_bytes(*mark) != MARK {
            return Err(Garbled);
        }
        let Some(len) = rest.first_chunk() else {
            return Ok(None);
        };
        match u32::from_le_bytes(*len) {
            len @ Self::BYTES_MIN..=Self::BYTES_MAX => Ok(Some(len as usize)),
            _ => Err(Garbled),
        }
    }

    /// Reads a whole message back; `None` if the bytes are none of ours.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if Self::len(bytes) != Ok(Some(bytes.len())) {
            return None;
        }
        let (due_ns, rest) = bytes.get(8..)?.split_first_chunk()?;
        let (stream, rest) = rest.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        Some(Self {
            due_ns: u64::from_le_bytes(*due_ns),
            stream: u32::from_le_bytes(*stream),
            number: u32::from_le_bytes(*number),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_wrote_and_nothing_else() {
        let message = Message {
            due_ns: u64::MAX - 1,
            stream: 123_456,
            number: 77,
        };
        let mut over = Vec::new();
        for len in [0, 24, 65_535, 25, 64] {
            let mut bytes = message.encode_over(&mut over, len).to_vec();
            assert_eq!(bytes.len(), len.max(24) as usize);
            assert_eq!(Message::len(&bytes), Ok(Some(bytes.len())));
            assert_eq!(Message::decode(&bytes), Some(message));
            bytes.push(0);
            assert_eq!(Message::decode(&bytes), None);
            bytes[0] ^= 1;
            assert_eq!(Message::len(&bytes), Err(Garbled));
        }
        assert_eq!(Message::len(&MARK.to_le_bytes()), Ok(None));
    }
}
