//! Values as people write them: sizes (`64KiB`), durations (`2s`) and counts, read with the range
//! they must lie in and written so that they read back as the same value; addresses and lists.
//!
//! A duration without a unit is an error, not a guess: whether `5` meant seconds or milliseconds
//! would show only under load. Errors say the allowed range and why it is that range.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Size units, largest first, so that the writer finds the largest that divides the value.
const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Duration units in milliseconds, largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// What a setting may be, and the reason for the limits.
#[derive(Clone, Debug)]
pub struct Bounds<T> {
    /// Allowed values, both ends included.
    pub range: RangeInclusive<T>,
    /// Why it is this range: the end of the sentence "allowed: A to B, because ...".
    pub because: &'static str,
}

impl<T: PartialOrd + Copy> Bounds<T> {
    fn check(&self, value: T, show: impl Fn(T) -> String) -> Result<T, String> {
        if self.range.contains(&value) {
            return Ok(value);
        }
        Err(format!(
            "{} is out of range; allowed: {} to {}, because {}",
            show(value),
            show(*self.range.start()),
            show(*self.range.end()),
            self.because
        ))
    }
}

/// Reads a count such as `4096` or `1_000_000`.
///
/// # Errors
/// A sentence for people: what is wrong and what is allowed.
pub fn count(text: &str, bounds: &Bounds<u32>) -> Result<u32, String> {
    let digits = text.trim().replace('_', "");
    let value: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is not a whole number"))?;
    let bounds = widen(bounds);
    narrow(bounds.check(value, |value| value.to_string())?)
}

/// Reads a size such as `64KiB`, `1MiB` or `65536` (bytes).
///
/// # Errors
/// A sentence for people: what is wrong and what is allowed.
pub fn size(text: &str, bounds: &Bounds<u32>) -> Result<u32, String> {
    narrow(large_size(text, &widen(bounds))?)
}

/// Reads a size that memory does not bound, such as `100GiB`.
///
/// # Errors
/// A sentence for people: what is wrong and what is allowed.
pub fn large_size(text: &str, bounds: &Bounds<u64>) -> Result<u64, String> {
    let (digits, unit) = split(text);
    let unit = if unit.is_empty() { "B" } else { unit };
    let bytes = scaled(digits, unit, &SIZE_UNITS)
        .ok_or_else(|| format!("{text:?} is not a size; write it as 65536, 64KiB or 1MiB"))?;
    bounds.check(bytes, |bytes| ByteSize(bytes).to_string())
}

/// Reads a duration such as `250ms`, `2s`, `5min`, `1h` or `30d`.
///
/// # Errors
/// A sentence for people: what is wrong and what is allowed.
pub fn duration(text: &str, bounds: &Bounds<Duration>) -> Result<Duration, String> {
    let (digits, unit) = split(text);
    if unit.is_empty() && !digits.is_empty() {
        return Err(format!(
            "{text:?} has no unit; write it as {digits}s, {digits}ms, {digits}min, {digits}h or {digits}d"
        ));
    }
    let unit = if unit == "m" { "min" } else { unit };
    let millis = scaled(digits, unit, &DURATION_UNITS).ok_or_else(|| {
        format!("{text:?} is not a duration; write it as 250ms, 2s, 5min, 1h or 30d")
    })?;
    bounds.check(Duration::from_millis(millis), |value| {
        Span(value).to_string()
    })
}

/// The parts of a list, between commas.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

/// An address with its port.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is not an address with a port, such as 127.0.0.1:8085 or [::]:8085")
    })
}

fn widen(bounds: &Bounds<u32>) -> Bounds<u64> {
    Bounds {
        range: u64::from(*bounds.range.start())..=u64::from(*bounds.range.end()),
        because: bounds.because,
    }
}

fn narrow(value: u64) -> Result<u32, String> {
    u32::try_from(value).map_err(|_| format!("{value} is too large"))
}

/// Splits `64KiB` into `64` and `KiB`; underscores and a space before the unit are allowed.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (digits, unit.trim_start())
}

fn scaled(digits: &str, unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits
        .replace('_', "")
        .parse::<u64>()
        .ok()?
        .checked_mul(*factor)
}

/// A number of bytes, shown in the largest unit that divides it (`64KiB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        exact(f, self.0, &SIZE_UNITS)
    }
}

/// A duration, shown in the largest unit that divides it (`5min`); finer than a millisecond is not
/// shown, for no setting is finer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        exact(f, millis, &DURATION_UNITS)
    }
}

fn exact(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fitting = units
        .iter()
        .find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    match fitting {
        Some((name, factor)) => write!(f, "{}{name}", value / factor),
        None => write!(f, "{value}{}", units.last().map_or("", |(name, _)| name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Bounds<u32> = Bounds {
        range: 0..=u32::MAX,
        because: "of the test",
    };
    const LONG: Bounds<Duration> = Bounds {
        range: Duration::ZERO..=Duration::from_secs(1 << 32),
        because: "of the test",
    };

    #[test]
    fn sizes_read_with_and_without_unit() {
        assert_eq!(size("64KiB", &WIDE), Ok(65_536));
        assert_eq!(size("1 MiB", &WIDE), Ok(1 << 20));
        assert_eq!(size("65_536", &WIDE), Ok(65_536));
        assert_eq!(size("7B", &WIDE), Ok(7));
    }

    #[test]
    fn sizes_that_could_mean_two_things_are_refused() {
        for text in ["64KB", "64k", "-1", "", "KiB", "1.5MiB", "64kib"] {
            assert!(size(text, &WIDE).is_err(), "{text:?}");
        }
        assert!(size("99999999999GiB", &WIDE).is_err());
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("2s", &LONG), Ok(Duration::from_secs(2)));
        assert_eq!(duration("250ms", &LONG), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5m", &LONG), duration("5min", &LONG));
        assert_eq!(duration("30d", &LONG), Ok(Duration::from_secs(30 * 86_400)));
        let error = duration("5", &LONG).expect_err("no unit");
        assert!(error.contains("no unit"), "{error}");
        assert!(duration("5parsecs", &LONG).is_err());
        assert!(duration("", &LONG).is_err());
    }

    #[test]
    fn out_of_range_says_the_range_and_why() {
        let bounds = Bounds {
            range: 1024..=65_536,
            because: "memory is finite",
        };
        let error = size("1GiB", &bounds).expect_err("too large");
        assert_eq!(
            error,
            "1GiB is out of range; allowed: 1KiB to 64KiB, because memory is finite"
        );
        // Larger than the type itself, and still an answer in the same words.
        assert!(
            size("9GiB", &bounds)
                .expect_err("too large")
                .contains("allowed: 1KiB to 64KiB")
        );
    }

    #[test]
    fn what_is_written_reads_back() {
        for bytes in [
            0,
            1,
            1023,
            1024,
            1536,
            65_536,
            1 << 20,
            (1 << 20) + 1,
            3 << 30,
        ] {
            assert_eq!(
                size(&ByteSize(bytes).to_string(), &WIDE).map(u64::from),
                Ok(bytes)
            );
        }
        for millis in [
            0,
            1,
            999,
            1_000,
            1_500,
            60_000,
            90_000,
            3_600_000,
            86_400_000,
            2_592_000_000,
        ] {
            let value = Duration::from_millis(millis);
            assert_eq!(duration(&Span(value).to_string(), &LONG), Ok(value));
        }
    }
}
