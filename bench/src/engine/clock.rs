//! The clock of all clients of this process.
//!
//! Nanoseconds since 1970, but steady: the system's clock is looked at once, and counted on from
//! there. So a sender's numbers, which are made of it, keep rising from one run to the next.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

/// Now, in ns since 1970.
#[must_use]
pub fn now_ns() -> u64 {
    static START: OnceLock<(Instant, u64)> = OnceLock::new();
    let (start, start_ns) = START.get_or_init(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        (
            Instant::now(),
            since.map_or(0, |since| since.as_nanos() as u64),
        )
    });
    start_ns + start.elapsed().as_nanos() as u64
}
