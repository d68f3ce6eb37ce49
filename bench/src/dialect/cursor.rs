//! Reading off the front of what a server said, for protocols made of lines, lengths and counts.
//!
//! Invariant: a read that stops leaves nothing to undo: a dialect changes its state only when it
//! has read a whole unit, and begins anew at the unit's first byte when more has come.

use std::ops::Range;

use super::Garbled;

/// The longest line of any server, in bytes: the greeting of a NATS server is a few hundred.
const LINE_MAX: usize = 32 * 1024;

/// Why a read ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The rest has not come yet.
    Incomplete,
    /// It is not the protocol.
    Garbled,
}

/// A place in some bytes. Ranges are counted from their first byte.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Reads every whole unit of `bytes` by `unit`; answers how many bytes these took.
    pub(super) fn all(
        bytes: &'a [u8],
        mut unit: impl FnMut(&mut Self) -> Result<(), Stop>,
    ) -> Result<usize, Garbled> {
        let mut cursor = Self { bytes, at: 0 };
        loop {
            let begin = cursor.at;
            match unit(&mut cursor) {
                Ok(()) => {}
                Err(Stop::Incomplete) => return Ok(begin),
                Err(Stop::Garbled) => return Err(Garbled),
            }
        }
    }

    /// A cursor that stands at `at`.
    pub(super) fn starting_at(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// How far it was read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// What stands in a range.
    pub(super) fn slice(&self, range: Range<usize>) -> &'a [u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<Range<usize>, Stop> {
        let end = self.at.checked_add(len).ok_or(Stop::Garbled)?;
        if end > self.bytes.len() {
            return Err(Stop::Incomplete);
        }
        let from = std::mem::replace(&mut self.at, end);
        Ok(from..end)
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Result<u8, Stop> {
        let byte = *self.bytes.get(self.at).ok_or(Stop::Incomplete)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next two bytes, big-endian.
    pub(super) fn number_u16(&mut self) -> Result<u16, Stop> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// The next line, without its CR LF.
    pub(super) fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(end) = rest.iter().take(LINE_MAX).position(|&byte| byte == b'\n') else {
            return Err(if rest.len() < LINE_MAX {
                Stop::Incomplete
            } else {
                Stop::Garbled
            });
        };
        self.at += end + 1;
        rest.get(..end)
            .and_then(|line| line.strip_suffix(b"\r"))
            .ok_or(Stop::Garbled)
    }

    /// CR LF, and nothing else.
    pub(super) fn line_end(&mut self) -> Result<(), Stop> {
        match (self.byte()?, self.byte()?) {
            (b'\r', b'\n') => Ok(()),
            _ => Err(Stop::Garbled),
        }
    }
}

/// A decimal number, with a sign or without.
pub(super) fn number<T: std::str::FromStr>(digits: &[u8]) -> Result<T, Stop> {
    let text = str::from_utf8(digits).map_err(|_| Stop::Garbled)?;
    text.parse().map_err(|_| Stop::Garbled)
}

/// Text of a server, for people.
pub(super) fn text(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into()
}

/// Appends a decimal number.
pub(super) fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let (mut digits, mut from) = ([0; 20], 20);
    loop {
        from -= 1;
        digits[from] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[from..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for value in [0, 9, 10, 12_345, u64::MAX] {
            let mut out = Vec::new();
            write_number(&mut out, value);
            assert_eq!(out, value.to_string().as_bytes());
            assert_eq!(number(&out), Ok(value));
        }
        assert_eq!(number::<u64>(b"-1"), Err(Stop::Garbled));
        assert_eq!(number::<i64>(b"-1"), Ok(-1));
    }

    #[test]
    fn a_line_without_end_is_waited_for_but_not_for_ever() {
        let endless = vec![b'x'; LINE_MAX];
        let line = |cursor: &mut Cursor<'_>| cursor.line().map(drop);
        assert_eq!(Cursor::all(&endless[1..], line), Ok(0));
        assert_eq!(Cursor::all(&endless, line), Err(Garbled));
        assert_eq!(Cursor::all(b"a\r\n\r\nb", line), Ok(5));
        assert_eq!(Cursor::all(b"a\n", line), Err(Garbled));
    }
}
