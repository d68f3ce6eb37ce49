//! The message that load scenarios send: it says who sent it, to whom, when it was due, and its
//! number, so that the far end can free the sender's window and find loss, disorder and strays.
//!
//! Layout, little-endian, since only we read it: due u64 (ns since the engine began), number u64
//! (the sender's own), sender u32, reader u32, a mark u64, zeroes to [`MESSAGE_BYTES`].

/// Bytes of a message.
pub(crate) const MESSAGE_BYTES: usize = 64;
/// Told apart from anything a server might say of itself.
const MARK: u64 = 0x4952_4953_4c4f_4144;

/// One message of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    /// When it ought to have been sent, in ns since the engine began.
    pub(crate) due_ns: u64,
    /// The sender's own number, rising.
    pub(crate) number: u64,
    /// Index of the connection that sent it.
    pub(crate) sender: u32,
    /// Index of the connection it is for.
    pub(crate) reader: u32,
}

impl Message {
    /// The bytes on the wire.
    pub(crate) fn encode(&self) -> [u8; MESSAGE_BYTES] {
        let mut bytes = [0; MESSAGE_BYTES];
        bytes[0..8].copy_from_slice(&self.due_ns.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.sender.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.reader.to_le_bytes());
        bytes[24..32].copy_from_slice(&MARK.to_le_bytes());
        bytes
    }

    /// Reads the bytes back; `None` if they are no message of ours.
    pub(crate) fn decode(bytes: &[u8; MESSAGE_BYTES]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<8>();
        let word = |n: usize| words.get(n).map(|word| u64::from_le_bytes(*word));
        let ends = word(2)?;
        (word(3)? == MARK).then_some(Self {
            due_ns: word(0)?,
            number: word(1)?,
            sender: ends as u32,
            reader: (ends >> 32) as u32,
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
            number: 77,
            sender: 123_456,
            reader: 9,
        };
        let mut bytes = message.encode();
        assert_eq!(Message::decode(&bytes), Some(message));
        bytes[30] ^= 1;
        assert_eq!(Message::decode(&bytes), None);
    }
}
