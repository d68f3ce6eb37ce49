//! How much room the disk has, and what follows from it.
//!
//! Owner: `iris-watch`. Invariant: what the store writes by itself, after the last message it accepts, fits into
//! `free_bytes_min`: the messages that memory holds, written as tables, and tables merged into new ones while the old
//! are there.

use std::io;
use std::path::Path;

use rustix::fs::statvfs;

/// What must be free above the floor before messages are taken again, as a part of the floor: else each table that
/// is written would switch the refusal on, and each merge off.
const RESUME_PART: u64 = 16;

/// What to do with the ballast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Nothing,
    Release,
    Restore,
}

/// The two thresholds, and on which side of the first we are.
pub(crate) struct Space {
    free_bytes_min: u64,
    ballast_bytes: u64,
    refusing: bool,
}

impl Space {
    pub(crate) fn new(free_bytes_min: u64, ballast_bytes: u64) -> Space {
        Space {
            free_bytes_min,
            ballast_bytes,
            refusing: false,
        }
    }

    /// Whether appends are refused.
    pub(crate) fn is_refusing(&self) -> bool {
        self.refusing
    }

    /// Takes note of what is free now.
    pub(crate) fn look(&mut self, free_bytes: u64, ballast_held: bool) -> Order {
        let resume = self.free_bytes_min + self.free_bytes_min / RESUME_PART;
        self.refusing = free_bytes
            < if self.refusing {
                resume
            } else {
                self.free_bytes_min
            };
        if ballast_held && free_bytes < self.ballast_bytes {
            Order::Release
        } else if !ballast_held
            && self.ballast_bytes > 0
            && free_bytes >= resume + self.ballast_bytes
        {
            Order::Restore
        } else {
            Order::Nothing
        }
    }
}

/// Bytes that a process like this one may still write on the disk of this folder.
pub(crate) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_refused_below_the_floor_and_taken_again_well_above_it() {
        let mut space = Space::new(1600, 0);
        for (free, refusing) in [
            (1600, false),
            (1599, true),
            (1600, true),
            (1699, true),
            (1700, false),
            (1600, false),
            (0, true),
        ] {
            assert_eq!(space.look(free, false), Order::Nothing);
            assert_eq!(space.is_refusing(), refusing, "{free}");
        }
    }

    #[test]
    fn the_ballast_goes_when_little_is_left_and_comes_back_when_it_fits_above_the_floor() {
        let mut space = Space::new(1600, 200);
        for (free, held, order) in [
            (1900, false, Order::Restore),
            (1899, false, Order::Nothing),
            (1700, true, Order::Nothing),
            (200, true, Order::Nothing),
            (199, true, Order::Release),
            (399, false, Order::Nothing),
        ] {
            assert_eq!(space.look(free, held), order, "{free}");
        }
    }

    #[test]
    fn no_floor_refuses_nothing() {
        let mut space = Space::new(0, 0);
        assert_eq!(space.look(0, false), Order::Nothing);
        assert!(!space.is_refusing());
    }

    #[test]
    fn a_disk_says_what_is_free() {
        assert!(free_bytes(Path::new("/")).is_ok());
        assert!(free_bytes(Path::new("/proc/nowhere")).is_err());
    }
}
