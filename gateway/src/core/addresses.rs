//! What each address of a peer takes: connections, and logins with a wrong credential.
//!
//! Owner: all cores, behind one mutex that is touched when a connection is accepted, when it ends, and when its login fails;
//! a socket keeps a number of four bytes. IPv6 counts by /64, which is what one customer has. Invariants: there is an entry
//! for each address that has a connection, or had a failed login in the last minute; of those without a connection at most
//! [`DEPARTED_MAX`] are kept.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ahash::AHashMap;
use slab::Slab;

/// How long failed logins count, from the first of them on.
const MINUTE_MS: u64 = 60_000;
/// Minutes of failed logins that are remembered at once, some 100 bytes each; above it the oldest is forgotten: whoever has
/// so many addresses is not held up by them.
const DEPARTED_MAX: usize = 65_536;
/// Between two log lines about failed logins.
const TELL_EVERY_MS: u64 = 1_000;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// The kernel does not tell: no limit holds.
    pub(super) const UNKNOWN: Place = Place(u32::MAX);

    /// As it travels to another core.
    pub(super) fn to_number(self) -> u32 {
        self.0
    }

    /// As it came from another core.
    pub(super) fn from_number(number: u32) -> Place {
        Place(number)
    }
}

/// Most that one address may have.
#[derive(Clone, Copy, Debug)]
pub struct AddressLimits {
    /// Connections at once.
    pub connections_max: u32,
    /// Failed logins in a minute; whoever has more is refused until it is over.
    pub failed_logins_max: u32,
}

#[cfg(test)]
impl AddressLimits {
    /// For tests of other things.
    pub const NONE: AddressLimits = AddressLimits {
        connections_max: u32::MAX,
        failed_logins_max: u32::MAX,
    };
}

/// What is to be logged about failed logins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Of the newest one; IPv6 without its last 64 bits.
    pub(super) address: IpAddr,
    /// Its failed logins in this minute.
    pub(super) failed: u32,
    /// Of all addresses since the last line.
    pub(super) since_last: u64,
}

/// The addresses of a process.
pub(super) struct Addresses {
    limits: AddressLimits,
    started: Instant,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    numbers: AHashMap<IpAddr, u32>,
    entries: Slab<Entry>,
    /// When each minute of failed logins is over, in that order, and whose it is.
    minutes: VecDeque<(u64, u32)>,
    told_at_ms: u64,
    untold: u64,
}

struct Entry {
    address: IpAddr,
    connections: u32,
    failed_logins: u32,
    /// Its failed logins count until then; 0: it has none.
    minute_ends_ms: u64,
}

impl Addresses {
    pub(super) fn new(limits: AddressLimits) -> Addresses {
        Addresses {
            limits,
            started: Instant::now(),
            table: Mutex::default(),
        }
    }

