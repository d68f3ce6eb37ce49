//! A coarse timer wheel: when to look at a connection again.
//!
//! Owner: the shard of one core. The wheel knows only keys and ticks; what is
//! due is decided by whoever looks. A connection stands in the wheel for its
//! nearest deadline; an entry that was overtaken by a nearer one is recognised
//! by its tick and passed over, so moving a deadline costs nothing.

use super::slots::Key;

/// Length of a tick. Deadlines are seconds, so a fiftieth of one is exact enough.
pub const TICK_MS: u64 = 20;
/// Slots of the wheel: deadlines further away than 41 s are looked at early and
/// put back.
const SLOTS: usize = 2048;

/// A time measured in ticks since the core started.
pub type Tick = u64;

/// The wheel of one core.
pub struct Wheel {
    slots: Vec<Vec<Key>>,
    now: Tick,
    pending: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            now: 0,
            pending: 0,
        }
    }
}

impl Wheel {
    /// The tick that contains the moment `at_ms`, rounded up, within the wheel's
    /// horizon and never in the past.
    pub fn tick_of(&self, at_ms: u64) -> Tick {
        at_ms
            .div_ceil(TICK_MS)
            .clamp(self.now + 1, self.now + SLOTS as u64 - 1)
    }

    /// Enters `key` at `tick`, which [`Wheel::tick_of`] gave.
    pub fn insert(&mut self, key: Key, tick: Tick) {
        self.slots[tick as usize % SLOTS].push(key);
        self.pending += 1;
    }

    /// Moves the hand to `now_ms` and appends what has come due to `due`, each
    /// with its tick.
    pub fn advance(&mut self, now_ms: u64, due: &mut Vec<(Key, Tick)>) {
        let target = now_ms / TICK_MS;
        if self.pending == 0 {
            self.now = self.now.max(target);
            return;
        }
        while self.now < target {
            self.now += 1;
            let slot = &mut self.slots[self.now as usize % SLOTS];
            self.pending -= slot.len();
            due.extend(slot.drain(..).map(|key| (key, self.now)));
            // A burst of logins must not pin its memory for ever.
            if slot.capacity() > 1024 {
                slot.shrink_to(64);
            }
        }
    }

    /// The moment, in milliseconds, of the next occupied tick.
    pub fn next_due_ms(&self) -> Option<u64> {
        if self.pending == 0 {
            return None;
        }
        (self.now + 1..self.now + SLOTS as u64)
            .find(|tick| !self.slots[*tick as usize % SLOTS].is_empty())
            .map(|tick| tick * TICK_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> Key {
        Key {
            index,
            generation: 0,
        }
    }

    #[test]
    fn nothing_comes_early_and_nothing_is_forgotten() {
        let mut wheel = Wheel::default();
        let deadlines = [1u64, 19, 20, 21, 400, 5_000, 39_000];
        for (n, at_ms) in deadlines.iter().enumerate() {
            let tick = wheel.tick_of(*at_ms);
            wheel.insert(key(n as u32), tick);
        }
        let mut seen = Vec::new();
        let mut now_ms = 0;
        while let Some(next) = wheel.next_due_ms() {
            assert!(next > now_ms);
            now_ms = next;
            let mut due = Vec::new();
            wheel.advance(now_ms, &mut due);
            assert!(!due.is_empty());
            for (key, tick) in due {
                assert!(now_ms >= deadlines[key.index as usize], "early");
                assert_eq!(tick, now_ms / TICK_MS);
                seen.push(key.index);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..deadlines.len() as u32).collect::<Vec<_>>());
    }

    #[test]
    fn a_deadline_beyond_the_horizon_comes_back_to_be_put_again() {
        let mut wheel = Wheel::default();
        let tick = wheel.tick_of(3_600_000);
        wheel.insert(key(1), tick);
        assert!(wheel.next_due_ms().expect("one is pending") < 60_000);
    }

    #[test]
    fn a_jump_over_many_turns_of_the_hand_delivers_once() {
        let mut wheel = Wheel::default();
        let tick = wheel.tick_of(100);
        wheel.insert(key(1), tick);
        let mut due = Vec::new();
        wheel.advance(10 * SLOTS as u64 * TICK_MS, &mut due);
        assert_eq!(due.len(), 1);
        assert_eq!(wheel.next_due_ms(), None);
    }
}
