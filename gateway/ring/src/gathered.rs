//! Several chunks that go out in one send, and the list by which the kernel finds them.
//!
//! Owner: a loan while the send is in flight, the ring's spares otherwise. Invariant: the list names the chunks that stand
//! beside it and nothing else, and neither changes while the send is in flight.

use std::fmt;
use std::rc::Rc;

/// See the module's text. Boxed, so that it stays where it is.
pub(crate) struct Gathered {
    chunks: Vec<Rc<Vec<u8>>>,
    parts: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl Gathered {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            chunks: Vec::new(),
            parts: Vec::new(),
            // SAFETY: a C structure of integers and pointers, for which all zeroes are a valid value.
            header: unsafe { std::mem::zeroed() },
        })
    }

    /// Takes chunks; of the first, what is behind `from`.
    pub(crate) fn fill(&mut self, chunks: impl Iterator<Item = Rc<Vec<u8>>>, from: usize) {
        self.chunks.extend(chunks);
        let skipped = std::iter::once(from).chain(std::iter::repeat(0));
        for (chunk, from) in self.chunks.iter().zip(skipped) {
            let bytes = &chunk[from..];
            self.parts.push(libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            });
        }
        self.header.msg_iov = self.parts.as_mut_ptr();
        self.header.msg_iovlen = self.parts.len() as _;
    }

    /// Lets go of the chunks.
    pub(crate) fn clear(&mut self) {
        self.parts.clear();
        self.chunks.clear();
    }

    /// Where the kernel finds the list.
    pub(crate) fn address(&mut self) -> *mut u8 {
        (&raw mut self.header).cast()
    }
}

impl fmt::Debug for Gathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gathered").field(&self.chunks.len()).finish()
    }
}
