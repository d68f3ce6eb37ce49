//! What the net ring needs of the kernel, tried out one need at a time.
//!
//! Owner: any thread, at start-up; it opens two small rings and a few sockets of its own and
//! leaves nothing behind. Invariant: it tries the very operations the gateway uses, through the
//! very code that it uses, since neither a version nor a table of operation codes tells whether a
//! container lets them through.

use std::fmt;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::{Completion, Operation, Ring, RingConfig, RingError};

/// One thing the net ring cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Need {
    /// io_uring at all, and leave to use it.
    Setup,
    /// Single issuer with deferred task work.
    DeferredTaskWork,
    /// Memory and descriptors for a ring.
    Resources,
    /// Sockets in a ring's own file table, the kernel choosing the slot.
    DirectDescriptors,
    /// Buffers provided through a ring that is shared with the kernel.
    ProvidedBuffers,
    /// One receive that answers again and again.
    MultishotReceive,
    /// Cancellation of an operation by its user data.
    Cancellation,
    /// Handing a socket to another ring.
    HandOver,
    /// Asking a socket for the bytes its peer has not acknowledged.
    OutstandingBytes,
}

impl Need {
    /// The oldest kernel that has it.
    #[must_use]
    pub fn since(self) -> &'static str {
        match self {
            Self::Setup | Self::Resources => "5.1",
            Self::DirectDescriptors | Self::ProvidedBuffers | Self::Cancellation => "5.19",
            Self::MultishotReceive | Self::HandOver => "6.0",
            Self::DeferredTaskWork => "6.1",
            Self::OutstandingBytes => "6.7",
        }
    }

    /// What it is, for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Setup => "io_uring",
            Self::DeferredTaskWork => "single issuer with deferred task work",
            Self::Resources => "memory and descriptors for a ring",
            Self::DirectDescriptors => "direct descriptors",
            Self::ProvidedBuffers => "provided buffer rings",
            Self::MultishotReceive => "multishot receive",
            Self::Cancellation => "cancellation",
            Self::HandOver => "handing a socket to another ring",
            Self::OutstandingBytes => "asking a socket for unacknowledged bytes",
        }
    }
}

/// A need that is not met here.
#[derive(Debug)]
pub struct Missing {
    /// What is missing.
    pub need: Need,
    /// What went wrong when it was tried, and what to do if that is known.
    pub cause: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { need, cause } = self;
        write!(
            f,
            "{} (Linux {} or newer): {cause}",
            need.text(),
            need.since()
        )
    }
}

/// How long one operation may take before it counts as missing.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Tries everything the net ring needs.
///
/// # Errors
/// Each need that is not met. Where io_uring itself is missing, or forbidden by the sysctl
/// `kernel.io_uring_disabled` or a seccomp profile, nothing else can be tried and that is all.
pub fn probe() -> Result<(), Vec<Missing>> {
    let config = RingConfig {
        submission_entries: 8,
        completion_entries: 16,
        slots: 4,
        buffer_count: 4,
        buffer_bytes: 64,
        ..RingConfig::default()
    };
    let rings = Ring::open(&config).and_then(|ring| Ok((ring, Ring::open(&config)?)));
    let (ring, target) = rings.map_err(|error| vec![not_opened(&error)])?;
    let mut missing = Vec::new();
    Trial { ring, target }.run(&mut missing);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(missing)
    }
}

fn not_opened(error: &RingError) -> Missing {
    let need = match error {
        RingError::Absent | RingError::Forbidden | RingError::Setup(_) => Need::Setup,
        RingError::TooOld => Need::DeferredTaskWork,
        RingError::Memory | RingError::Descriptors | RingError::Config(_) => Need::Resources,
        RingError::Slots { .. } => Need::DirectDescriptors,
        RingError::Buffers { .. } => Need::ProvidedBuffers,
    };
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let cause = match (error, disabled.as_deref().map(str::trim)) {
        (RingError::Forbidden, Ok(value @ ("1" | "2"))) => {
            format!("sysctl kernel.io_uring_disabled is {value}: set it to 0")
        }
        (RingError::Forbidden, _) => {
            "a seccomp profile forbids it: allow io_uring_setup, io_uring_enter and \
             io_uring_register"
                .to_owned()
        }
        _ => error.to_string(),
    };
    Missing { need, cause }
}

