//! How long the messages of a load are: all alike, or a mix.
//!
//! Invariant: a size is between [`Message::BYTES_MIN`] and [`Message::BYTES_MAX`], and every part of
//! a mix has a share above 0.

use std::fmt;
use std::str::FromStr;

use super::message::Message;
use super::random::Random;

/// Draws are made out of so many.
const DRAWS: u32 = 1 << 24;

/// The sizes of a load's messages, in bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Sizes {
    parts: Vec<Part>,
}

/// Messages of one size.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    /// What was asked for; only the ratio of shares counts.
    share: f64,
    bytes: u32,
    /// Draws below this, and not below that of the part before, are of this size.
    below: u32,
}

impl Sizes {
    /// The size of the next message.
    #[inline]
    pub fn draw(&self, random: &mut Random) -> u32 {
        if let [only] = self.parts[..] {
            return only.bytes;
        }
        let drawn = random.below(DRAWS);
        let part = self.parts.iter().find(|part| drawn < part.below);
        part.map_or(Message::BYTES_MIN, |part| part.bytes)
    }

    fn of(shares: &[(f64, u32)]) -> Self {
        let whole: f64 = shares.iter().map(|(share, _)| share).sum();
        let mut sum = 0.0;
        let part = |&(share, bytes): &(f64, u32)| {
            sum += share;
            let below = (sum / whole * f64::from(DRAWS)) as u32;
            Part {
                share,
                bytes,
                below,
            }
        };
        let mut parts: Vec<_> = shares.iter().map(part).collect();
        if let Some(last) = parts.last_mut() {
            // Whatever the sums were rounded to.
            last.below = DRAWS;
        }
        Self { parts }
    }
}

impl From<u32> for Sizes {
    fn from(bytes: u32) -> Self {
        let bytes = bytes.clamp(Message::BYTES_MIN, Message::BYTES_MAX);
        Self::of(&[(1.0, bytes)])
    }
}

impl FromStr for Sizes {
    type Err = String;

    /// Reads `64`, or shares and sizes: `0.8:64,0.15:1024,0.05:16384`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(bytes) = text.parse() {
            return Ok(Self::of(&[(1.0, in_bounds(bytes)?)]));
        }
        let mut shares = Vec::new();
        for part in text.split(',') {
            let parsed = part.split_once(':').and_then(|(share, bytes)| {
                let share: f64 = share.trim().parse().ok()?;
                Some((share, bytes.trim().parse().ok()?))
            });
            let Some((share, bytes)) = parsed else {
                return Err(format!(
                    "{part:?} is neither a number of bytes nor a share and a number of bytes, as in 0.8:64"
                ));
            };
            if !(share > 0.0 && share.is_finite()) {
                return Err(format!("a share is above 0, and that of {part:?} is not"));
            }
            shares.push((share, in_bounds(bytes)?));
        }
        Ok(Self::of(&shares))
    }
}

fn in_bounds(bytes: u32) -> Result<u32, String> {
    let (least, most) = (Message::BYTES_MIN, Message::BYTES_MAX);
    if (least..=most).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!(
        "{bytes} bytes are not between {least}, what a message has to say of itself, and {most}, \
         the most that the classic protocol takes"
    ))
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.parts[..] {
            return write!(f, "{}", only.bytes);
        }
        for (index, part) in self.parts.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}:{}", part.share, part.bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_drawn_by_its_shares_and_printed_as_it_was_read() {
        for text in ["0.8:64,0.15:1024,0.05:16384", "80:64,15:1024,5:16384"] {
            let sizes: Sizes = text.parse().expect("a mix");
            assert_eq!(sizes.to_string(), text);
            let (mut random, mut drawn) = (Random::seeded(1), [0; 3]);
            for _ in 0..100_000 {
                match sizes.draw(&mut random) {
                    64 => drawn[0] += 1,
                    1024 => drawn[1] += 1,
                    16_384 => drawn[2] += 1,
                    other => panic!("{other} was not asked for"),
                }
            }
            let sound = (79_000..81_000).contains(&drawn[0])
                && (14_500..15_500).contains(&drawn[1])
                && (4_500..5_500).contains(&drawn[2]);
            assert!(sound, "{drawn:?}");
        }
    }

    #[test]
    fn one_size_is_that_of_every_message() {
        let sizes: Sizes = "65535".parse().expect("a size");
        assert_eq!(sizes, Sizes::from(65_535));
        assert_eq!(sizes.draw(&mut Random::seeded(1)), 65_535);
        assert_eq!(Sizes::from(3), Sizes::from(Message::BYTES_MIN));
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_reason() {
        for (text, reason) in [
            ("23", "between 24"),
            ("65536", "between 24"),
            ("0.5:64,0.5:8", "between 24"),
            ("0:64", "above 0"),
            ("-1:64", "above 0"),
            ("inf:64", "above 0"),
            ("64,128", "neither"),
            ("", "neither"),
            ("0.5:64,", "neither"),
        ] {
            let error = text.parse::<Sizes>().expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
