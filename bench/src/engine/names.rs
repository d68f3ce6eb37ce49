//! The names of users: a few letters that differ from run to run, a dot, the user's number.
//!
//! What an earlier run left in the inboxes of a server that lives longer is for other users.

use std::sync::atomic::{AtomicU32, Ordering};

use super::clock;

/// Letters in front of the dot.
const LETTERS: usize = 4;

/// The names of one run's users.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    letters: [u8; LETTERS],
}

/// One name, made when it is needed.
#[derive(Debug, Clone, Copy)]
pub struct UserName {
    bytes: [u8; LETTERS + 1 + 10],
    from: u8,
}

impl Names {
    /// Names unlike those of the runs before.
    #[must_use]
    pub fn fresh() -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = u64::from(RUNS.fetch_add(1, Ordering::Relaxed));
        // A new one every millisecond, and for every run of a process.
        let mut number = (clock::now_ns() / 1_000_000).wrapping_add(run * 7_919);
        let mut letters = [0; LETTERS];
        for letter in &mut letters {
            *letter = b'a' + (number % 26) as u8;
            number /= 26;
        }
        Self { letters }
    }

    /// The name of a user.
    #[must_use]
    pub fn of(&self, user: u32) -> UserName {
        let mut bytes = [0; LETTERS + 1 + 10];
        let (mut from, mut rest) = (bytes.len(), user);
        loop {
            from -= 1;
            bytes[from] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        from -= 1;
        bytes[from] = b'.';
        from -= LETTERS;
        bytes[from..from + LETTERS].copy_from_slice(&self.letters);
        UserName {
            bytes,
            from: from as u8,
        }
    }
}

impl UserName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = &self.bytes[usize::from(self.from)..];
        str::from_utf8(bytes).expect("letters, a dot and digits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_user_and_by_run() {
        let (one, other) = (Names::fresh(), Names::fresh());
        assert_ne!(one.of(7).as_str(), other.of(7).as_str());
        for user in [0, 9, 10, 4_294_967_295] {
            let name = one.of(user);
            let (letters, number) = name.as_str().split_once('.').expect("a dot");
            assert_eq!(letters.len(), 4);
            assert_eq!(number, user.to_string());
        }
    }
}