/// Two rings to try things on.
struct Trial {
    ring: Ring,
    target: Ring,
}

impl Trial {
    fn run(&mut self, missing: &mut Vec<Missing>) {
        let mut note = |need, tried: io::Result<()>| {
            if let Err(error) = tried {
                let cause = error.to_string();
                missing.push(Missing { need, cause });
            }
        };
        let sockets = UnixStream::pair().and_then(|(ours, mut theirs)| {
            theirs.write_all(b"probe")?;
            Ok((self.adopt(ours.into())?, theirs))
        });
        match sockets {
            // The peer stays open as long as its socket is tried.
            Ok((slot, _peer)) => {
                let (received, cancelled) = self.receive(slot);
                note(Need::MultishotReceive, received);
                note(Need::Cancellation, cancelled);
                note(Need::HandOver, self.hand_over(slot));
            }
            Err(error) => note(Need::DirectDescriptors, Err(error)),
        }
        note(Need::OutstandingBytes, self.outstanding());
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<u32> {
        self.ring.adopt(socket, 1);
        match self.answer()? {
            Completion::Adopted { result, .. } => result,
            other => Err(unexpected(&other)),
        }
    }

    fn receive(&mut self, slot: u32) -> (io::Result<()>, io::Result<()>) {
        self.ring.recv_multishot(slot, 2);
        let received = match self.answer() {
            Ok(Completion::Received { buffer, more, .. }) => {
                self.ring.recycle(buffer);
                if more {
                    Ok(())
                } else {
                    Err(io::ErrorKind::Unsupported.into())
                }
            }
            Ok(Completion::ReceiveEnded {
                result: Err(error), ..
            })
            | Err(error) => Err(error),
            Ok(other) => Err(unexpected(&other)),
        };
        if received.is_err() {
            return (received, Ok(()));
        }
        self.ring.cancel(Operation::Receive, 2);
        let cancelled = match self.answer() {
            Ok(Completion::ReceiveEnded {
                result: Err(error), ..
            }) if error.raw_os_error() == Some(libc::ECANCELED) => Ok(()),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(error),
        };
        (received, cancelled)
    }

    fn hand_over(&mut self, slot: u32) -> io::Result<()> {
        self.ring.hand_over(slot, self.target.fd(), 3);
        match self.answer()? {
            Completion::HandedOver { result, .. } => result.map(drop),
            other => Err(unexpected(&other)),
        }
    }

    fn outstanding(&mut self) -> io::Result<()> {
        // An unconnected socket will do, and needs no network.
        let tcp = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )?;
        let slot = self.adopt(tcp)?;
        self.ring.outstanding(slot, 4);
        match self.answer()? {
            Completion::Outstanding { result, .. } => result.map(drop),
            other => Err(unexpected(&other)),
        }
    }

    fn answer(&mut self) -> io::Result<Completion> {
        let deadline = Instant::now() + ANSWER_MAX;
        while Instant::now() < deadline {
            if let Some(completion) = self.ring.next() {
                return Ok(completion);
            }
            self.ring.submit_and_wait(Duration::from_millis(50))?;
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the kernel did not answer",
        ))
    }
}

fn unexpected(completion: &Completion) -> io::Error {
    io::Error::other(format!("unexpected answer: {completion:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_what_the_tests_need() {
        if let Err(missing) = probe() {
            panic!(
                "{}",
                missing.iter().map(|m| format!("{m}\n")).collect::<String>()
            );
        }
    }

    #[test]
    fn each_refusal_of_set_up_names_its_need() {
        let named =
            |code| not_opened(&RingError::from_setup(io::Error::from_raw_os_error(code))).need;
        assert_eq!(named(libc::ENOSYS), Need::Setup);
        assert_eq!(named(libc::EPERM), Need::Setup);
        assert_eq!(named(libc::EINVAL), Need::DeferredTaskWork);
        assert_eq!(named(libc::ENOMEM), Need::Resources);
    }
}
