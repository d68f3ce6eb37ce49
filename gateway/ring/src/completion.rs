//! What the ring tells its owner, and how a completion entry is read.
//!
//! Owner: the ring's thread. Invariants: every operation but [`Ring::cancel`](crate::Ring::cancel)
//! ends in exactly one last completion (multishot ones have others before it); the upper 8 bits of
//! an entry's user data are the [`Operation`], the lower 56 the caller's token, or the key of a
//! loan for operations that lend memory to the kernel.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use crate::Received;

/// The largest token a caller may use: 56 bits.
pub const TOKEN_MAX: u64 = (1 << 56) - 1;

/// The operations of a ring, as [`Ring::cancel`](crate::Ring::cancel) names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Operation {
    /// [`Ring::accept`](crate::Ring::accept).
    Accept = 1,
    /// [`Ring::recv`](crate::Ring::recv) and
    /// [`Ring::recv_multishot`](crate::Ring::recv_multishot).
    Receive = 2,
    /// [`Ring::send`](crate::Ring::send) and [`Ring::send_all`](crate::Ring::send_all).
    Send = 3,
    /// [`Ring::outstanding`](crate::Ring::outstanding).
    Outstanding = 4,
    /// [`Ring::hand_over`](crate::Ring::hand_over).
    HandOver = 5,
    /// [`Ring::close`](crate::Ring::close).
    Close = 6,
    /// [`Ring::shutdown`](crate::Ring::shutdown).
    Shutdown = 7,
    /// [`Ring::watch`](crate::Ring::watch).
    Watch = 8,
    /// [`Ring::adopt`](crate::Ring::adopt).
    Adopt = 9,
    /// [`Ring::poll`](crate::Ring::poll).
    Poll = 10,
    /// [`Ring::peer_address`](crate::Ring::peer_address).
    PeerAddress = 11,
}

/// The user data of cancellations, whose completions concern nobody.
pub(crate) const CANCEL_USER_DATA: u64 = u64::MAX;

impl Operation {
    const ALL: [Self; 11] = [
        Self::Accept,
        Self::Receive,
        Self::Send,
        Self::Outstanding,
        Self::HandOver,
        Self::Close,
        Self::Shutdown,
        Self::Watch,
        Self::Adopt,
        Self::Poll,
        Self::PeerAddress,
    ];

    /// The user data of an entry: this operation, and a token or the key of a loan.
    pub(crate) fn user_data(self, low: u64) -> u64 {
        assert!(low <= TOKEN_MAX, "a token has 56 bits");
        (self as u64) << 56 | low
    }

    /// Reads user data. `None`: a cancellation's.
    pub(crate) fn parse(user_data: u64) -> Option<(Self, u64)> {
        let code = usize::try_from(user_data >> 56).ok()?;
        let operation = *Self::ALL.get(code.checked_sub(1)?)?;
        Some((operation, user_data & TOKEN_MAX))
    }

    /// Whether the entry carries the key of a loan instead of the caller's token.
    pub(crate) fn borrows(self) -> bool {
        matches!(
            self,
            Self::Send | Self::Watch | Self::Adopt | Self::PeerAddress
        )
    }
}

