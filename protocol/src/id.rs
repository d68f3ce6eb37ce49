//! The id of a message: the same for every copy of it, so that a repeat can be told.
//!
//! Invariant: to whoever sees it, an id is 16 opaque bytes. Nothing is to be read from it: not who sent the message, not
//! how many came before.

use std::fmt;

/// The largest sequence number a client may give to a send. The smallest is 1.
///
/// Numbers with the top bit set are the gateway's own: it gives them to messages of classic
/// senders, who have no numbers, so the two kinds never collide.
pub const SEQUENCE_MAX: u64 = (1 << 63) - 1;

/// The id of one message: 16 bytes to compare. As text it is 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageId([u8; Self::LEN]);

impl MessageId {
    /// Length on the wire in bytes.
    pub const LEN: usize = 16;

    /// The id as it is on the wire.
    #[inline]
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        self.0
    }

    /// Reads an id from its wire bytes. Any 16 bytes are an id.
    #[inline]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> MessageId {
        MessageId(bytes)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_bytes_and_text_is_the_bytes_in_hex() {
        let bytes = std::array::from_fn(|at| at as u8 + 1);
        let id = MessageId::from_bytes(bytes);
        assert_eq!(id.to_bytes(), bytes);
        assert_eq!(id.to_string(), "0102030405060708090a0b0c0d0e0f10");
        let small = MessageId::from_bytes(1u128.to_be_bytes());
        assert_eq!(small.to_string(), "00000000000000000000000000000001");
    }
}
