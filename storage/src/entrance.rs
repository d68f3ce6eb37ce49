//! The queue by which requests come into the store.
//!
//! Owner: whoever submits has an [`Entrance`]; each thread of the store that does what is asked has an [`Exit`]. The lock is
//! held for as long as it takes to move a few requests, and waiting for it is sleeping. That is why this is no channel of
//! atomics: in those, a thread waits in a loop for a slot that another is just filling or emptying, and a core with a
//! real-time priority would wait like that for a thread that lost its cpu to this very core.
//!
//! Invariants: requests come out in the order they went in; a request is in the queue or was refused; there are no more
//! wake-ups under way than threads that sleep.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::client::Envelope;
use crate::request::FailureKind;

/// Where requests are put in.
pub(crate) struct Entrance<R>(Arc<Queue<R>>);

/// Where they are taken out.
pub(crate) struct Exit<R>(Arc<Queue<R>>);

struct Queue<R> {
    max: usize,
    state: Mutex<State<R>>,
    filled: Condvar,
}

struct State<R> {
    requests: VecDeque<Envelope<R>>,
    exits: usize,
    /// Threads that wait for a request, and how many of them are being woken: a wake-up is a system call, and one is enough.
    asleep: usize,
    waking: usize,
}

impl<R> Queue<R> {
    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, max: usize, request: Envelope<R>) -> Result<(), FailureKind> {
        let mut state = self.state();
        if state.exits == 0 {
            return Err(FailureKind::Closed);
        }
        if state.requests.len() >= max {
            return Err(FailureKind::Overloaded);
        }
        state.requests.push_back(request);
        let wakes = state.asleep > state.waking;
        state.waking += usize::from(wakes);
        drop(state);
        if wakes {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Sleeps until somebody may have put something in, or until the deadline.
    fn sleep<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<R>>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, State<R>> {
        state.asleep += 1;
        let woken = match deadline {
            None => self.filled.wait(state),
            Some(deadline) => {
                let time = deadline.saturating_duration_since(Instant::now());
                let waited = self.filled.wait_timeout(state, time);
                waited
                    .map(|(state, _)| state)
                    .map_err(|poisoned| PoisonError::new(poisoned.into_inner().0))
            }
        };
        let mut state = woken.unwrap_or_else(PoisonError::into_inner);
        // Whoever it was for: this thread looks at the queue now.
        state.asleep -= 1;
        state.waking = state.waking.saturating_sub(1);
        state
    }
}

impl<R> Entrance<R> {
    /// A queue of at most `max` requests.
    pub(crate) fn new(max: usize) -> (Entrance<R>, Exit<R>) {
        let queue = Arc::new(Queue {
            max: max.max(1),
            state: Mutex::new(State {
                requests: VecDeque::new(),
                exits: 1,
                asleep: 0,
                waking: 0,
            }),
            filled: Condvar::new(),
        });
        (Entrance(Arc::clone(&queue)), Exit(queue))
    }

    /// Puts a request in.
    ///
    /// # Errors
    /// The queue is full, or nobody takes requests out any more.
    pub(crate) fn offer(&self, request: Envelope<R>) -> Result<(), FailureKind> {
        self.0.add(self.0.max, request)
    }

    /// Puts in what the store asks of itself, however full the queue is.
    ///
    /// # Errors
    /// Nobody takes requests out any more.
    pub(crate) fn put(&self, request: Envelope<R>) -> Result<(), FailureKind> {
        self.0.add(usize::MAX, request)
    }

    /// How many requests are in the queue.
    pub(crate) fn len(&self) -> usize {
        self.0.state().requests.len()
    }
}

impl<R> Clone for Entrance<R> {
    fn clone(&self) -> Self {
        Entrance(Arc::clone(&self.0))
    }
}

impl<R> Exit<R> {
    /// Takes a request out; waits for one.
    pub(crate) fn take(&self) -> Envelope<R> {
        let mut state = self.0.state();
        loop {
            if let Some(request) = state.requests.pop_front() {
                return request;
            }
            state = self.0.sleep(state, None);
        }
    }

    /// The same, but waits no longer than that.
    pub(crate) fn take_by(&self, deadline: Instant) -> Option<Envelope<R>> {
        let mut state = self.0.state();
        loop {
            if let Some(request) = state.requests.pop_front() {
                return Some(request);
            }
            if Instant::now() >= deadline {
                return None;
            }
            state = self.0.sleep(state, Some(deadline));
        }
    }

    /// Takes out what is there, up to `max` requests, and does not wait.
    pub(crate) fn take_some(&self, max: usize, taken: &mut Vec<Envelope<R>>) {
        let mut state = self.0.state();
        let count = state.requests.len().min(max);
        taken.extend(state.requests.drain(..count));
    }
}

impl<R> Clone for Exit<R> {
    fn clone(&self) -> Self {
        self.0.state().exits += 1;
        Exit(Arc::clone(&self.0))
    }
}

impl<R> Drop for Exit<R> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.exits -= 1;
        let unheard = if state.exits == 0 {
            std::mem::take(&mut state.requests)
        } else {
            VecDeque::new()
        };
        drop(state);
        drop(unheard);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::client::Write;

    fn request(client: usize) -> Envelope<Write> {
        Envelope {
            client,
            request: Write::Close,
        }
    }

    #[test]
    fn at_the_limit_requests_are_refused_but_not_the_stores_own() {
        let (entrance, exit) = Entrance::new(2);
        for client in 0..2 {
            entrance.offer(request(client)).expect("room");
        }
        assert_eq!(entrance.offer(request(9)), Err(FailureKind::Overloaded));
        entrance.put(request(2)).expect("always room");
        assert_eq!(entrance.len(), 3);
        assert_eq!(exit.take().client, 0);
        assert_eq!(entrance.offer(request(9)), Err(FailureKind::Overloaded));
        let mut taken = Vec::new();
        exit.take_some(1, &mut taken);
        assert_eq!(taken[0].client, 1);
        entrance.offer(request(3)).expect("room");
        let further = exit.clone();
        drop(exit);
        assert_eq!(entrance.offer(request(9)), Err(FailureKind::Overloaded));
        drop(further);
        assert_eq!(entrance.offer(request(9)), Err(FailureKind::Closed));
        assert_eq!(entrance.put(request(9)), Err(FailureKind::Closed));
    }

    #[test]
    fn who_waits_until_a_deadline_waits_no_longer_and_no_shorter() {
        let (entrance, exit) = Entrance::new(8);
        let began = Instant::now();
        let time = Duration::from_millis(20);
        assert!(exit.take_by(began + time).is_none());
        assert!(began.elapsed() >= time);
        entrance.offer(request(1)).expect("room");
        assert!(exit.take_by(began).is_some(), "it is there already");
    }

    /// Takers that sleep in between, some with deadlines: a lost wake-up leaves them asleep for ever.
    #[test]
    fn nobody_sleeps_on_with_a_request_in_the_queue() {
        const EACH: usize = 20_000;
        let (entrance, exit) = Entrance::new(16);
        let takers: Vec<_> = (0..3)
            .map(|number| {
                let exit = exit.clone();
                thread::spawn(move || {
                    let mut count = 0;
                    loop {
                        let soon = Instant::now() + Duration::from_micros(50);
                        let taken = if number == 0 {
                            exit.take_by(soon)
                        } else {
                            Some(exit.take())
                        };
                        match taken {
                            Some(Envelope { client: 0, .. }) => return count,
                            Some(_) => count += 1,
                            None => {}
                        }
                    }
                })
            })
            .collect();
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let entrance = entrance.clone();
                thread::spawn(move || {
                    for number in 0..EACH {
                        while entrance.offer(request(1)).is_err() {
                            thread::yield_now();
                        }
                        if number % 64 == 0 {
                            thread::sleep(Duration::from_micros(100));
                        }
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.join().expect("no panic");
        }
        for _ in 0..takers.len() {
            entrance.put(request(0)).expect("they take");
        }
        let taken: usize = takers
            .into_iter()
            .map(|taker| taker.join().expect("no panic"))
            .sum();
        assert_eq!(taken, 2 * EACH);
    }
}