/// One event of a ring. `token` is always that of the call it answers. `Debug` shows the length of
/// a chunk and not the messages in it.
#[must_use = "a completion may own a chunk or a buffer"]
pub enum Completion {
    /// A connection was accepted into `slot`.
    Accepted {
        /// Of the accept.
        token: u64,
        /// Where the socket lives now.
        slot: u32,
        /// Whether the accept is still armed. If not, it has ended and says no more.
        more: bool,
    },
    /// The accept ended; accept again to go on. `ENFILE` says that the table was full, and that
    /// one connection was dropped for it.
    AcceptEnded {
        /// Of the accept.
        token: u64,
        /// Why; `ECANCELED` if it was cancelled.
        error: io::Error,
    },
    /// Bytes came in.
    Received {
        /// Of the receive.
        token: u64,
        /// Where they are. Recycle it.
        buffer: Received,
        /// Whether a multishot receive is still armed. If not, it has ended and says no more.
        more: bool,
        /// The buffer is full and the socket held more, bytes or the peer's end: what arrived
        /// together is cut here, and the next receive brings the rest.
        cut: bool,
    },
    /// A receive ended without bytes.
    ReceiveEnded {
        /// Of the receive.
        token: u64,
        /// `Ok`: the peer has finished sending. `ENOBUFS`: every buffer is lent; recycle, and
        /// receive again. `ECANCELED`: it was cancelled; no byte was taken from the socket.
        result: io::Result<()>,
    },
    /// A send ended.
    Sent {
        /// Of the send.
        token: u64,
        /// The ring's share of the chunk, whole as it was given.
        chunk: Rc<Vec<u8>>,
        /// How many bytes, from the offset that was given, the socket took: maybe fewer than
        /// all, then send the rest.
        result: io::Result<usize>,
    },
    /// A send of several chunks ended.
    SentAll {
        /// Of the send.
        token: u64,
        /// How many bytes of all of them together the socket took, as for [`Self::Sent`].
        result: io::Result<usize>,
    },
    /// The answer to [`Ring::outstanding`](crate::Ring::outstanding).
    Outstanding {
        /// Of the question.
        token: u64,
        /// Bytes that the socket took and the peer's TCP has not acknowledged.
        result: io::Result<u32>,
    },
    /// A hand-over ended. The socket lives in both tables until this ring closes its slot.
    HandedOver {
        /// Of the hand-over.
        token: u64,
        /// The slot in the target's table; `ENFILE` if that is full.
        result: io::Result<u32>,
    },
    /// A slot was closed, and may already belong to another socket.
    Closed {
        /// Of the close.
        token: u64,
        /// `EBADF` if the slot was empty.
        result: io::Result<()>,
    },
    /// A socket was shut down.
    ShutDown {
        /// Of the shutdown.
        token: u64,
        /// `ENOTCONN` if the peer was gone already.
        result: io::Result<()>,
    },
    /// The answer to [`Ring::poll`](crate::Ring::poll).
    Polled {
        /// Of the poll.
        token: u64,
        /// Whether both directions of the socket have ended, or it failed; `EBADF` if there is no
        /// socket in the slot, `ECANCELED` if the poll was cancelled.
        result: io::Result<bool>,
    },
    /// The eventfd fired; watch again to hear of the next time.
    Woken {
        /// Of the watch.
        token: u64,
        /// `ECANCELED` if it was cancelled.
        result: io::Result<()>,
    },
    /// The answer to [`Ring::peer_address`](crate::Ring::peer_address).
    PeerAddress {
        /// Of the question.
        token: u64,
        /// Where the peer is; of IPv6 its first 64 bits, the others are 0. `EOPNOTSUPP`: this kernel does not tell.
        /// `ENOTCONN`: the connection is gone.
        result: io::Result<IpAddr>,
    },
    /// A socket was adopted.
    Adopted {
        /// Of the adoption.
        token: u64,
        /// The slot it lives in; `ENFILE` if the table is full.
        result: io::Result<u32>,
    },
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, token, result): (_, _, &dyn fmt::Debug) = match self {
            Self::Accepted { token, slot, more } => ("Accepted", token, &(slot, more)),
            Self::AcceptEnded { token, error } => ("AcceptEnded", token, error),
            Self::Received {
                token,
                buffer,
                more,
                ..
            } => ("Received", token, &(buffer.len(), more)),
            Self::ReceiveEnded { token, result } => ("ReceiveEnded", token, result),
            Self::Sent {
                token,
                chunk,
                result,
            } => ("Sent", token, &(chunk.len(), result)),
            Self::SentAll { token, result } => ("SentAll", token, result),
            Self::Outstanding { token, result } => ("Outstanding", token, result),
            Self::HandedOver { token, result } => ("HandedOver", token, result),
            Self::Closed { token, result } => ("Closed", token, result),
            Self::ShutDown { token, result } => ("ShutDown", token, result),
            Self::Polled { token, result } => ("Polled", token, result),
            Self::Woken { token, result } => ("Woken", token, result),
            Self::PeerAddress { token, result } => ("PeerAddress", token, result),
            Self::Adopted { token, result } => ("Adopted", token, result),
        };
        f.debug_tuple(name).field(token).field(result).finish()
    }
}

/// The result of an entry: negative is an error number.
pub(crate) fn result(res: i32) -> io::Result<u32> {
    u32::try_from(res).map_err(|_| io::Error::from_raw_os_error(res.wrapping_neg()))
}

/// Where the kernel wrote the slot it chose for an adopted socket.
pub(crate) fn adopted_slot(bytes: &[u8]) -> io::Result<u32> {
    let slot = bytes.first_chunk().map(|slot| i32::from_ne_bytes(*slot));
    slot.map_or_else(|| result(-libc::EIO), result)
}

/// The address in the first 16 bytes of a socket's name.
pub(crate) fn peer_address(name: &[u8]) -> io::Result<IpAddr> {
    let family = name
        .first_chunk()
        .map(|bytes| i32::from(u16::from_ne_bytes(*bytes)));
    let address = match family {
        // Family and port, then the address; here, a flow label comes between.
        Some(libc::AF_INET) => name.get(4..8).and_then(|bytes| bytes.first_chunk()),
        Some(libc::AF_INET6) => {
            let mut address = [0; 16];
            let (network, _) = address.split_at_mut(8);
            network.copy_from_slice(name.get(8..16).unwrap_or(&[0; 8]));
            return Ok(IpAddr::from(address));
        }
        _ => None,
    };
    address.map_or_else(
        || Err(io::ErrorKind::Unsupported.into()),
        |address: &[u8; 4]| Ok(IpAddr::from(*address)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_reads_back() {
        for operation in Operation::ALL {
            for low in [0, 1, TOKEN_MAX] {
                let data = operation.user_data(low);
                assert_ne!(data, CANCEL_USER_DATA);
                assert_eq!(Operation::parse(data), Some((operation, low)));
            }
        }
        assert_eq!(Operation::parse(CANCEL_USER_DATA), None);
        assert_eq!(Operation::parse(0), None);
    }

    #[test]
    #[should_panic(expected = "56 bits")]
    fn a_token_too_wide_is_refused() {
        let _ = Operation::Send.user_data(TOKEN_MAX + 1);
    }

    #[test]
    fn negative_results_are_errors() {
        assert_eq!(result(5).expect("a count"), 5);
        let error = result(-libc::ENOBUFS).expect_err("an error number");
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
        assert!(result(i32::MIN).is_err());
    }
}
