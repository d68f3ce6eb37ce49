//! The end of a socket, whoever begins it: flush, shut, listen a little longer,
//! ask the kernel what the peer has, tell the shard, close the slot.
//!
//! Owner: the core's thread. Closing with unread input makes the kernel reset the
//! connection, which can destroy a close frame that is still on its way; so the
//! peer gets [`LINGER_MS`] to end its side first.

use std::io;

use iris_protocol::CloseReason;
use iris_ring::Operation;

use super::addresses::Place;
use super::driver::Core;
use super::sockets::{Fate, Receive};
use crate::shard::Key;

/// How long a closing connection may take to flush and to end its side.
const LINGER_MS: u64 = 1_000;
/// How long the kernel may take to end what is in flight on a socket that was shut both ways; what is longer is a fault.
const OVERDUE_MS: u64 = 5_000;

impl Core {
    /// The shard closes a connection.
    pub(super) fn begin_close(&mut self, key: Key) {
        let reason = self
            .shard
            .closing_reason(key)
            .unwrap_or(CloseReason::Internal);
        if let Some(socket) = self.sockets.get_mut(key)
            && matches!(socket.fate, Fate::Stays | Fate::Moves(_))
        {
            socket.fate = Fate::Flushes(reason);
            let place = socket.place;
            if reason == CloseReason::BadCredential {
                self.login_failed(place);
            }
            self.lingering.push(self.now_ms + LINGER_MS, key);
            self.stop_polling(key);
            self.proceed(key);
        }
    }

    /// The peer has finished sending, or is gone: the shard closes the connection
    /// once it has read what was received before.
    pub(super) fn peer_ended(&mut self, key: Key, reason: CloseReason) {
        self.shard.peer_ended(key, reason);
        self.perform();
        self.proceed(key);
    }

    /// Takes a closing socket one step further, if it is time.
    pub(super) fn proceed_close(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let ring = &mut self.segments.all[usize::from(socket.segment)].ring;
        match socket.fate {
            Fate::Flushes(reason) => {
                let flushed = socket.broken || self.shard.is_flushed(key);
                if socket.sending || !flushed {
                    return;
                }
                if !socket.broken {
                    socket.shutting += 1;
                    ring.shutdown_write(socket.slot, key.token());
                }
                socket.fate = Fate::Lingers(reason);
                self.proceed(key);
            }
            Fate::Lingers(reason) => {
                let received = match socket.receive {
                    Receive::Over => true,
                    Receive::Idle => socket.cut,
                    Receive::Armed | Receive::Ending => false,
                };
                let asking = socket.probing || socket.polling;
                if !received || asking || socket.shutting > 0 {
                    return;
                }
                socket.fate = Fate::Asks(reason);
                ring.outstanding(socket.slot, key.token());
            }
            _ => {}
        }
    }

    /// The kernel has shut a socket, or found nothing left to shut.
    pub(super) fn was_shut(&mut self, key: Key, result: io::Result<()>) {
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.shutting -= 1;
            socket.shut |= result.is_ok();
        }
        self.proceed(key);
    }

    /// The kernel said how many bytes the peer has not acknowledged.
    pub(super) fn answered(&mut self, key: Key, result: io::Result<u32>) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        // Our end of the stream counts as a byte until it is acknowledged.
        let shut = u32::from(socket.shut);
        let outstanding = result.ok().map(|bytes| bytes.saturating_sub(shut));
        if let Fate::Asks(reason) = socket.fate {
            self.end(key, reason, outstanding);
            return;
        }
        socket.probing = false;
        if outstanding.is_none() {
            self.is_gone(key);
        }
        self.shard.probed(key, outstanding);
        self.perform();
        self.proceed(key);
    }

    /// Tells the shard that a connection has ended, and gives its slot back.
    fn end(&mut self, key: Key, reason: CloseReason, outstanding: Option<u32>) {
        // Before the shard forgets whose it was. Nothing here is evaluated unless it is logged.
        tracing::debug!(
            core = self.index,
            user = self.shard.user_name(key).as_deref(),
            reason = reason.label(),
            "connection closed"
        );
        self.shard.ended(key, reason, outstanding);
        let place = self.release(key);
        self.shared.release_connection(place);
        self.perform();
    }

    /// Gives a slot back, and says where the peer was.
    pub(super) fn release(&mut self, key: Key) -> Place {
        let Some(socket) = self.sockets.remove(key) else {
            return Place::UNKNOWN;
        };
        let segment = &mut self.segments.all[usize::from(socket.segment)];
        segment.used -= 1;
        segment.ring.close(socket.slot, key.token());
        socket.place
    }

    /// A login on this connection showed a wrong credential.
    fn login_failed(&self, place: Place) {
        if let Some(told) = self.shared.addresses.login_failed(place) {
            tracing::info!(
                address = %told.address,
                of_address = told.failed,
                since_last_line = told.since_last,
                "login with a wrong credential"
            );
        }
    }

    /// Ends the wait for peers that do not end their side; says whether there were any.
    pub(super) fn end_patience(&mut self) -> bool {
        let mut any = false;
        while let Some(key) = self.lingering.pop_due(self.now_ms) {
            any |= self.cut(key);
        }
        while let Some(key) = self.overdue.pop_due(self.now_ms) {
            any |= self.give_up(key);
        }
        any
    }

    /// A socket that was cut is still there: what is in flight on it did not end. Its connection ends without that.
    fn give_up(&mut self, key: Key) -> bool {
        let Some(socket) = self.sockets.get_mut(key) else {
            return false;
        };
        let (Fate::Flushes(reason) | Fate::Lingers(reason) | Fate::Asks(reason)) = socket.fate
        else {
            return false;
        };
        self.shard.metrics.socket_faults += 1;
        tracing::error!(core = self.index, ?socket, "a closed socket does not end");
        if socket.shutting > 0 {
            // Its slot cannot be given to another.
            return false;
        }
        self.end(key, reason, None);
        true
    }

    /// No look at a socket is of use any more.
    pub(super) fn stop_polling(&mut self, key: Key) {
        if let Some(socket) = self.sockets.get_mut(key)
            && socket.polling
        {
            let ring = &mut self.segments.all[usize::from(socket.segment)].ring;
            ring.cancel(Operation::Poll, key.token());
        }
    }

    /// The drain takes too long: no closing connection is waited for any more.
    pub(super) fn lose_patience(&mut self) {
        while let Some(key) = self.lingering.pop() {
            self.cut(key);
        }
    }

    /// Shuts a closing socket both ways, which ends what is in flight on it.
    fn cut(&mut self, key: Key) -> bool {
        let Some(socket) = self.sockets.get_mut(key) else {
            return false;
        };
        if !matches!(socket.fate, Fate::Flushes(_) | Fate::Lingers(_)) {
            return false;
        }
        socket.broken = true;
        socket.cut = true;
        socket.shutting += 1;
        let ring = &mut self.segments.all[usize::from(socket.segment)].ring;
        // The kernel may have no thread to shut it with.
        ring.cancel_all(socket.slot);
        ring.shutdown(socket.slot, key.token());
        self.overdue.push(self.now_ms + OVERDUE_MS, key);
        self.proceed(key);
        true
    }
}
