//! The file FORMAT: version of the data folder, key of the users' names, number of databases, as lines of text.
//!
//! Used while the store opens. Invariants: it is written as a whole and synced; nothing of it is believed without its
//! CRC, since another key would lead every user to an empty inbox; of another version only the number is read.

use std::io::Read;
use std::path::Path;

use super::{FILE_LEN_MAX, failed};
use crate::error::StoreError;
use crate::name_key::NameKey;
use crate::options::DATABASES_MAX;
use crate::synced_file;

/// Version of the layout of the folder and of everything in it. No other is read.
const VERSION: u32 = 3;
const TITLE: &str = "iris inbox store";

/// What FORMAT says besides the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) name_key: NameKey,
    pub(super) databases: usize,
}

/// Writes the file of a new folder, with a random key.
pub(super) fn create(path: &Path, databases: usize) -> Result<Format, StoreError> {
    let format = Format {
        name_key: NameKey::draw().map_err(failed(Path::new("/dev/urandom"), "reading"))?,
        databases: databases.clamp(1, DATABASES_MAX),
    };
    write(path, &format)?;
    Ok(format)
}

/// Writes the file in place of the one that is there.
pub(super) fn write(path: &Path, format: &Format) -> Result<(), StoreError> {
    synced_file::replace(path, text_of(format).as_bytes()).map_err(failed(path, "writing"))
}

fn text_of(format: &Format) -> String {
    let Format {
        name_key,
        databases,
    } = format;
    let key = name_key.number();
    let text = format!("{TITLE}\nversion {VERSION}\nkey {key:032x}\ndatabases {databases}\n");
    let crc = crc32fast::hash(text.as_bytes());
    text + &format!("crc {crc:08x}\n")
}

/// What the file says, if it is of our version.
pub(super) fn read(path: &Path) -> Result<Format, StoreError> {
    let mut bytes = Vec::new();
    synced_file::open(path)
        .and_then(|file| file.take(FILE_LEN_MAX).read_to_end(&mut bytes))
        .map_err(failed(path, "reading"))?;
    // What is no text does not match its CRC either.
    parse(&String::from_utf8_lossy(&bytes)).map_err(|problem| match problem {
        Problem::Version(found) if found > VERSION => StoreError::Newer {
            path: path.to_path_buf(),
            found,
            known: VERSION,
        },
        Problem::Version(found) => StoreError::Older {
            path: path.to_path_buf(),
            found,
            known: VERSION,
        },
        Problem::Damaged(what) => StoreError::Damaged {
            path: path.to_path_buf(),
            what: what.to_string(),
        },
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    /// Written whole, in another version than ours.
    Version(u32),
    Damaged(&'static str),
}

fn parse(text: &str) -> Result<Format, Problem> {
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(Problem::Damaged("the first line is not ours"));
    }
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("version ")?.parse::<u32>().ok());
    match version {
        Some(VERSION) => {}
        // Another version may have other lines; its number, and that the last line is the CRC of all before it, is all
        // this program may read of it.
        Some(found) if ends_in_its_crc(text) => return Err(Problem::Version(found)),
        _ => return Err(Problem::Damaged("no version")),
    }
    let key = lines
        .next()
        .and_then(|line| u128::from_str_radix(line.strip_prefix("key ")?, 16).ok())
        .ok_or(Problem::Damaged("no key"))?;
    let databases = lines
        .next()
        .and_then(|line| line.strip_prefix("databases ")?.parse::<usize>().ok())
        .filter(|databases| (1..=DATABASES_MAX).contains(databases))
        .ok_or(Problem::Damaged("no number of databases"))?;
    let format = Format {
        name_key: NameKey::new(key),
        databases,
    };
    // A flipped digit of the key would lead every user to an empty inbox.
    if text != text_of(&format) {
        return Err(Problem::Damaged("the CRC does not match"));
    }
    Ok(format)
}

fn ends_in_its_crc(text: &str) -> bool {
    text.trim_end()
        .rsplit_once("crc ")
        .is_some_and(|(before, crc)| {
            u32::from_str_radix(crc, 16) == Ok(crc32fast::hash(before.as_bytes()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format {
        name_key: NameKey::new(0xfeed),
        databases: 3,
    };

    #[test]
    fn the_format_reads_as_it_was_written() {
        assert_eq!(parse(&text_of(&FORMAT)), Ok(FORMAT));
    }

    #[test]
    fn a_key_with_a_flipped_digit_is_not_believed() {
        let text = text_of(&FORMAT);
        for flipped in [text.replace("feed", "feee"), text.replace("s 3", "s 2")] {
            assert_eq!(
                parse(&flipped),
                Err(Problem::Damaged("the CRC does not match"))
            );
        }
        assert_eq!(
            parse(&text.replace("s 3", "s 0")),
            Err(Problem::Damaged("no number of databases"))
        );
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        for version in [VERSION - 1, VERSION + 1] {
            let other = format!("{TITLE}\nversion {version}\nanything else\n");
            let crc = crc32fast::hash(other.as_bytes());
            let whole = format!("{other}crc {crc:08x}\n");
            assert_eq!(parse(&whole), Err(Problem::Version(version)));
            // A flipped digit makes no other version.
            for damaged in [other, whole.replace("else", "less")] {
                assert!(matches!(parse(&damaged), Err(Problem::Damaged(_))));
            }
        }
        assert_eq!(parse(TITLE), Err(Problem::Damaged("no version")));
        assert_eq!(
            parse(""),
            Err(Problem::Damaged("the first line is not ours"))
        );
    }
}
