//! A user's name: parsed once where bytes enter, valid from then on.
//!
//! Invariant: a [`Name`] is 1 to 255 bytes of UTF-8 without control characters, so it fits a
//! one-byte length, a log line and a terminal as it is.

use std::fmt;

/// A valid user name, borrowed from the bytes it was parsed from.
///
/// Names are compared byte by byte: no case folding, no Unicode normalisation. Two names that look
/// alike may be two users.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<'a>(&'a [u8]);

/// Why bytes are not a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// No byte at all.
    #[error("a name has at least one byte")]
    Empty,
    /// More than [`Name::LEN_MAX`] bytes.
    #[error("a name has at most 255 bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("a name is UTF-8")]
    NotUtf8,
    /// A control character: U+0000 to U+001F, or U+007F to U+009F.
    #[error("a name has no control characters")]
    Control,
}

impl<'a> Name<'a> {
    /// The longest name in bytes: what a one-byte length can say.
    pub const LEN_MAX: usize = 255;

    /// Checks `bytes` and borrows them as a name.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Name<'a>, NameError> {
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        if bytes.len() > Self::LEN_MAX {
            return Err(NameError::TooLong);
        }
        // Nearly every name is this, and needs no decoding.
        let is_printable_ascii = |byte: &u8| (0x20..0x7f).contains(byte);
        if !bytes.iter().all(is_printable_ascii) {
            let text = str::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?;
            if text.chars().any(char::is_control) {
                return Err(NameError::Control);
            }
        }
        Ok(Name(bytes))
    }

    /// The name as text. Looks at all of it again: where names are only compared,
    /// [`Name::as_bytes`] does.
    ///
    /// # Panics
    /// Never: the bytes were UTF-8 when they were parsed.
    pub fn as_str(self) -> &'a str {
        str::from_utf8(self.0).expect("UTF-8 since it was parsed")
    }

    /// The name as it is on the wire, without its length.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Length in bytes, 1 to [`Name::LEN_MAX`]: a name is never empty.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a name is never empty")]
    pub fn len(self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({:?})", self.as_str())
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_1_to_255_bytes_not_characters() {
        assert_eq!(Name::parse(b""), Err(NameError::Empty));
        assert_eq!(Name::parse(b"a").map(Name::len), Ok(1));
        assert_eq!(Name::parse(&[b'a'; 255]).map(Name::len), Ok(255));
        assert_eq!(Name::parse(&[b'a'; 256]), Err(NameError::TooLong));
        let two_byte_characters = "é".repeat(128);
        assert_eq!(
            Name::parse(two_byte_characters.as_bytes()),
            Err(NameError::TooLong)
        );
    }

    #[test]
    fn control_characters_of_both_blocks_are_bad() {
        for code in (0..0x20).chain(0x7f..0xa0) {
            let character = char::from_u32(code).expect("a scalar value");
            for name in [format!("a{character}b"), format!("é{character}")] {
                assert_eq!(Name::parse(name.as_bytes()), Err(NameError::Control));
            }
        }
        for name in [" ", "a b", "~", "\u{a0}", "Zoë", "日本", "🦀"] {
            assert_eq!(Name::parse(name.as_bytes()).map(Name::as_str), Ok(name));
        }
    }

    #[test]
    fn broken_utf8_is_bad() {
        for bytes in [&b"\xff"[..], b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf"] {
            assert_eq!(Name::parse(bytes), Err(NameError::NotUtf8));
        }
    }
}
