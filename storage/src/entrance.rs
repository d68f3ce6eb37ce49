//! The queues by which requests come into the store.
//!
//! Owner: whoever submits has an [`Entrance`]; each thread of the store that does what is asked has an [`Exit`]. The lock is
//! held for as long as it takes to move a few requests, and waiting for it is sleeping. That is why this is no channel of
//! atomics: in those, a thread waits in a loop for a slot that another is just filling or emptying, and a core with a
//! real-time priority would wait like that for a thread that lost its cpu to this very core.
//!
//! In which order requests come out is the [`Line`]'s matter: writes in that in which they went in ([`Fifo`]), reads as
//! `fair_reads` says. Invariants: a request is in the queue, was taken out of it, or was refused and counted; there are no
//! more wake-ups under way than threads that sleep.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::client::Envelope;
use crate::request::FailureKind;

/// The requests that wait in a queue, and which of them is next.
pub(crate) trait Line {
    type Request;

    /// Takes a request, or says why there is no room for it.
    fn offer(&mut self, request: Envelope<Self::Request>) -> Result<(), FailureKind>;

    /// Takes what the store asks of itself, however much waits.
    fn put(&mut self, request: Envelope<Self::Request>);

    /// The next request.
    fn next(&mut self) -> Option<Envelope<Self::Request>>;

    /// How many requests wait.
    fn len(&self) -> usize;
}

/// Requests in the order in which they came, at most `max` of them.
pub(crate) struct Fifo<R> {
    max: usize,
    requests: VecDeque<Envelope<R>>,
    /// What there was no room for.
    pub(crate) refused: u64,
    /// Last-seens that were not taken: nobody hears of these.
    pub(crate) seen_lost: u64,
}

impl<R> Fifo<R> {
    pub(crate) fn new(max: usize) -> Fifo<R> {
        Fifo {
            max: max.max(1),
            requests: VecDeque::new(),
            refused: 0,
            seen_lost: 0,
        }
    }
}

impl<R> Line for Fifo<R> {
    type Request = R;

    fn offer(&mut self, request: Envelope<R>) -> Result<(), FailureKind> {
        if self.requests.len() >= self.max {
            self.refused += 1;
            return Err(FailureKind::Overloaded);
        }
        self.requests.push_back(request);
        Ok(())
    }

    fn put(&mut self, request: Envelope<R>) {
        self.requests.push_back(request);
    }

    fn next(&mut self) -> Option<Envelope<R>> {
        self.requests.pop_front()
    }

    fn len(&self) -> usize {
        self.requests.len()
    }
}

/// Where requests are put in.
pub(crate) struct Entrance<L>(Arc<Queue<L>>);

/// Where they are taken out.
pub(crate) struct Exit<L: Line>(Arc<Queue<L>>);

struct Queue<L> {
    state: Mutex<State<L>>,
    filled: Condvar,
}

struct State<L> {
    line: L,
    exits: usize,
    /// Threads that wait for a request, and how many of them are being woken: a wake-up is a system call, and one is enough.
    asleep: usize,
    waking: usize,
}

impl<L> Queue<L> {
    fn state(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, add: impl FnOnce(&mut L) -> Result<(), FailureKind>) -> Result<(), FailureKind> {
        let mut state = self.state();
        if state.exits == 0 {
            return Err(FailureKind::Closed);
        }
        add(&mut state.line)?;
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
        mut state: MutexGuard<'a, State<L>>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, State<L>> {
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

impl<L: Line> Entrance<L> {
    /// A queue with this line.
    pub(crate) fn new(line: L) -> (Entrance<L>, Exit<L>) {
        let queue = Arc::new(Queue {
            state: Mutex::new(State {
                line,
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
    /// The line has no room for it, or nobody takes requests out any more.
    pub(crate) fn offer(&self, request: Envelope<L::Request>) -> Result<(), FailureKind> {
        self.0.add(|line| line.offer(request))
    }

    /// Puts in what the store asks of itself, however full the queue is.
    ///
    /// # Errors
    /// Nobody takes requests out any more.
    pub(crate) fn put(&self, request: Envelope<L::Request>) -> Result<(), FailureKind> {
        self.0.add(|line| {
            line.put(request);
            Ok(())
        })
    }

    /// Looks at the line, or takes something out of it. Whoever is woken for that finds nothing and sleeps on.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut L) -> T) -> T {
        look(&mut self.0.state().line)
    }
}

impl<L> Clone for Entrance<L> {
    fn clone(&self) -> Self {
        Entrance(Arc::clone(&self.0))
    }
}

impl<L: Line> Exit<L> {
    /// Takes a request out; waits for one.
    pub(crate) fn take(&self) -> Envelope<L::Request> {
        let mut state = self.0.state();
        loop {
            if let Some(request) = state.line.next() {
                return request;
            }
            state = self.0.sleep(state, None);
        }
    }

    /// The same, but waits no longer than that.
    pub(crate) fn take_by(&self, deadline: Instant) -> Option<Envelope<L::Request>> {
        let mut state = self.0.state();
        loop {
            if let Some(request) = state.line.next() {
                return Some(request);
            }
            if Instant::now() >= deadline {
                return None;
            }
            state = self.0.sleep(state, Some(deadline));
        }
    }

    /// Takes out what is there, up to `max` requests, and does not wait.
    pub(crate) fn take_some(&self, max: usize, taken: &mut Vec<Envelope<L::Request>>) {
        let mut state = self.0.state();
        taken.extend(std::iter::from_fn(|| state.line.next()).take(max));
    }
}

impl<L: Line> Clone for Exit<L> {
    fn clone(&self) -> Self {
        self.0.state().exits += 1;
        Exit(Arc::clone(&self.0))
    }
}

impl<L: Line> Drop for Exit<L> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.exits -= 1;
        let mut unheard = Vec::new();
        if state.exits == 0 {
            unheard.extend(std::iter::from_fn(|| state.line.next()));
        }
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
        let (entrance, exit) = Entrance::new(Fifo::new(2));
        for client in 0..2 {
            entrance.offer(request(client)).expect("room");
        }
        assert_eq!(entrance.offer(request(9)), Err(FailureKind::Overloaded));
        entrance.put(request(2)).expect("always room");
        assert_eq!(entrance.with(|line| (line.len(), line.refused)), (3, 1));
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
        let (entrance, exit) = Entrance::new(Fifo::new(8));
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
        let (entrance, exit) = Entrance::new(Fifo::new(16));
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
