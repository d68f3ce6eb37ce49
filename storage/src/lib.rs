//! The inbox store of Iris: messages for users who are away, synced to disk before they are acknowledged, in
//! order, and gone once their reader has them.
//!
//! A core submits [`Request`]s through its [`StoreClient`] and polls [`Reply`]s; it never waits. One committer
//! thread for each database writes, another syncs and answers, a few reader threads read, so that a drain does not wait for
//! a sync nor a sync for a drain.
//!
//! Invariants:
//! - what was acknowledged is on disk: no reply says so before the sync returned;
//! - what was burned never comes back, also not after a crash: the head is durable and checked at every read;
//! - a sequence is never used twice in the life of a data folder;
//! - one process has a data folder open;
//! - no record is given out that fails its CRC.
//!
//! Absences: the store knows nothing of sessions, and does not drop repeats; it has no clock but for expiry.

#![forbid(unsafe_code)]

mod account;
mod answers;
mod backpressure;
mod batch;
mod burial;
mod client;
mod clock;
mod committer;
mod database;
mod databases;
mod disk;
mod durable;
mod entrance;
mod error;
mod fair_reads;
mod folder;
mod giving_back;
mod inbox;
mod journal;
mod ledger;
mod merger;
mod metrics;
mod name_key;
mod options;
mod outlets;
mod pace;
mod priority;
mod quota;
mod reader;
mod reclaim;
pub mod record;
mod recovery;
mod request;
mod room;
mod rows;
mod sample;
mod sequence;
mod shares;
mod store;
mod synced_file;
mod syncer;
mod tails;
mod totals;
mod upkeep;
mod user;
mod writeback;
mod written;

pub use client::StoreClient;
pub use disk::StoreState;
pub use error::StoreError;
pub use metrics::StoreMetrics;
pub use name_key::NameKey;
pub use options::StoreOptions;
pub use outlets::Wake;
pub use quota::{Overflow, Quotas};
pub use record::{NewRecord, RecordError, RecordView};
pub use recovery::{Check, Inbox, Recovery, Repair, Survey, check, repair, stats};
pub use request::{FailureKind, Party, Record, Reply, Request, StoredMessage};
pub use store::Store;
pub use user::{MESSAGE_KEY_LEN, MessageKey, USER_KEY_LEN, UserHash, UserKey};
