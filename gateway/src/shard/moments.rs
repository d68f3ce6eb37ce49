//! Whom to look at when: each once its moment has come and those before it are gone.
//!
//! Owner: whoever has one. It is for moments that come nearly in order; for others there is the wheel.

use std::collections::VecDeque;

use super::slots::Key;

/// Keys and the moments when they are due, milliseconds of the core's clock, in the order in which they were put in.
#[derive(Default)]
pub struct Moments(VecDeque<(u64, Key)>);

impl Moments {
    /// This one is due then.
    pub fn push(&mut self, due_ms: u64, key: Key) {
        self.0.push_back((due_ms, key));
    }

    /// The first, if its moment has come.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<Key> {
        let is_due = self.next_due_ms()? <= now_ms;
        is_due.then(|| self.pop()).flatten()
    }

    /// The first, whenever it is due.
    pub fn pop(&mut self) -> Option<Key> {
        self.0.pop_front().map(|(_, key)| key)
    }

    /// When the first is due.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.0.front().map(|(due_ms, _)| *due_ms)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
