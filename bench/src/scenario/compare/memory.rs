//! Memory that a server takes for each connection: what it grows by when more users log in.
//!
//! Before it is looked at, users come and go. So what is there whoever connects, buffers and pools, is not charged to those
//! who stay; and these fill first the places of those who went. Nobody says anything: what messages have used a server gives
//! back at its leisure, and that would hide what the users take.

use std::thread;
use std::time::Duration;

use super::contender::Running;
use crate::BenchError;
use crate::dialect::Protocol;
use crate::engine::Clients;
use crate::measure::resident_bytes;

/// Users who come and go before, at a time.
const VISITORS: u32 = 2_000;
/// How often they do: `iris-bench idle`, which looks whether the gateway still grows, sees it stop after fewer.
const VISITS: usize = 10;
/// How long a server may take to see that they went.
const LEAVE: Duration = Duration::from_millis(300);
/// Users that are charged, beyond those who fill the visitors' places.
const CHARGED: u32 = 8_000;
/// How long a server may take to give back what it used for logins only: it may look at what is idle once
/// a second, and the gateway's allocator keeps what was freed for ten more.
const SETTLE: Duration = Duration::from_secs(12);

/// Bytes of resident memory for each idle user.
pub(super) fn run(server: &Running, protocol: Protocol) -> Result<f64, BenchError> {
    for _ in 0..VISITS {
        drop(Clients::open(server.address, protocol, VISITORS)?);
        thread::sleep(LEAVE);
    }
    thread::sleep(SETTLE);
    let before = resident_bytes(server.pid())?;
    let users = Clients::open(server.address, protocol, VISITORS + CHARGED)?;
    thread::sleep(SETTLE);
    let after = resident_bytes(server.pid())?;
    drop(users);
    Ok(after.saturating_sub(before) as f64 / f64::from(CHARGED))
}
