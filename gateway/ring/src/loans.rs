//! Memory and files that the kernel holds on behalf of an operation in flight.
//!
//! Owner: the ring. Capacity: one loan for each operation in flight, so what bounds the callers'
//! operations bounds this. Invariant: a loan is taken before its submission entry is queued and
//! ends only when the operation's completion is reaped; until then the block stays where it is
//! (moving a `Vec` or an `Rc` does not move what it points to) and nobody writes it: a chunk may be
//! shared with its owner, and shared is read-only.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use slab::Slab;

use crate::completion::Operation;
use crate::gathered::Gathered;

/// The memory of a loan.
#[derive(Debug)]
pub(crate) enum Block {
    /// Bytes to be sent, which the kernel only reads.
    Chunk(Rc<Vec<u8>>),
    /// The same in several pieces.
    Gathered(Box<Gathered>),
    /// A few bytes of the ring's own, which the kernel may write.
    Own(Vec<u8>),
}

impl Block {
    /// Where the kernel finds it. Through a chunk's address nothing may be written.
    fn address(&mut self) -> *mut u8 {
        match self {
            Self::Chunk(chunk) => chunk.as_ptr().cast_mut(),
            Self::Gathered(gathered) => gathered.address(),
            Self::Own(bytes) => bytes.as_mut_ptr(),
        }
    }
}

/// What one operation borrowed.
#[derive(Debug)]
pub(crate) struct Loan {
    /// The operation that borrowed it.
    pub(crate) operation: Operation,
    /// The caller's token.
    pub(crate) token: u64,
    /// The block the kernel reads from or writes to.
    pub(crate) block: Block,
    /// A descriptor that must stay open until the completion.
    pub(crate) _file: Option<OwnedFd>,
}

/// All loans of a ring; a key is what the operation's completion carries.
#[derive(Debug, Default)]
pub(crate) struct Loans {
    entries: Slab<Loan>,
}

impl Loans {
    /// Takes a loan; answers its key and the address of its block.
    pub(crate) fn take(&mut self, loan: Loan) -> (u64, *mut u8) {
        let entry = self.entries.vacant_entry();
        let key = entry.key() as u64;
        let address = entry.insert(loan).block.address();
        (key, address)
    }

    /// Ends a loan. `None` would mean that the kernel answered an operation twice.
    pub(crate) fn end(&mut self, key: u64) -> Option<Loan> {
        self.entries.try_remove(usize::try_from(key).ok()?)
    }

    /// The key of the first loan of that operation and token. Walks all loans: it serves
    /// cancellation only, which is rare, at some tens of microseconds for 20,000 loans.
    pub(crate) fn find(&self, operation: Operation, token: u64) -> Option<u64> {
        self.entries
            .iter()
            .find(|(_, loan)| loan.operation == operation && loan.token == token)
            .map(|(key, _)| key as u64)
    }

    /// Gives every block up for good, because the kernel may still touch it.
    pub(crate) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.entries));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loan(token: u64) -> Loan {
        Loan {
            operation: Operation::Send,
            token,
            block: Block::Own(vec![7; 3]),
            _file: None,
        }
    }

    #[test]
    fn blocks_stay_where_they_are_while_the_table_grows() {
        let mut loans = Loans::default();
        let taken: Vec<_> = (0..1000).map(|token| loans.take(loan(token))).collect();
        for (key, address) in taken {
            let mut loan = loans.end(key).expect("taken above");
            assert_eq!(loan.block.address(), address);
            assert!(loans.end(key).is_none(), "a loan ends once");
        }
    }

    #[test]
    fn finds_by_operation_and_token() {
        let mut loans = Loans::default();
        let (key, _) = loans.take(loan(5));
        assert_eq!(loans.find(Operation::Send, 5), Some(key));
        assert_eq!(loans.find(Operation::Watch, 5), None);
        assert_eq!(loans.find(Operation::Send, 6), None);
    }
}
