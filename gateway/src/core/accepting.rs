//! Connections come in, and what keeps them from coming in.
//!
//! Owner: the core's thread. An accept that fails for want of something (descriptors, memory) would
//! fail again at once, and the core would do nothing else: it is armed again after a while, the
//! longer the more often it failed. The clients wait in the accept queue meanwhile.

use std::io;
use std::net::IpAddr;

use iris_protocol::CloseReason;
use rustix::io::Errno;

use super::addresses::Place;
use super::driver::Core;

/// How soon a failed accept is armed again, at first and at last: as long as nobody notices, and
/// so seldom that failing costs nothing.
const BACKOFF_MIN_MS: u64 = 10;
const BACKOFF_MAX_MS: u64 = 1_000;

/// Accepts that wait to be armed again.
#[derive(Default)]
pub(super) struct Accepting {
    /// Connections are let in. Not before every core is up: a login whose home is not
    /// would have to be turned away.
    pub(super) begun: bool,
    /// The listener, and the moment on the core's clock.
    waiting: Vec<(u64, u64)>,
    /// How long the next one that fails will wait; 0 while all is well.
    backoff_ms: u64,
}

impl Accepting {
    /// When the next one is due.
    pub(super) fn again_ms(&self) -> Option<u64> {
        self.waiting.iter().map(|(_, at_ms)| *at_ms).min()
    }
}

impl Core {
    /// Sees to it that a ring with room accepts, once all cores are up.
    pub(super) fn steer_accept(&mut self) {
        self.accepting.begun = self.accepting.begun || self.shared.all_up();
        if self.accepting.begun {
            self.segments.steer_accept();
        }
    }

    /// A connection was accepted. It is let in once the kernel has said where its peer is, in this same turn.
    pub(super) fn accepted(&mut self, segment: usize, slot: u32) {
        self.accepting.backoff_ms = 0;
        if !self.shared.admit_connection() {
            self.turn_away(segment, slot, CloseReason::ServerFull);
            return;
        }
        let segment = &mut self.segments.all[segment];
        segment.used += 1;
        segment.ring.peer_address(slot, u64::from(slot));
    }

    /// The kernel said where the peer of an accepted connection is, or does not know.
    pub(super) fn located(&mut self, segment: usize, slot: u32, address: io::Result<IpAddr>) {
        let place = match address {
            Ok(address) => self.shared.addresses.admit(address),
            Err(_) => {
                self.shard.metrics.address_unknown += 1;
                Some(Place::UNKNOWN)
            }
        };
        let Some(place) = place else {
            self.segments.all[segment].used -= 1;
            self.shared.release_connection(Place::UNKNOWN);
            self.turn_away(segment, slot, CloseReason::AddressLimit);
            return;
        };
        let key = self.shard.accepted();
        self.sockets.insert(key, segment as u16, slot, place);
        self.proceed(key);
    }

    /// Closes a connection that was accepted, without a word: its protocol is not known yet.
    fn turn_away(&mut self, segment: usize, slot: u32, reason: CloseReason) {
        self.shard.metrics.accepted += 1;
        self.shard.metrics.count_close(reason);
        self.segments.all[segment].ring.close(slot, 0);
    }

    /// An accept ended of itself, was cancelled, or failed.
    pub(super) fn accept_ended(&mut self, token: u64, error: &io::Error) {
        self.segments.accept_ended(token);
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        // The first is our own doing, the second a client's that did not wait.
        if matches!(errno, Some(Errno::CANCELED | Errno::CONNABORTED)) {
            self.segments.accept_again(token);
            return;
        }
        self.shard.metrics.accept_failures += 1;
        if self.accepting.backoff_ms == 0 {
            tracing::warn!(
                core = self.index,
                %error,
                "connections cannot be accepted: they wait until they can"
            );
        }
        let backoff_ms = 2 * self.accepting.backoff_ms;
        self.accepting.backoff_ms = backoff_ms.clamp(BACKOFF_MIN_MS, BACKOFF_MAX_MS);
        let at_ms = self.now_ms + self.accepting.backoff_ms;
        self.accepting.waiting.push((token, at_ms));
    }

    /// Arms those again whose time has come.
    pub(super) fn accept_after_backoff(&mut self) {
        let now_ms = self.now_ms;
        let segments = &mut self.segments;
        self.accepting.waiting.retain(|(token, at_ms)| {
            let is_due = *at_ms <= now_ms;
            if is_due {
                segments.accept_again(*token);
            }
            !is_due
        });
    }
}
