//! Reaping: entries of the completion queue become [`Completion`]s.
//!
//! Owner: the ring's thread. Invariant: what an operation borrowed goes back with its last entry,
//! here and nowhere else: the loan to the caller, a buffer to the caller or to the kernel.

use std::io;

use io_uring::cqueue;

use crate::completion::{Operation, adopted_slot, peer_address, result};
use crate::loans::Block;
use crate::{Completion, Ring};

/// Lists of chunks that are kept: as many as sockets are likely to be sent several chunks at once.
const SPARES_MAX: usize = 1024;

impl Ring {
    /// The next completion, if one is there. No system call; the owner bounds how many it takes
    /// before it submits again.
    #[allow(
        clippy::should_implement_trait,
        reason = "a queue that refills, not a sequence"
    )]
    pub fn next(&mut self) -> Option<Completion> {
        loop {
            let entry = self.uring.0.completion().next()?;
            if let Some(completion) = self.read(&entry) {
                return Some(completion);
            }
        }
    }

    /// Reads one entry. `None` for the completions nobody waits for.
    fn read(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let (operation, low) = Operation::parse(entry.user_data())?;
        let more = cqueue::more(entry.flags());
        if !more {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        if operation.borrows() {
            return self.read_loan(operation, low, entry.result());
        }
        let (token, outcome) = (low, result(entry.result()));
        Some(match operation {
            Operation::Receive => return self.read_receive(token, entry, more),
            Operation::Accept => match outcome {
                Ok(slot) => Completion::Accepted { token, slot, more },
                Err(error) => Completion::AcceptEnded { token, error },
            },
            Operation::Outstanding => Completion::Outstanding {
                token,
                result: outcome,
            },
            Operation::HandOver => Completion::HandedOver {
                token,
                result: outcome,
            },
            Operation::Close => Completion::Closed {
                token,
                result: outcome.map(drop),
            },
            Operation::Shutdown => Completion::ShutDown {
                token,
                result: outcome.map(drop),
            },
            Operation::Poll => Completion::Polled {
                token,
                result: outcome.map(has_ended),
            },
            Operation::Send | Operation::Watch | Operation::Adopt | Operation::PeerAddress => {
                return None;
            }
        })
    }

    fn read_receive(
        &mut self,
        token: u64,
        entry: &cqueue::Entry,
        more: bool,
    ) -> Option<Completion> {
        let buffer = cqueue::buffer_select(entry.flags());
        let len = result(entry.result());
        Some(match (len, buffer) {
            (Ok(len @ 1..), Some(id)) => match self.group(id).lend(id, len) {
                Some(buffer) => Completion::Received {
                    token,
                    buffer,
                    more,
                    cut: len == self.group(id).bytes_each() && cqueue::sock_nonempty(entry.flags()),
                },
                None => Completion::ReceiveEnded {
                    token,
                    result: Err(io::ErrorKind::InvalidData.into()),
                },
            },
            (len, buffer) => {
                // No bytes; should the kernel have spent a buffer on that, it gets it back.
                if let Some(spent) = buffer.and_then(|id| self.group(id).lend(id, 0)) {
                    self.recycle(spent);
                }
                Completion::ReceiveEnded {
                    token,
                    result: len.map(drop),
                }
            }
        })
    }

    fn read_loan(&mut self, operation: Operation, key: u64, res: i32) -> Option<Completion> {
        let loan = self.loans.end(key)?;
        let token = loan.token;
        let outcome = result(res);
        Some(match loan.block {
            Block::Chunk(chunk) => Completion::Sent {
                token,
                chunk,
                result: outcome.map(|sent| sent as usize),
            },
            Block::Gathered(mut gathered) => {
                gathered.clear();
                if self.spares.len() < SPARES_MAX {
                    self.spares.push(gathered);
                }
                Completion::SentAll {
                    token,
                    result: outcome.map(|sent| sent as usize),
                }
            }
            Block::Own(_) if operation == Operation::Watch => Completion::Woken {
                token,
                result: outcome.map(drop),
            },
            Block::Own(name) if operation == Operation::PeerAddress => Completion::PeerAddress {
                token,
                result: outcome.and_then(|_| peer_address(&name)),
            },
            Block::Own(bytes) => Completion::Adopted {
                token,
                result: outcome.and_then(|_| adopted_slot(&bytes)),
            },
        })
    }
}

/// Whether the events of a poll say that a socket is of no use any more.
fn has_ended(events: u32) -> bool {
    events & (libc::POLLHUP | libc::POLLERR) as u32 != 0
}
