//! The operations a caller may queue. Each queues one submission entry and cannot fail for lack
//! of room; its outcome comes as a [`Completion`](crate::Completion) with the caller's token.
//!
//! Owner: the ring's thread. Invariants: entries name slots of this ring's table (checked here),
//! provided buffers, or loans. Operations that take a borrowed descriptor submit before they
//! return, so that the kernel has taken its own reference while the descriptor is sure to be open.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed};
use io_uring::{opcode, squeue};

use crate::Ring;
use crate::buffers::{LARGE, SMALL};
use crate::completion::{CANCEL_USER_DATA, Operation};
use crate::gathered::Gathered;
use crate::loans::{Block, Loan};

/// `SOCKET_URING_OP_SIOCOUTQ` of `enum io_uring_socket_op` in linux/io_uring.h.
pub(crate) const SOCKET_OP_OUTSTANDING: u32 = 1;
/// `SOCKET_URING_OP_GETSOCKOPT` of the same.
pub(crate) const SOCKET_OP_GETSOCKOPT: u32 = 2;
/// `IORING_MSG_RING_CQE_SKIP` of linux/io_uring.h: the target gets no completion.
pub(crate) const MSG_RING_CQE_SKIP: u32 = 1;
/// `IORING_FILE_INDEX_ALLOC` of linux/io_uring.h, as an offset: the kernel chooses the slot.
pub(crate) const FILE_INDEX_ALLOC: i32 = -1;
/// What `SQE.len` can carry; a longer chunk is sent in part, as a full socket would.
const SEND_LEN_MAX: usize = i32::MAX as usize;
/// Bytes asked for of a peer's name: a whole `sockaddr_in`, and of a `sockaddr_in6` all up to the first half of its address.
/// The kernel refuses to be asked for more than there is.
const PEER_NAME_LEN: usize = 16;
/// Where `cmd_op` stands in `struct io_uring_sqe`.
const CMD_OP_AT: usize = 8;

/// Makes an entry that sets an option one that asks for it: they differ in the number of the command.
fn asking(mut entry: squeue::Entry) -> squeue::Entry {
    // SAFETY: `Entry` is `repr(C)` and holds one `struct io_uring_sqe`, plain integers of 64 bytes in the kernel's layout, in
    // which the four bytes from `CMD_OP_AT` on are `cmd_op`, aligned; the entry is owned here. `build` left the number of
    // SETSOCKOPT there, which a test of the ring would notice if it stood elsewhere.
    unsafe {
        (&raw mut entry)
            .cast::<u8>()
            .add(CMD_OP_AT)
            .cast::<u32>()
            .write(SOCKET_OP_GETSOCKOPT);
    }
    entry
}

impl Ring {
    /// Accepts every connection of a listener into slots of the kernel's choice, until it ends
    /// with [`Completion::AcceptEnded`](crate::Completion::AcceptEnded) or `more: false`.
    ///
    /// With a full table the kernel accepts and drops a connection before it says `ENFILE`: cancel
    /// in time.
    pub fn accept(&mut self, listener: BorrowedFd<'_>, token: u64) {
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
            .allocate_file_index(true)
            .build()
            .user_data(Operation::Accept.user_data(token));
        self.queue(entry);
        self.submit_borrowed();
    }

