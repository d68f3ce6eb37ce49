//! What Redis servers and clients say to each other: RESP2, and of RESP3 what a client meets that
//! asks for it.
//!
//! Source of the layout: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use std::ops::Range;

use super::cursor::{Cursor, Stop, number, write_number};

/// The largest string we would take, in bytes.
const STRING_MAX: usize = 8 << 20;
/// The most elements of an aggregate that we would take.
const ELEMENTS_MAX: usize = 1 << 20;

/// One value, or the head of one: the elements of an aggregate follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A string: simple, bulk or verbatim; or any value of one line that is no number.
    String(Range<usize>),
    /// An error, with its text.
    Error(Range<usize>),
    Integer(i64),
    Null,
    /// So many values follow; of a map, twice its pairs.
    Elements(usize),
    /// The same, out of turn: no answer to anything.
    Push(usize),
}

/// Reads one item.
pub(super) fn item(cursor: &mut Cursor<'_>) -> Result<Item, Stop> {
    let begin = cursor.at();
    let line = cursor.line()?;
    let (&kind, rest) = line.split_first().ok_or(Stop::Garbled)?;
    let in_line = begin + 1..begin + line.len();
    match kind {
        b'+' | b',' | b'#' | b'(' => Ok(Item::String(in_line)),
        b'-' => Ok(Item::Error(in_line)),
        b':' => Ok(Item::Integer(number(rest)?)),
        b'_' => Ok(Item::Null),
        b'$' | b'=' | b'*' if rest == b"-1" => Ok(Item::Null),
        b'$' | b'=' => {
            let range = cursor.take(within(rest, STRING_MAX)?)?;
            cursor.line_end()?;
            Ok(Item::String(range))
        }
        b'*' | b'~' => Ok(Item::Elements(within(rest, ELEMENTS_MAX)?)),
        b'%' => Ok(Item::Elements(2 * within(rest, ELEMENTS_MAX)?)),
        b'>' => Ok(Item::Push(within(rest, ELEMENTS_MAX)?)),
        _ => Err(Stop::Garbled),
    }
}

/// Reads an item that must be a string.
pub(super) fn string(cursor: &mut Cursor<'_>) -> Result<Range<usize>, Stop> {
    match item(cursor)? {
        Item::String(range) => Ok(range),
        _ => Err(Stop::Garbled),
    }
}

/// Reads the head of an aggregate that must have `count` elements.
pub(super) fn elements(cursor: &mut Cursor<'_>, count: usize) -> Result<(), Stop> {
    match item(cursor)? {
        Item::Elements(found) if found == count => Ok(()),
        _ => Err(Stop::Garbled),
    }
}

/// Passes over `count` values and everything in them.
pub(super) fn skip(cursor: &mut Cursor<'_>, count: usize) -> Result<(), Stop> {
    let mut left = count;
    while left > 0 {
        left -= 1;
        if let Item::Elements(inner) | Item::Push(inner) = item(cursor)? {
            left += inner;
        }
        if left > ELEMENTS_MAX {
            return Err(Stop::Garbled);
        }
    }
    Ok(())
}

fn within(digits: &[u8], max: usize) -> Result<usize, Stop> {
    number(digits).and_then(|len: usize| {
        if len <= max {
            Ok(len)
        } else {
            Err(Stop::Garbled)
        }
    })
}

/// Appends a command.
pub(super) fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    head(out, words.len());
    words.iter().for_each(|word| argument(out, word));
}

/// Appends the head of a command of `count` words, to be followed by as many arguments.
pub(super) fn head(out: &mut Vec<u8>, count: usize) {
    out.push(b'*');
    write_number(out, count as u64);
    out.extend_from_slice(b"\r\n");
}

/// Appends one word of a command.
pub(super) fn argument(out: &mut Vec<u8>, word: &[u8]) {
    out.push(b'$');
    write_number(out, word.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Garbled;

    #[test]
    fn the_examples_of_the_protocols_own_page_are_read() {
        let bytes =
            b"+OK\r\n-ERR unknown command 'asdf'\r\n:1000\r\n:-1\r\n$5\r\nhello\r\n$0\r\n\r\n\
            $-1\r\n*-1\r\n*0\r\n*2\r\n:1\r\n:2\r\n_\r\n#t\r\n,1.23\r\n=15\r\ntxt:Some string\r\n\
            %2\r\n+first\r\n:1\r\n+second\r\n:2\r\n~1\r\n:3\r\n>1\r\n+x\r\n";
        let mut items = Vec::new();
        let used = Cursor::all(bytes, |cursor| {
            items.push(item(cursor)?);
            Ok(())
        });
        assert_eq!(used, Ok(bytes.len()));
        assert_eq!(items[0], Item::String(1..3));
        assert_eq!(&bytes[6..32], b"ERR unknown command 'asdf'");
        assert_eq!(items[1], Item::Error(6..32));
        assert_eq!(items[2..4], [Item::Integer(1000), Item::Integer(-1)]);
        let Item::String(hello) = items[4].clone() else {
            panic!("no string");
        };
        assert_eq!(&bytes[hello], b"hello");
        assert_eq!(items[6..9], [Item::Null, Item::Null, Item::Elements(0)]);
        assert!(items.contains(&Item::Elements(4)) && items.contains(&Item::Push(1)));
        // As values, wherever they are cut.
        for cut in 0..bytes.len() {
            let values = |bytes| Cursor::all(bytes, |cursor| skip(cursor, 1));
            let used = values(&bytes[..cut]).expect("sound");
            assert_eq!(
                values(&bytes[used..]),
                Ok(bytes.len() - used),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn what_is_no_value_is_garbled() {
        for wrong in [
            "hello\r\n",
            "\r\n",
            "$x\r\n",
            "$99999999\r\n",
            "*9999999\r\n",
            "$1\r\nxyz",
        ] {
            let used = Cursor::all(wrong.as_bytes(), |cursor| skip(cursor, 1));
            assert_eq!(used, Err(Garbled), "{wrong:?}");
        }
    }

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut out = Vec::new();
        command(&mut out, &[b"LLEN", b"mylist"]);
        assert_eq!(out, b"*2\r\n$4\r\nLLEN\r\n$6\r\nmylist\r\n");
    }
}
