//! The net ring: sockets driven by io_uring from one thread, behind a safe interface.
//!
//! Purpose: everything the gateway does with a client's socket goes through a [`Ring`]. Sockets
//! live in the ring's own file table as *direct descriptors* ("slots"), so `ulimit -n` bounds a
//! ring's table and not the process; bytes arrive in buffers the ring provides to the kernel;
//! chunks to be sent belong to the ring until their completion gives them back.
//!
//! Owner: the thread that opened the ring. [`Ring`] is neither `Send` nor `Sync`, and the kernel
//! itself refuses any other thread (`SINGLE_ISSUER`).
//!
//! Invariants:
//! - This is the only crate of the workspace with `unsafe`. Memory the kernel may touch is owned
//!   by the ring from the moment an operation is queued until its completion was reaped: receive
//!   buffers by `buffers`, all else by `loans`. No caller can name memory of its own.
//! - Dropping a ring cancels what is in flight and waits until the kernel is done with every
//!   buffer. Should that not come about, the memory is leaked rather than freed.
//! - [`prefetch`] and [`Scheduling`] touch no ring; they are here for their `unsafe`.
//! - Nothing blocks but [`Ring::submit_and_wait`] and [`Ring::submit_and_gather`], which are bounded
//!   by their time-outs, and `Drop`.
//!
//! Turn of an owner: [`Ring::submit`] (or [`Ring::submit_and_wait`]), then [`Ring::next`] for a
//! bounded number of [`Completion`]s, queueing operations on the way.

#![deny(unsafe_op_in_unsafe_fn)]

mod buffers;
mod completion;
mod error;
mod gathered;
mod loans;
mod operations;
mod prefetch;
mod probe;
mod reap;
mod ring;
mod scheduling;

pub use buffers::Received;
pub use completion::{Completion, Operation, TOKEN_MAX};
pub use error::RingError;
pub use prefetch::prefetch;
pub use probe::{Missing, Need, probe};
pub use ring::{Ring, RingConfig};
pub use scheduling::Scheduling;
