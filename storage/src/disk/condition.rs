//! How the store is: in one word, and what is known of the disk.
//!
//! Written by `iris-watch`, read by everybody. Plain atomics: each is true on its own.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::metrics::lock;
use crate::recovery::Recovery;

/// How the store is as a whole; of several databases the worst counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreState {
    /// All is well.
    #[default]
    Open,
    /// Less is free on the disk than must be: messages are refused, burns and pages go on.
    Refusing,
    /// A write failed: nothing is written until the disk takes writes again; pages go on.
    Stopped,
    /// A database that had stopped is closed, and opened as soon as it lets itself be: neither writes nor pages.
    Reopening,
}

impl StoreState {
    /// All of them, from well to worst.
    pub const ALL: [StoreState; 4] = [
        StoreState::Open,
        StoreState::Refusing,
        StoreState::Stopped,
        StoreState::Reopening,
    ];

    /// For metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            StoreState::Open => "open",
            StoreState::Refusing => "refusing",
            StoreState::Stopped => "stopped",
            StoreState::Reopening => "reopening",
        }
    }
}

impl fmt::Display for StoreState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What the watch has found out.
#[derive(Default)]
pub(crate) struct Condition {
    free_bytes: AtomicU64,
    refusing: AtomicBool,
    healed: AtomicU64,
    /// By the number of the database: whoever reads it met something that cannot be read.
    unreadable: Vec<AtomicBool>,
    recovery: Mutex<Recovery>,
}

impl Condition {
    /// `recovery` is what was found when the store was opened.
    pub(crate) fn new(recovery: Recovery, databases: usize) -> Condition {
        Condition {
            unreadable: (0..databases).map(|_| AtomicBool::default()).collect(),
            recovery: Mutex::new(recovery),
            ..Condition::default()
        }
    }

    /// What was found damaged by every opening of a database so far.
    pub(crate) fn recovery(&self) -> Recovery {
        lock(&self.recovery).clone()
    }

    /// Bytes free on the disk of the data folder, as last seen.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Whether so little is free that no message may be added.
    pub(crate) fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Relaxed)
    }

    /// How often a database was taken up again.
    pub(crate) fn healed(&self) -> u64 {
        self.healed.load(Ordering::Relaxed)
    }

    /// Something in this database cannot be read: its tables are to be looked at.
    pub(crate) fn note_unreadable(&self, number: usize) {
        if let Some(unreadable) = self.unreadable.get(number) {
            unreadable.store(true, Ordering::Relaxed);
        }
    }

    /// Whether that was noted since it was asked last.
    pub(super) fn take_unreadable(&self, number: usize) -> bool {
        let unreadable = self.unreadable.get(number);
        unreadable.is_some_and(|unreadable| unreadable.swap(false, Ordering::Relaxed))
    }

    pub(super) fn note_space(&self, free_bytes: u64, refusing: bool) {
        self.free_bytes.store(free_bytes, Ordering::Relaxed);
        self.refusing.store(refusing, Ordering::Relaxed);
    }

    pub(super) fn note_healed(&self, found: Recovery) {
        lock(&self.recovery).add(found);
        self.healed.fetch_add(1, Ordering::Relaxed);
    }
}
