//! Merges of tables take turns, one at a time for each database.
//!
//! fjall merges on several workers side by side, and after a merge of level 0 most of them go further down at once. Then
//! they take every cpu that is left, and acknowledgements wait behind them. One at a time merges as much in the end: it is
//! the same work, and level 0 waits for level 1 either way. fjall has no setting for it, but it asks [`crate::reclaim`]
//! about each message it merges, and a merge that is asked for the first time waits there. It holds no lock then.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Between two looks at whether a merge still has to wait.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whose turn it is among the merges of a database.
#[derive(Default)]
pub(crate) struct Turns {
    is_taken: Mutex<bool>,
    given_back: Condvar,
}

/// A merge's turn, until it is dropped.
pub(crate) struct Turn(Arc<Turns>);

impl Turns {
    /// Waits for a turn. `None`, soon, when the merge is to go on without one.
    pub(crate) fn take(turns: &Arc<Turns>, must_wait: impl Fn() -> bool) -> Option<Turn> {
        let mut is_taken = turns
            .is_taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while *is_taken {
            if !must_wait() {
                return None;
            }
            let waited = turns.given_back.wait_timeout(is_taken, LOOK_EVERY);
            is_taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *is_taken = true;
        Some(Turn(Arc::clone(turns)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let turns = &self.0;
        *turns
            .is_taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = false;
        turns.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn one_merges_at_a_time_and_all_get_a_turn() {
        let turns = Arc::new(Turns::default());
        let merging = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let _turn = Turns::take(&turns, || true).expect("it waits for one");
                    assert_eq!(merging.fetch_add(1, Ordering::SeqCst), 0);
                    thread::sleep(Duration::from_millis(20));
                    merging.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
    }

    #[test]
    fn who_need_not_wait_goes_on_without_a_turn() {
        let turns = Arc::new(Turns::default());
        let of_another = Turns::take(&turns, || true);
        let must_wait = Arc::new(AtomicBool::new(true));
        let waiting = {
            let (turns, must_wait) = (Arc::clone(&turns), Arc::clone(&must_wait));
            thread::spawn(move || Turns::take(&turns, || must_wait.load(Ordering::Relaxed)))
        };
        thread::sleep(2 * LOOK_EVERY);
        assert!(!waiting.is_finished());
        must_wait.store(false, Ordering::Relaxed);
        assert!(waiting.join().expect("no panic").is_none());
        drop(of_another);
        assert!(Turns::take(&turns, || false).is_some(), "it is free now");
    }
}