    /// Receives once, into a provided buffer, and takes no byte after that: so a connection may
    /// be handed over between two receives.
    ///
    /// # Panics
    /// Here and below: if `slot` is not of this ring's table or `token` is wider than 56 bits.
    pub fn recv(&mut self, slot: u32, token: u64) {
        let entry = opcode::Recv::new(self.fixed(slot), std::ptr::null_mut(), 0)
            .buf_group(SMALL)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT)
            .user_data(Operation::Receive.user_data(token));
        self.queue(entry);
    }

    /// Receives again and again, each time into a provided buffer, until it ends.
    pub fn recv_multishot(&mut self, slot: u32, token: u64) {
        self.recv_multishot_into(SMALL, slot, token);
    }

    /// The same into large buffers, which the ring must have been given.
    pub fn recv_multishot_large(&mut self, slot: u32, token: u64) {
        self.recv_multishot_into(LARGE, slot, token);
    }

    fn recv_multishot_into(&mut self, group: u16, slot: u32, token: u64) {
        let entry = opcode::RecvMulti::new(self.fixed(slot), group)
            .build()
            .user_data(Operation::Receive.user_data(token));
        self.queue(entry);
    }

    /// Sends `chunk[from..]`. The ring shares the chunk until
    /// [`Completion::Sent`](crate::Completion::Sent) gives its share back; until then the chunk
    /// cannot be changed, because it is shared.
    ///
    /// Two sends on one slot at the same time may be reordered: keep to one.
    ///
    /// # Panics
    /// Also if `from` lies behind the end of the chunk.
    pub fn send(&mut self, slot: u32, chunk: impl Into<Rc<Vec<u8>>>, from: usize, token: u64) {
        let chunk = chunk.into();
        assert!(from <= chunk.len(), "a send begins inside its chunk");
        let fixed = self.fixed(slot);
        let len = (chunk.len() - from).min(SEND_LEN_MAX) as u32;
        let (user_data, address) = self.lend(Operation::Send, token, Block::Chunk(chunk), None);
        let entry = opcode::Send::new(fixed, address.wrapping_add(from).cast_const(), len)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .user_data(user_data);
        self.queue(entry);
    }

    /// Sends several chunks, of the first what is behind `from`, in one go. The ring shares all of them until
    /// [`Completion::SentAll`](crate::Completion::SentAll).
    ///
    /// # Panics
    /// Also if `from` lies behind the end of the first chunk.
    pub fn send_all(
        &mut self,
        slot: u32,
        chunks: impl Iterator<Item = Rc<Vec<u8>>>,
        from: usize,
        token: u64,
    ) {
        let fixed = self.fixed(slot);
        let mut gathered = self.spares.pop().unwrap_or_else(Gathered::new);
        gathered.fill(chunks, from);
        let block = Block::Gathered(gathered);
        let (user_data, address) = self.lend(Operation::Send, token, block, None);
        let entry = opcode::SendMsg::new(fixed, address.cast::<libc::msghdr>().cast_const())
            .flags(libc::MSG_NOSIGNAL as u32)
            .build()
            .user_data(user_data);
        self.queue(entry);
    }

    /// Asks how many bytes the socket took that the peer's TCP has not acknowledged. It answers
    /// after the peer finished or reset the connection, too.
    pub fn outstanding(&mut self, slot: u32, token: u64) {
        let entry = opcode::UringCmd16::new(self.fixed(slot), SOCKET_OP_OUTSTANDING)
            .build()
            .user_data(Operation::Outstanding.user_data(token));
        self.queue(entry);
    }

    /// Asks whether the socket has ended in both directions or failed. Answers at once if it has, or
    /// if it takes bytes; else as soon as one of these becomes so. Cancel it before the slot is
    /// closed: it holds the socket.
    ///
    /// A receive does not tell every end: armed after a reset, with more to read than the kernel
    /// takes in one go (32 receives), the multishot one reads what there is and then waits on.
    pub fn poll(&mut self, slot: u32, token: u64) {
        let entry = opcode::PollAdd::new(self.fixed(slot), libc::POLLOUT as u32)
            .build()
            .user_data(Operation::Poll.user_data(token));
        self.queue(entry);
    }

    /// Asks where the peer of a socket is. The kernel looks at once, so what is queued behind it completes later.
    pub fn peer_address(&mut self, slot: u32, token: u64) {
        let fixed = self.fixed(slot);
        let name = vec![0; PEER_NAME_LEN];
        let (user_data, address) = self.lend(Operation::PeerAddress, token, Block::Own(name), None);
        let entry = opcode::SetSockOpt::new(
            fixed,
            libc::SOL_SOCKET as u32,
            libc::SO_PEERNAME as u32,
            address.cast_const().cast(),
            PEER_NAME_LEN as u32,
        )
        .build()
        .user_data(user_data);
        self.queue(asking(entry));
    }

    /// Puts the socket of `slot` into the table of another ring as well, in a slot of the kernel's
    /// choice, which [`Completion::HandedOver`](crate::Completion::HandedOver) tells. The target
    /// gets no completion: tell it by other means. Close `slot` here after that.
    ///
    /// `target_ring` is the other ring's [`Ring::fd`], which the caller knows to be open. A ring
    /// cannot hand over to itself (`EINVAL`).
    pub fn hand_over(&mut self, slot: u32, target_ring: RawFd, token: u64) {
        let target = DestinationSlot::auto_target();
        let entry = opcode::MsgRingSendFd::new(Fd(target_ring), self.fixed(slot), target, 0)
            .opcode_flags(MSG_RING_CQE_SKIP)
            .build()
            .user_data(Operation::HandOver.user_data(token));
        self.queue(entry);
    }

    /// Empties a slot. The socket itself is closed once no operation holds it: cancel receives
    /// and sends, or shut it down, before that.
    pub fn close(&mut self, slot: u32, token: u64) {
        let entry = opcode::Close::new(self.fixed(slot))
            .build()
            .user_data(Operation::Close.user_data(token));
        self.queue(entry);
    }

    /// Ends our direction of a socket: the peer sees the end after what was sent; what it sends is
    /// still received.
    ///
    /// The kernel shuts on a thread of its own, after what was queued behind it, and looks the slot
    /// up only then: close the slot once [`Completion::ShutDown`](crate::Completion::ShutDown) has
    /// come, or the next socket in it is shut instead. The same goes for [`Ring::shutdown`].
    pub fn shutdown_write(&mut self, slot: u32, token: u64) {
        let entry = opcode::Shutdown::new(self.fixed(slot), libc::SHUT_WR)
            .build()
            .user_data(Operation::Shutdown.user_data(token));
        self.queue(entry);
    }

    /// Ends both directions of a socket: the peer sees the end after what was sent, receives and
    /// sends in flight end.
    pub fn shutdown(&mut self, slot: u32, token: u64) {
        let entry = opcode::Shutdown::new(self.fixed(slot), libc::SHUT_RDWR)
            .build()
            .user_data(Operation::Shutdown.user_data(token));
        self.queue(entry);
    }

    /// Asks the kernel to end the operation of that kind and token, which then completes: with
    /// `ECANCELED`, or as it would have, if that was sooner. The asking itself has no completion.
    /// If several have the same kind and token, one of them ends.
    pub fn cancel(&mut self, operation: Operation, token: u64) {
        let user_data = if operation.borrows() {
            match self.loans.find(operation, token) {
                Some(key) => operation.user_data(key),
                None => return,
            }
        } else {
            operation.user_data(token)
        };
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(user_data))
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(CANCEL_USER_DATA);
        self.enqueue(entry);
    }

    /// Asks the kernel to end every operation on a slot, each of which then completes as after
    /// [`Ring::cancel`]. What is queued behind it is not meant.
    pub fn cancel_all(&mut self, slot: u32) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(self.fixed(slot)).all())
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(CANCEL_USER_DATA);
        self.enqueue(entry);
    }

    /// Waits for an eventfd and takes its count, once: watch again after
    /// [`Completion::Woken`](crate::Completion::Woken). A blocking eventfd serves on every kernel;
    /// with `EFD_NONBLOCK` older ones answer `EAGAIN` instead of waiting.
    pub fn watch(&mut self, eventfd: BorrowedFd<'_>, token: u64) {
        let (user_data, address) = self.lend(Operation::Watch, token, Block::Own(vec![0; 8]), None);
        let entry = opcode::Read::new(Fd(eventfd.as_raw_fd()), address, 8)
            .build()
            .user_data(user_data);
        self.queue(entry);
        self.submit_borrowed();
    }

    /// Moves a socket that was opened elsewhere into a slot of the kernel's choice, which
    /// [`Completion::Adopted`](crate::Completion::Adopted) tells; its descriptor is closed then.
    pub fn adopt(&mut self, socket: OwnedFd, token: u64) {
        // The kernel reads the descriptor there and writes the slot in its place.
        let fd = socket.as_raw_fd().to_ne_bytes().to_vec();
        let (user_data, address) = self.lend(Operation::Adopt, token, Block::Own(fd), Some(socket));
        let entry = opcode::FilesUpdate::new(address.cast::<RawFd>().cast_const(), 1)
            .offset(FILE_INDEX_ALLOC)
            .build()
            .user_data(user_data);
        self.queue(entry);
    }

    fn lend(
        &mut self,
        operation: Operation,
        token: u64,
        block: Block,
        file: Option<OwnedFd>,
    ) -> (u64, *mut u8) {
        // The same check as for tokens that travel in the entry.
        let _ = operation.user_data(token);
        let (key, address) = self.loans.take(Loan {
            operation,
            token,
            block,
            _file: file,
        });
        (operation.user_data(key), address)
    }

    fn submit_borrowed(&mut self) {
        // What fails here fails again, and is reported, at the owner's next submit.
        let _ = self.submit();
    }

    /// A slot of the table. The check matters: in a close, an index that overflows would name a
    /// descriptor of the process.
    fn fixed(&self, slot: u32) -> Fixed {
        assert!(
            slot < self.slots,
            "slot {slot} of a table of {}",
            self.slots
        );
        Fixed(slot)
    }
}
