//! The wall clock, for expiry alone. Sequences and order never depend on it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix milliseconds. A clock before 1970 counts as 1970, when nothing has expired yet.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
