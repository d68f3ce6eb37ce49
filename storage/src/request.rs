//! What a core asks of the store, and what it hears back.
//!
//! Plain data that crosses from a core's thread to the committer or a reader and back. Invariants: each request
//! with a token gets exactly one reply with that token; a reply that says something was written is given only
//! after it was synced; requests of one user from one client take effect in the order they were submitted, as
//! far as they write.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use crate::record::{self, RecordError, RecordView};
use crate::user::UserHash;

/// For whom something is read. Those who wait for reads of the store are served in turn, one party after the other,
/// however much each of them asks; the number says nothing but which is which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Party(pub u128);

/// One thing asked of the store.
#[derive(Debug)]
pub enum Request {
    /// Store a message in the user's inbox. Answered by [`Reply::Appended`] once it is synced.
    Append {
        /// Comes back in the reply.
        token: u64,
        /// The reader's hash.
        user: UserHash,
        /// The reader's name, 1 to 255 bytes: it tells two users apart whose hashes meet.
        name: Box<str>,
        /// The message, from [`record::encode`].
        record: Vec<u8>,
    },
    /// Delete everything before `head`. Answered by [`Reply::Burned`] once it is synced; from then on nothing
    /// before `head` is seen again. A `head` beyond the last message burns all there is, and no later message.
    Burn {
        /// Comes back in the reply.
        token: u64,
        /// The reader's hash.
        user: UserHash,
        /// The reader's name.
        name: Box<str>,
        /// First sequence that is kept; [`Reply::Page`]'s `next` fits.
        head: u64,
    },
    /// The user was here. No reply, and no sync of its own: a crash of the machine may lose the last moments.
    Seen {
        /// The user's hash.
        user: UserHash,
        /// The user's name.
        name: Box<str>,
        /// Unix milliseconds; an older time than the one known changes nothing.
        at_ms: u64,
    },
    /// Read messages from the head on. Sees every append and burn whose reply was given before it was asked, and maybe
    /// some that are not synced and have no reply yet.
    /// Two pages asked at once may be answered in either order.
    Page {
        /// Comes back in the reply.
        token: u64,
        /// For whom.
        party: Party,
        /// The reader's hash.
        user: UserHash,
        /// The reader's name.
        name: Box<str>,
        /// Sequence to begin at; 0, or one before the head, begins at the head.
        from: u64,
        /// Most messages in the reply, at least 1.
        messages_max: usize,
        /// Most bytes of records in the reply; the first message comes even if it alone is longer.
        bytes_max: usize,
    },
    /// Depth of the inbox and last seen.
    Account {
        /// Comes back in the reply.
        token: u64,
        /// For whom.
        party: Party,
        /// The user's hash.
        user: UserHash,
        /// The user's name.
        name: Box<str>,
    },
    /// A page or an account that the same client asked for is not wanted any more. If no reader is at it yet, it is
    /// answered with [`FailureKind::Cancelled`] at once; else it is answered as if this had not been said.
    Cancel {
        /// Of the request that is not wanted.
        token: u64,
        /// For whom that was.
        party: Party,
    },
}

impl Request {
    /// The token its reply will carry; `None` for [`Request::Seen`] and [`Request::Cancel`], which get none.
    pub fn token(&self) -> Option<u64> {
        match self {
            Request::Append { token, .. }
            | Request::Burn { token, .. }
            | Request::Page { token, .. }
            | Request::Account { token, .. } => Some(*token),
            Request::Seen { .. } | Request::Cancel { .. } => None,
        }
    }
}

/// One answer of the store.
#[derive(Debug)]
pub enum Reply {
    /// The message is synced to disk.
    Appended {
        /// Of the request.
        token: u64,
        /// Its place in the inbox: higher than that of every message before it, never used again.
        sequence: u64,
    },
    /// What was before the head is gone for good.
    Burned {
        /// Of the request.
        token: u64,
    },
    /// A stretch of the inbox, oldest first.
    Page {
        /// Of the request.
        token: u64,
        /// Messages that are kept, sound and not expired.
        messages: Vec<StoredMessage>,
        /// Where the next page begins, and the head to burn to once these were read: it leaves behind what
        /// this page returned and what it skipped.
        next: u64,
        /// Nothing committed lay behind these when the page was read.
        end: bool,
        /// Records in this stretch that failed their checks and were skipped.
        lost: u32,
    },
    /// Depth and last seen. A user who was never heard of has zeros.
    Account {
        /// Of the request.
        token: u64,
        /// Messages in the inbox, with those that expired since the head last moved.
        messages: u64,
        /// Bytes of their records.
        bytes: u64,
        /// Unix milliseconds, 0: never.
        last_seen_ms: u64,
    },
    /// Not done. An append or a burn may still be found done later, if its sync failed; it was not
    /// acknowledged, so a sender that repeats it is right to.
    Failed {
        /// Of the request.
        token: u64,
        /// Why.
        error: FailureKind,
    },
}

