//! The id of a message: the same for every copy of it, so that a repeat can be told.
//!
//! Invariant: an id is made of things a repeat has in common with the first try (the sender's name
//! and the sender's own number), never of a clock or of a place in memory.

use std::fmt;

/// The largest sequence number a client may give to a send. The smallest is 1.
///
/// Numbers with the top bit set are the gateway's own: it gives them to messages of classic
/// senders, who have no numbers, so the two kinds never collide.
pub const SEQUENCE_MAX: u64 = (1 << 63) - 1;

/// The id of one message, 16 bytes on the wire: `sender`, then `number`, both big-endian.
///
/// To a client it is 16 opaque bytes to compare. As text it is 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageId {
    /// Hash of the sender's name, the same for as long as the gateway's store lives.
    pub sender: u64,
    /// The sender's own number for this message, or one of the gateway's above [`SEQUENCE_MAX`].
    pub number: u64,
}

impl MessageId {
    /// Length on the wire in bytes.
    pub const LEN: usize = 16;

    /// The id as it is on the wire.
    #[inline]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        ((u128::from(self.sender) << 64) | u128::from(self.number)).to_be_bytes()
    }

    /// Reads an id from its wire bytes. Any 16 bytes are an id.
    #[inline]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> MessageId {
        let both = u128::from_be_bytes(bytes);
        MessageId {
            sender: (both >> 64) as u64,
            number: both as u64,
        }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.sender, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_comes_first_and_text_is_the_bytes_in_hex() {
        let id = MessageId {
            sender: 0x0102_0304_0506_0708,
            number: 0x090a_0b0c_0d0e_0f10,
        };
        assert_eq!(id.to_bytes(), std::array::from_fn(|at| at as u8 + 1));
        assert_eq!(MessageId::from_bytes(id.to_bytes()), id);
        assert_eq!(id.to_string(), "0102030405060708090a0b0c0d0e0f10");
        let small = MessageId {
            sender: 0,
            number: 1,
        };
        assert_eq!(small.to_string(), "00000000000000000000000000000001");
    }
}
