//! Why a ring could not be opened, each in one line that says what to do.
//!
//! Owner: whoever opens a ring. Invariant: a text names the limit or the kernel that is missing,
//! since these errors end a start of the gateway and are read by an operator.

use std::io;

/// Why [`Ring::open`](crate::Ring::open) failed.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The configuration cannot be met by any kernel: ours to correct.
    #[error("ring configuration: {0}")]
    Config(&'static str),
    /// The kernel has no io_uring, or was built without it.
    #[error("this kernel has no io_uring: Linux 6.7 or newer with CONFIG_IO_URING is needed")]
    Absent,
    /// io_uring is switched off for this process.
    #[error(
        "io_uring is forbidden here: set sysctl kernel.io_uring_disabled=0, or allow the \
         io_uring system calls in the container's seccomp profile"
    )]
    Forbidden,
    /// The kernel refuses a flag that the ring is built on.
    #[error(
        "this kernel's io_uring lacks single issuer and deferred task work: Linux 6.1 or newer is needed"
    )]
    TooOld,
    /// Locked memory or memory itself has run out.
    #[error(
        "no memory for a ring: raise the limit on locked memory (ulimit -l, LimitMEMLOCK=) or make rings smaller"
    )]
    Memory,
    /// The process has no descriptor left for the ring itself.
    #[error("no descriptor left for a ring: raise ulimit -n (LimitNOFILE=)")]
    Descriptors,
    /// The file table may hold no more slots than the process may hold descriptors.
    #[error(
        "a table of {slots} sockets is more than a ring may hold here: raise ulimit -n (LimitNOFILE=) or use more rings ({source})"
    )]
    Slots {
        /// The slots that were asked for.
        slots: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The provided buffers could not be mapped or registered.
    #[error("receive buffers of {bytes} bytes in all were refused: {source}")]
    Buffers {
        /// Size of the mapping.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else the kernel said at set-up.
    #[error("io_uring set-up failed: {0}")]
    Setup(io::Error),
}

impl RingError {
    /// Reads the answer of `io_uring_setup`.
    pub(crate) fn from_setup(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Self::Absent,
            Some(libc::EPERM | libc::EACCES) => Self::Forbidden,
            Some(libc::EINVAL) => Self::TooOld,
            Some(libc::ENOMEM) => Self::Memory,
            Some(libc::EMFILE | libc::ENFILE) => Self::Descriptors,
            _ => Self::Setup(error),
        }
    }
}
