//! The rings that hold the clients' sockets: as many as it takes.
//!
//! A ring's table holds no more sockets than the process may hold descriptors, so the number of
//! clients is not bounded by `ulimit -n`.
//!
//! Owner: the engine's thread. Invariant: with several rings the first one watches an eventfd that
//! all others ring, so waiting in the first is waiting for all.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use iris_ring::{Completion, Ring, RingConfig};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, getrlimit};

use crate::BenchError;

/// Left to the process itself.
const DESCRIPTORS_SPARE: u32 = 64;
/// What a table may hold at most.
const SLOTS_MAX: u32 = 1 << 20;
/// Receive buffers of a ring. The kernel goes round all of them, so they are no more than the caches
/// nearly hold: with 4,096 a message costs 5 % more.
const BUFFERS: u16 = 1024;
/// Bytes of each. Short messages cost the same with 2 KiB; those of 64 KiB, which then come in 32
/// pieces, cost the engine 1.8 times as much.
const BUFFER_BYTES: u32 = 16 * 1024;
/// How long completions are gathered at most.
const GATHER_MAX: Duration = Duration::from_micros(500);
/// Above any token of a client.
const BELL: u64 = 1 << 55;

/// Where a socket lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) ring: usize,
    pub(super) slot: u32,
}

/// All rings of an engine.
#[derive(Debug)]
pub(super) struct Rings {
    rings: Vec<Ring>,
    /// Sockets in each, those on their way included.
    held: Vec<u32>,
    slots: u32,
    bell: Option<OwnedFd>,
    /// The ring whose completions are taken next.
    turn: usize,
}

impl Rings {
    /// Rings for about `count` sockets; more are opened as they are needed.
    pub(super) fn open(count: u32) -> Result<Self, BenchError> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let limit = u32::try_from(limit).unwrap_or(SLOTS_MAX).min(SLOTS_MAX);
        let limit = limit.saturating_sub(DESCRIPTORS_SPARE).max(1);
        let slots = count.saturating_add(DESCRIPTORS_SPARE).min(limit);
        let mut all = Self {
            rings: Vec::new(),
            held: Vec::new(),
            slots,
            bell: None,
            turn: 0,
        };
        all.open_one()?;
        Ok(all)
    }

    fn open_one(&mut self) -> Result<(), BenchError> {
        let first = self.rings.is_empty();
        let mut ring = Ring::open(&RingConfig {
            submission_entries: 4096,
            completion_entries: 32768,
            slots: self.slots,
            buffer_count: BUFFERS,
            buffer_bytes: BUFFER_BYTES,
            ..RingConfig::default()
        })?;
        if !first {
            if self.bell.is_none() {
                let bell = eventfd(0, EventfdFlags::CLOEXEC).map_err(std::io::Error::from)?;
                self.rings[0].watch(bell.as_fd(), BELL);
                self.bell = Some(bell);
            }
            if let Some(bell) = &self.bell {
                ring.notify(bell.as_fd())?;
                ring.notify_enabled(false);
            }
        }
        self.rings.push(ring);
        self.held.push(0);
        Ok(())
    }

    /// A ring with room for one more socket, which counts as held from now on.
    pub(super) fn room(&mut self) -> Result<usize, BenchError> {
        let free = self.held.iter().position(|held| *held < self.slots);
        let ring = match free {
            Some(ring) => ring,
            None => {
                self.open_one()?;
                self.rings.len() - 1
            }
        };
        self.held[ring] += 1;
        Ok(ring)
    }

    /// A socket is gone.
    pub(super) fn release(&mut self, ring: usize) {
        self.held[ring] = self.held[ring].saturating_sub(1);
    }

    pub(super) fn of(&mut self, ring: usize) -> &mut Ring {
        &mut self.rings[ring]
    }

    /// Submits everything and waits until there is something to take, no longer than `timeout`.
    /// With one ring it waits a moment more, until there are `gather` completions to take: a
    /// sleeper that is woken for each one takes them one at a time.
    pub(super) fn wait(&mut self, gather: usize, timeout: Duration) -> Result<(), BenchError> {
        self.turn = 0;
        let Some((first, others)) = self.rings.split_first_mut() else {
            return Ok(());
        };
        let mut idle = true;
        for ring in &mut *others {
            ring.submit()?;
            idle &= ring.is_idle();
        }
        if idle {
            for ring in &mut *others {
                ring.notify_enabled(true);
                ring.submit()?;
                idle &= ring.is_idle();
            }
        }
        if gather > 1 && others.is_empty() {
            first.submit_and_gather(gather, timeout.min(GATHER_MAX))?;
        }
        first.submit_and_wait(if idle { timeout } else { Duration::ZERO })?;
        for ring in others {
            ring.notify_enabled(false);
            ring.submit()?;
        }
        Ok(())
    }

    /// The next completion, and the ring it came from.
    pub(super) fn next(&mut self) -> Option<(usize, Completion)> {
        while let Some(ring) = self.rings.get_mut(self.turn) {
            match ring.next() {
                Some(Completion::Woken { .. }) => {
                    if let Some(bell) = &self.bell {
                        ring.watch(bell.as_fd(), BELL);
                    }
                }
                Some(completion) => return Some((self.turn, completion)),
                None => self.turn += 1,
            }
        }
        None
    }
}
