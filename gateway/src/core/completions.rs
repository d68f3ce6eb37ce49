//! What the rings completed: looked at a block at a time, then each given to the shard.
//!
//! Owner: the core's thread. Invariants: every receive buffer goes back to its ring at once; any operation that fails
//! for good ends its connection, with its reason; a socket that fails sends no more.

use std::io;

use iris_protocol::CloseReason;
use iris_ring::{Completion, Operation};
use rustix::io::Errno;

use super::driver::Core;
use super::segments::BUFFER_BYTES;
use super::sockets::Receive;
use crate::shard::{BLOCK, Key};

/// Receives in a row for which a small buffer would have done, after which a socket has small ones again: so many
/// that one whose messages are now large and now small does not change with each.
const SMALL_RECEIVES: u8 = 64;

impl Core {
    /// Handles a block of completions of a ring; says whether there were any.
    pub(super) fn take_block(&mut self, segment: usize) -> bool {
        let ring = &mut self.segments.all[segment].ring;
        let mut block = std::mem::take(&mut self.block);
        block.extend(std::iter::from_fn(|| ring.next()).take(BLOCK));
        let is_any = !block.is_empty();
        self.shard
            .expect_received(block.iter().filter_map(|completion| match completion {
                Completion::Received { token, buffer, .. } => {
                    Some((Key::from_token(*token), ring.bytes(buffer)))
                }
                _ => None,
            }));
        self.shard
            .expect_progress(block.iter().filter_map(|completion| match completion {
                Completion::Sent { token, .. }
                | Completion::SentAll { token, .. }
                | Completion::Outstanding { token, .. } => Some(Key::from_token(*token)),
                _ => None,
            }));
        for completion in block.drain(..) {
            self.completed(segment, completion);
        }
        self.block = block;
        if self.shard.take_lanes_due() {
            self.send_lanes();
        }
        is_any
    }

    fn completed(&mut self, segment: usize, completion: Completion) {
        match completion {
            Completion::Accepted { token, slot, more } => {
                self.accepted(segment, slot);
                if !more {
                    self.segments.accept_ended(token);
                    self.segments.accept_again(token);
                }
            }
            Completion::AcceptEnded { token, error } => {
                self.accept_ended(token, &error);
            }
            Completion::Received {
                token,
                buffer,
                more,
                cut,
            } => {
                let key = Key::from_token(token);
                if let Some(socket) = self.sockets.get_mut(key) {
                    if !more {
                        socket.receive = Receive::Idle;
                    }
                    self.sweep.received(key, socket);
                    let len = buffer.len();
                    let may_change = socket.large || len >= BUFFER_BYTES as usize;
                    let ring = &self.segments.all[segment].ring;
                    if cut {
                        self.shard.received_cut(key, ring.bytes(&buffer));
                    } else {
                        self.shard.received(key, ring.bytes(&buffer));
                    }
                    if may_change {
                        self.choose_buffers(key, len);
                    }
                }
                self.segments.all[segment].ring.recycle(buffer);
                self.perform();
                self.proceed(key);
            }
            Completion::ReceiveEnded { token, result } => {
                self.receive_ended(Key::from_token(token), result);
            }
            Completion::Sent {
                token,
                chunk,
                result,
            } => {
                drop(chunk);
                self.sent(Key::from_token(token), result);
            }
            Completion::SentAll { token, result } => {
                self.sent(Key::from_token(token), result);
            }
            Completion::Outstanding { token, result } => {
                self.answered(Key::from_token(token), result);
            }
            Completion::HandedOver { token, result } => {
                self.handed_over(Key::from_token(token), result);
            }
            Completion::PeerAddress { token, result } => {
                self.located(segment, token as u32, result);
            }
            Completion::Woken { .. } => {
                let wake = self.shared.wakes[self.index].eventfd();
                self.segments.all[0].ring.watch(wake, 0);
            }
            Completion::ShutDown { token, result } => {
                self.was_shut(Key::from_token(token), result);
            }
            Completion::Polled { token, result } => {
                self.polled(Key::from_token(token), result);
            }
            Completion::Closed { result, .. } => {
                // There was no socket in the slot of a connection.
                self.shard.metrics.socket_faults += u64::from(result.is_err());
            }
            Completion::Adopted { .. } => {}
        }
    }

    /// Has a socket that filled a small buffer receive into large ones if a command was cut, and one that has
    /// those into small ones again when these would do.
    fn choose_buffers(&mut self, key: Key, len: usize) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        if !socket.large {
            if !self.shard.is_amid_large_command(key) {
                return;
            }
        } else if len > BUFFER_BYTES as usize {
            socket.small_receives = 0;
            return;
        } else {
            socket.small_receives += 1;
            if socket.small_receives < SMALL_RECEIVES {
                return;
            }
        }
        socket.small_receives = 0;
        socket.large = !socket.large;
        self.receive_anew(key);
    }

    fn receive_ended(&mut self, key: Key, result: io::Result<()>) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        socket.receive = Receive::Idle;
        let reason = match result {
            Ok(()) => CloseReason::PeerClosed,
            Err(error) => match errno(&error) {
                Some(Errno::NOBUFS) => {
                    self.shard.metrics.recv_no_buffer += 1;
                    self.proceed(key);
                    return;
                }
                Some(Errno::CANCELED) => {
                    self.proceed(key);
                    return;
                }
                _ => reason_of(&error),
            },
        };
        socket.receive = Receive::Over;
        socket.broken |= reason != CloseReason::PeerClosed;
        self.peer_ended(key, reason);
    }

    fn sent(&mut self, key: Key, result: io::Result<usize>) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        socket.sending = false;
        match result {
            Ok(len) => self.shard.sent(key, len),
            Err(error) => {
                socket.broken = true;
                self.shard.send_failed(key, reason_of(&error));
                // What the peer said before is received first, and then the end once more; a receive that is armed
                // may not tell it.
                self.receive_anew(key);
            }
        }
        self.perform();
        self.proceed(key);
    }

    /// Has the receive of a socket end, to be armed again by [`Core::proceed`]: one that is armed after the end tells it.
    pub(super) fn receive_anew(&mut self, key: Key) {
        if let Some(socket) = self.sockets.get_mut(key)
            && socket.receive == Receive::Armed
        {
            socket.receive = Receive::Ending;
            let ring = &mut self.segments.all[usize::from(socket.segment)].ring;
            ring.cancel(Operation::Receive, key.token());
        }
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

/// Why a connection ends when an operation on its socket fails for good.
fn reason_of(error: &io::Error) -> CloseReason {
    match errno(error) {
        Some(Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH) => CloseReason::Unreachable,
        // The kernel has no memory for it.
        Some(Errno::NOMEM | Errno::NOBUFS) => CloseReason::Overloaded,
        // There is no socket: a fault of ours.
        Some(Errno::BADF | Errno::NOTSOCK) => CloseReason::Internal,
        _ => CloseReason::PeerReset,
    }
}
