//! The file FORMAT: version of the data folder, seed of the user hashes, number of databases, as lines of text.
//!
//! Used while the store opens. Invariants: it is written as a whole and synced; nothing of it is believed without its
//! CRC, since another seed would lead every user to an empty inbox; of a newer version only the number is read.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{FILE_LEN_MAX, failed};
use crate::error::StoreError;
use crate::options::DATABASES_MAX;
use crate::synced_file;

/// Version of the layout of the folder and of everything in it.
pub(super) const VERSION: u32 = 2;
/// The version before there could be several databases.
pub(super) const VERSION_ONE: u32 = 1;
const TITLE: &str = "iris inbox store";

/// What FORMAT says besides the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) seed: u64,
    pub(super) databases: usize,
}

/// Writes the file of a new folder, with a random seed.
pub(super) fn create(path: &Path, databases: usize) -> Result<Format, StoreError> {
    let mut seed = [0u8; 8];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut seed))
        .map_err(failed(Path::new("/dev/urandom"), "reading"))?;
    let format = Format {
        seed: u64::from_le_bytes(seed),
        databases: databases.clamp(1, DATABASES_MAX),
    };
    write(path, &format)?;
    Ok(format)
}

/// Writes the file in place of the one that is there.
pub(super) fn write(path: &Path, format: &Format) -> Result<(), StoreError> {
    synced_file::replace(path, text_of(VERSION, format).as_bytes()).map_err(failed(path, "writing"))
}

fn text_of(version: u32, format: &Format) -> String {
    let Format { seed, databases } = format;
    let mut text = format!("{TITLE}\nversion {version}\nseed {seed:016x}\n");
    if version > VERSION_ONE {
        text += &format!("databases {databases}\n");
    }
    let crc = crc32fast::hash(text.as_bytes());
    text + &format!("crc {crc:08x}\n")
}

/// The version, which is one we know, and the rest.
pub(super) fn read(path: &Path) -> Result<(u32, Format), StoreError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_LEN_MAX).read_to_end(&mut bytes))
        .map_err(failed(path, "reading"))?;
    // What is no text does not match its CRC either.
    parse(&String::from_utf8_lossy(&bytes)).map_err(|problem| match problem {
        Problem::Newer(found) => StoreError::Newer {
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
    Newer(u32),
    Damaged(&'static str),
}

/// The version and the rest.
fn parse(text: &str) -> Result<(u32, Format), Problem> {
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(Problem::Damaged("the first line is not ours"));
    }
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("version ")?.parse::<u32>().ok());
    let version = match version {
        Some(known @ VERSION_ONE..=VERSION) => known,
        // A newer version may have other lines; its number, and that the last line is the CRC of all before it, is all
        // this program may read of it.
        Some(found) if found > VERSION && ends_in_its_crc(text) => {
            return Err(Problem::Newer(found));
        }
        _ => return Err(Problem::Damaged("no version")),
    };
    let seed = lines
        .next()
        .and_then(|line| u64::from_str_radix(line.strip_prefix("seed ")?, 16).ok())
        .ok_or(Problem::Damaged("no seed"))?;
    let databases = if version == VERSION_ONE {
        1
    } else {
        lines
            .next()
            .and_then(|line| line.strip_prefix("databases ")?.parse::<usize>().ok())
            .filter(|databases| (1..=DATABASES_MAX).contains(databases))
            .ok_or(Problem::Damaged("no number of databases"))?
    };
    let format = Format { seed, databases };
    // A flipped digit of the seed would lead every user to an empty inbox.
    if text != text_of(version, &format) {
        return Err(Problem::Damaged("the CRC does not match"));
    }
    Ok((version, format))
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
        seed: 0xfeed,
        databases: 3,
    };

    #[test]
    fn the_format_reads_as_it_was_written() {
        let text = text_of(VERSION, &FORMAT);
        assert_eq!(parse(&text), Ok((VERSION, FORMAT)));
        let text = text_of(VERSION_ONE, &FORMAT);
        let one = Format {
            databases: 1,
            ..FORMAT
        };
        assert_eq!(parse(&text), Ok((VERSION_ONE, one)));
    }

    #[test]
    fn version_1_reads_as_that_version_wrote_it() {
        let text = "iris inbox store\nversion 1\nseed 000000000000feed\n";
        let text = format!("{text}crc {:08x}\n", crc32fast::hash(text.as_bytes()));
        assert!(matches!(parse(&text), Ok((1, Format { seed: 0xfeed, .. }))));
    }

    #[test]
    fn a_seed_with_a_flipped_digit_is_not_believed() {
        let text = text_of(VERSION, &FORMAT);
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
    fn a_newer_version_is_told_apart_from_damage() {
        let newer = format!("{TITLE}\nversion {}\nanything else\n", VERSION + 1);
        let crc = crc32fast::hash(newer.as_bytes());
        let whole = format!("{newer}crc {crc:08x}\n");
        assert_eq!(parse(&whole), Err(Problem::Newer(VERSION + 1)));
        // A flipped digit makes no newer version.
        for damaged in [newer, whole.replace("else", "less")] {
            assert!(matches!(parse(&damaged), Err(Problem::Damaged(_))));
        }
        assert_eq!(parse(TITLE), Err(Problem::Damaged("no version")));
        assert_eq!(
            parse(""),
            Err(Problem::Damaged("the first line is not ours"))
        );
    }
}
