//! How often classic connections may become other users: each of them, and all of a core together.
//!
//! Owner: the shard that holds the sockets. Nothing is lost: a connection that is over a limit is not read for a while, and
//! what it says stays with its kernel. Kept for those only that have logged in again; it moves with the connection.

use std::collections::HashMap;

use super::Shard;
use super::connection::Pause;
use super::limits::{CORE_RELOGINS, Limits, RELOGINS_PAUSE_MS, Rate};
use super::slots::Key;

/// When logins are due, each a moment in microseconds of the core's clock: that at which all there were would have come
/// at the steady rate (the generic cell rate algorithm: a bucket of tokens as one number).
#[derive(Default)]
pub(super) struct Relogins {
    by_connection: HashMap<Key, Due, ahash::RandomState>,
    of_core_us: u64,
}

/// Of one connection.
#[derive(Clone, Copy, Default)]
struct Due {
    us: u64,
    /// Its next login is counted among those of the core, which had too many, and may come at this moment: whoever waits
    /// comes in the order of asking, and is looked at once.
    turn_us: Option<u64>,
    /// When a connection that is not read for this is read again, milliseconds; 0 while it is read.
    paused_until_ms: u64,
}

fn interval_us(rate: Rate) -> u64 {
    1_000_000 / u64::from(rate.per_second.max(1))
}

/// What is due after one more, and how long before that may come.
fn one_more(due_us: u64, now_us: u64, rate: Rate) -> (u64, u64) {
    let next_us = due_us.max(now_us) + interval_us(rate);
    let until_us = now_us + interval_us(rate) * u64::from(rate.burst.max(1));
    (next_us, next_us.saturating_sub(until_us))
}

impl Relogins {
    /// Whether a connection may log in now; else, after how many milliseconds it shall be looked at again.
    fn take(&mut self, id: Key, now_ms: u64, limits: &Limits) -> Result<(), u64> {
        let now_us = now_ms * 1_000;
        let due = self.by_connection.entry(id).or_default();
        let (next_us, early_us) = one_more(due.us, now_us, limits.relogins);
        if early_us > 0 {
            return Err(RELOGINS_PAUSE_MS);
        }
        let turn_us = due.turn_us.unwrap_or_else(|| {
            let (of_core_us, early_us) = one_more(self.of_core_us, now_us, CORE_RELOGINS);
            self.of_core_us = of_core_us;
            now_us + early_us
        });
        if turn_us > now_us {
            due.turn_us = Some(turn_us);
            return Err((turn_us - now_us).div_ceil(1_000));
        }
        *due = Due {
            us: next_us,
            ..Due::default()
        };
        Ok(())
    }

    /// A connection is not read until then.
    fn pause(&mut self, id: Key, until_ms: u64) {
        self.by_connection.entry(id).or_default().paused_until_ms = until_ms;
    }

    /// Until when a connection is not read.
    pub(super) fn paused_until_ms(&self, id: Key) -> u64 {
        let due = self.by_connection.get(&id);
        due.map_or(0, |due| due.paused_until_ms)
    }

    /// Forgets a connection that is gone; says how far ahead of its time it was, microseconds.
    pub(super) fn forget(&mut self, id: Key, now_ms: u64) -> u64 {
        let due = self.by_connection.remove(&id).unwrap_or_default();
        if due.turn_us.is_some() {
            // Others have it.
            self.of_core_us -= interval_us(CORE_RELOGINS);
        }
        due.us.saturating_sub(now_ms * 1_000)
    }

    /// A connection comes from another core, so far ahead of its time.
    pub(super) fn arrived(&mut self, id: Key, now_ms: u64, ahead_us: u64) {
        if ahead_us > 0 {
            let due = Due {
                us: now_ms * 1_000 + ahead_us,
                ..Due::default()
            };
            self.by_connection.insert(id, due);
        }
    }
}

impl Shard {
    /// Whether a classic connection may log in now; if not, it is not read for a while.
    pub(super) fn admits_login(&mut self, id: Key) -> bool {
        let now_ms = self.now.core_ms;
        if self.connections.get(id).is_none_or(|one| !one.had_user) {
            return true;
        }
        let Err(pause_ms) = self.relogins.take(id, now_ms, &self.limits) else {
            return true;
        };
        self.metrics.relogins_delayed += 1;
        self.relogins.pause(id, now_ms + pause_ms);
        self.pause(id, Pause::LOGIN);
        self.check_within(id, pause_ms);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Key = Key {
        index: 1,
        generation: 1,
    };

    fn limits() -> Limits {
        let relogins = Rate {
            burst: 50,
            per_second: 100,
        };
        Limits {
            relogins,
            ..Limits::default()
        }
    }

    #[test]
    fn a_burst_and_then_a_steady_rate() {
        let limits = limits();
        let mut relogins = Relogins::default();
        let mut taken = |from_ms: u64, ms: u64| {
            let moments = (from_ms..from_ms + ms).flat_map(|now_ms| [now_ms; 20]);
            moments
                .filter(|now_ms| relogins.take(ONE, *now_ms, &limits).is_ok())
                .count()
        };
        assert_eq!(taken(5_000, 5), 50);
        assert_eq!(taken(5_005, 1_000), 100);
        assert_eq!(taken(60_000, 5), 50, "after a rest");
    }

    fn key(index: u32) -> Key {
        let generation = 1;
        Key { index, generation }
    }

    #[test]
    fn many_connections_together_have_the_rate_of_the_core_and_come_in_turn() {
        let limits = limits();
        let mut relogins = Relogins::default();
        let mut looked_at = vec![0; 1_000];
        let (mut taken, mut order) = (vec![0; 1_000], Vec::new());
        for now_ms in 0..1_000 {
            for index in 0..1_000 {
                if looked_at[index] > now_ms {
                    continue;
                }
                match relogins.take(key(index as u32), now_ms, &limits) {
                    Ok(()) => {
                        taken[index] += 1;
                        order.push(index);
                    }
                    Err(pause_ms) => looked_at[index] = now_ms + pause_ms,
                }
            }
        }
        let most = (CORE_RELOGINS.burst + CORE_RELOGINS.per_second) as usize;
        assert!(
            (most - 10..=most + 1).contains(&order.len()),
            "{}",
            order.len()
        );
        let others: Vec<u32> = taken.into_iter().skip(5).collect();
        let (least, most) = (others.iter().min(), others.iter().max());
        assert!(
            least >= Some(&1) && most <= Some(&4),
            "{least:?} to {most:?}"
        );
    }

    #[test]
    fn who_is_gone_leaves_its_turn_to_others() {
        let limits = limits();
        let mut relogins = Relogins::default();
        for index in 0..100_000 {
            let _may_wait = relogins.take(key(index), 5_000, &limits);
            relogins.forget(key(index), 5_000);
        }
        let pause_ms = relogins.take(ONE, 5_000, &limits).expect_err("its turn");
        assert_eq!(pause_ms, 1);
    }

    #[test]
    fn it_moves_with_the_connection() {
        let limits = limits();
        let (mut here, mut there) = (Relogins::default(), Relogins::default());
        while here.take(ONE, 5_000, &limits).is_ok() {}
        let ahead_us = here.forget(ONE, 5_000);
        assert_eq!(ahead_us, 500_000);
        there.arrived(ONE, 77, ahead_us);
        assert_eq!(there.take(ONE, 77, &limits), Err(RELOGINS_PAUSE_MS));
        assert_eq!(there.take(ONE, 87, &limits), Ok(()));
        assert_eq!(here.forget(ONE, 5_000), 0);
    }
}