impl Reply {
    /// The token of the request it answers.
    pub fn token(&self) -> u64 {
        match self {
            Reply::Appended { token, .. }
            | Reply::Burned { token }
            | Reply::Page { token, .. }
            | Reply::Account { token, .. }
            | Reply::Failed { token, .. } => *token,
        }
    }
}

/// Why a request was not done. A closed list: label of a metric and field of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The store's queue is full, or has no more room for this party: too much at once, later it may pass.
    Overloaded,
    /// A read that was not wanted any more before a reader was at it.
    Cancelled,
    /// Less is free on the disk than must be: once there is room again it may pass.
    DiskFull,
    /// The inbox holds as much as one may: once its reader was here it may pass.
    InboxFull,
    /// The data folder holds as much as it may: once some readers were here it may pass.
    StoreFull,
    /// The sender holds its share of the inbox: once the reader has taken some of it, it may pass.
    InboxShare,
    /// The sender holds its share of the data folder: once its readers have taken some of it, it may pass.
    StoreShare,
    /// Another user's name has the same key; this name cannot have an inbox here.
    NameCollision,
    /// A name that is empty or longer than 255 bytes, or a record that is not one.
    BadRequest,
    /// The user's own record, or every one of its last messages, fails its checks.
    Damaged,
    /// The disk did not give what was asked of it, or the database is being opened again.
    Unreadable,
    /// The disk did not take it. The store takes no more writes until it has healed; reads go on.
    Unwritable,
    /// The store was closed.
    Closed,
}

impl FailureKind {
    /// All of them, in the order of their counters.
    pub const ALL: [FailureKind; 13] = [
        FailureKind::Overloaded,
        FailureKind::Cancelled,
        FailureKind::DiskFull,
        FailureKind::InboxFull,
        FailureKind::StoreFull,
        FailureKind::InboxShare,
        FailureKind::StoreShare,
        FailureKind::NameCollision,
        FailureKind::BadRequest,
        FailureKind::Damaged,
        FailureKind::Unreadable,
        FailureKind::Unwritable,
        FailureKind::Closed,
    ];

    /// For metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            FailureKind::Overloaded => "overloaded",
            FailureKind::Cancelled => "cancelled",
            FailureKind::DiskFull => "disk-full",
            FailureKind::InboxFull => "inbox-full",
            FailureKind::StoreFull => "store-full",
            FailureKind::InboxShare => "inbox-share",
            FailureKind::StoreShare => "store-share",
            FailureKind::NameCollision => "name-collision",
            FailureKind::BadRequest => "bad-request",
            FailureKind::Damaged => "damaged",
            FailureKind::Unreadable => "unreadable",
            FailureKind::Unwritable => "unwritable",
            FailureKind::Closed => "closed",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A message in a page.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    /// Its place in the inbox.
    pub sequence: u64,
    /// The record; read it with [`Record::view`].
    pub record: Record,
}

/// The bytes of a stored record, shared with the block they were read in: a clone copies nothing, and one record
/// that is kept keeps its block (some kilobytes) in memory.
#[derive(Clone)]
pub struct Record(Bytes);

impl Record {
    /// Reads it in place. Records of a page were checked when the page was read; this checks again.
    ///
    /// # Errors
    /// See [`record::view`].
    pub fn view(&self) -> Result<RecordView<'_>, RecordError> {
        record::view(self)
    }
}

impl From<Bytes> for Record {
    fn from(bytes: Bytes) -> Record {
        Record(bytes)
    }
}

impl From<&[u8]> for Record {
    /// For whoever stands in for the store.
    fn from(bytes: &[u8]) -> Record {
        Record(Bytes::copy_from_slice(bytes))
    }
}

impl Deref for Record {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} bytes)", self.0.len())
    }
}
