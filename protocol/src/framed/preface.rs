//! The first eight bytes of a framed connection: which protocol, which version.
//!
//! Invariant: a byte that cannot belong to a preface is found as soon as it is seen.

use crate::CloseReason;

/// What a client of this version sends first: `IRIS`, major, minor, two reserved bytes.
pub const PREFACE: [u8; 8] = [b'I', b'R', b'I', b'S', VERSION_MAJOR, VERSION_MINOR, 0, 0];

/// Length of the preface in bytes.
pub const PREFACE_LEN: usize = PREFACE.len();

/// The major version: another one is another language.
pub const VERSION_MAJOR: u8 = 1;

/// The minor version: a higher one adds options, optional kinds and codes.
pub const VERSION_MINOR: u8 = 0;

/// What the client's preface says. It took [`PREFACE_LEN`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preface {
    /// Always [`VERSION_MAJOR`].
    pub major: u8,
    /// The client's minor version, which may be higher than [`VERSION_MINOR`].
    pub minor: u8,
}

/// Decodes the preface at the start of `input`. `Ok(None)` asks for more bytes.
///
/// The two reserved bytes are sent as 0 and not looked at, so that a minor version may use them.
pub fn preface(input: &[u8]) -> Result<Option<Preface>, CloseReason> {
    if input.iter().zip(b"IRIS").any(|(byte, magic)| byte != magic) {
        return Err(CloseReason::UnknownProtocol);
    }
    if input.get(4).is_some_and(|&major| major != VERSION_MAJOR) {
        return Err(CloseReason::UnsupportedVersion);
    }
    let whole = input.first_chunk::<PREFACE_LEN>();
    Ok(whole.map(|&[.., major, minor, _, _]| Preface { major, minor }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_comes_with_the_byte_that_decides_it() {
        for cut in 0..PREFACE_LEN {
            assert_eq!(preface(&PREFACE[..cut]), Ok(None));
        }
        for at in 0..4 {
            let mut bytes = PREFACE;
            bytes[at] ^= 0x20;
            for cut in 0..=PREFACE_LEN {
                let expected = if cut <= at {
                    Ok(None)
                } else {
                    Err(CloseReason::UnknownProtocol)
                };
                assert_eq!(preface(&bytes[..cut]), expected);
            }
        }
        assert_eq!(preface(b"IRIS\x02"), Err(CloseReason::UnsupportedVersion));
        assert_eq!(
            preface(b"IRIS\x00\x09\x00\x00"),
            Err(CloseReason::UnsupportedVersion)
        );
    }

    #[test]
    fn higher_minor_and_reserved_bytes_are_taken() {
        assert_eq!(
            preface(b"IRIS\x01\x07\xaa\xbb and what follows"),
            Ok(Some(Preface { major: 1, minor: 7 }))
        );
    }
}