    /// A connection comes from this address; `None` if it has as many as it may, or failed too often.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Place> {
        let now_ms = self.now_ms();
        self.with(|table| table.admit(address, &self.limits, now_ms))
    }

    /// A connection from there has ended.
    pub(super) fn release(&self, place: Place) {
        if place != Place::UNKNOWN {
            self.with(|table| table.release(place.0));
        }
    }

    /// A login from there showed a wrong credential; says so if it is time for a log line.
    pub(super) fn login_failed(&self, place: Place) -> Option<Told> {
        if place == Place::UNKNOWN {
            return None;
        }
        let now_ms = self.now_ms();
        self.with(|table| table.login_failed(place.0, now_ms))
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn with<T>(&self, act: impl FnOnce(&mut Table) -> T) -> T {
        act(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Table {
    fn admit(&mut self, address: IpAddr, limits: &AddressLimits, now_ms: u64) -> Option<Place> {
        self.end_minutes(now_ms);
        let number = match self.numbers.get(&address) {
            Some(number) => *number,
            None => {
                let number = self.entries.insert(Entry {
                    address,
                    connections: 0,
                    failed_logins: 0,
                    minute_ends_ms: 0,
                }) as u32;
                self.numbers.insert(address, number);
                number
            }
        };
        let entry = self.entries.get_mut(number as usize)?;
        if entry.connections >= limits.connections_max
            || entry.failed_logins >= limits.failed_logins_max
        {
            return None;
        }
        entry.connections += 1;
        Some(Place(number))
    }

    fn release(&mut self, number: u32) {
        if let Some(entry) = self.entries.get_mut(number as usize) {
            entry.connections = entry.connections.saturating_sub(1);
            self.forget_if_bare(number);
        }
    }

    fn login_failed(&mut self, number: u32, now_ms: u64) -> Option<Told> {
        self.end_minutes(now_ms);
        let entry = self.entries.get_mut(number as usize)?;
        entry.failed_logins = entry.failed_logins.saturating_add(1);
        let (address, failed) = (entry.address, entry.failed_logins);
        if entry.minute_ends_ms == 0 {
            entry.minute_ends_ms = now_ms + MINUTE_MS;
            self.minutes.push_back((entry.minute_ends_ms, number));
        }
        if self.minutes.len() > DEPARTED_MAX {
            self.end_oldest_minute();
        }
        self.untold += 1;
        if self.told_at_ms > now_ms {
            return None;
        }
        self.told_at_ms = now_ms + TELL_EVERY_MS;
        Some(Told {
            address,
            failed,
            since_last: std::mem::take(&mut self.untold),
        })
    }

    fn end_minutes(&mut self, now_ms: u64) {
        while self
            .minutes
            .front()
            .is_some_and(|(ends_ms, _)| *ends_ms <= now_ms)
        {
            self.end_oldest_minute();
        }
    }

    fn end_oldest_minute(&mut self) {
        if let Some((_, number)) = self.minutes.pop_front()
            && let Some(entry) = self.entries.get_mut(number as usize)
        {
            entry.failed_logins = 0;
            entry.minute_ends_ms = 0;
            self.forget_if_bare(number);
        }
    }

    fn forget_if_bare(&mut self, number: u32) {
        let is_bare = |entry: &Entry| entry.connections == 0 && entry.minute_ends_ms == 0;
        if self.entries.get(number as usize).is_some_and(is_bare) {
            let entry = self.entries.remove(number as usize);
            self.numbers.remove(&entry.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AddressLimits = AddressLimits {
        connections_max: 2,
        failed_logins_max: 3,
    };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn each_address_has_its_own_connections() {
        let mut table = Table::default();
        let admit = |table: &mut Table, last| table.admit(address(last), &LIMITS, 0);
        let first = admit(&mut table, 1).expect("room");
        assert_eq!(admit(&mut table, 1), Some(first));
        assert_eq!(admit(&mut table, 1), None);
        assert!(admit(&mut table, 2).is_some());
        table.release(first.0);
        assert_eq!(admit(&mut table, 1), Some(first));
        table.release(first.0);
        table.release(first.0);
        assert_eq!(
            table.entries.len(),
            1,
            "an address that has nothing is forgotten"
        );
        assert_eq!(table.numbers.len(), 1);
    }

    #[test]
    fn failed_logins_keep_an_address_out_for_the_rest_of_the_minute() {
        let mut table = Table::default();
        for failed in 0..3 {
            let place = table.admit(address(1), &LIMITS, 10).expect("below");
            let told = table.login_failed(place.0, 10 + failed);
            assert_eq!(told.is_some(), failed == 0, "one line a second");
            table.release(place.0);
        }
        assert_eq!(table.admit(address(1), &LIMITS, 10 + MINUTE_MS - 1), None);
        assert!(
            table.admit(address(2), &LIMITS, 20).is_some(),
            "others do not notice"
        );
        let place = table
            .admit(address(1), &LIMITS, 10 + MINUTE_MS)
            .expect("it is over");
        let told = table
            .login_failed(place.0, 10 + MINUTE_MS)
            .expect("the next line");
        assert_eq!((told.failed, told.since_last), (1, 3));
    }

    #[test]
    fn the_memory_of_failed_logins_is_bounded() {
        let mut table = Table::default();
        for number in 0..DEPARTED_MAX as u32 + 100 {
            let address = IpAddr::from(number.to_be_bytes());
            let place = table.admit(address, &LIMITS, 1).expect("its first");
            table.login_failed(place.0, 1);
            table.release(place.0);
        }
        assert_eq!(table.entries.len(), DEPARTED_MAX);
        table.end_minutes(1 + MINUTE_MS);
        assert!(table.entries.is_empty() && table.numbers.is_empty());
    }
}
