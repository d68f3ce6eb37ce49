//! What opening a database found wrong, in numbers.
//!
//! Plain data; added up over databases and openings.

use std::path::PathBuf;

/// What opening found wrong, and what became of it. All zeros: nothing was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Journal files with bytes that are not as they were written, or that end too early.
    pub journals_damaged: u64,
    /// Journal files that are gone, and were not written off.
    pub journals_missing: u64,
    /// Table files that are damaged or gone: they are taken out of their keyspace, and what is sound in them is put
    /// back.
    pub tables_damaged: u64,
    /// Messages of damaged tables, or behind the damage of journals, that were put back.
    pub messages_put_back: u64,
    /// Of these, messages of users without an account: it is lost, and whose key it is gets them; or the key itself was
    /// hit, and nobody does.
    pub messages_unclaimed: u64,
    /// Accounts likewise that were put back.
    pub accounts_put_back: u64,
    /// Messages that the journals lost, by the gaps in their sequences. Some of them may be in a table all the same; and
    /// what was lost before a block of sequences began is not known.
    pub messages_lost: u64,
    /// Messages that damaged tables lost, by the tables' own count: at most so many, since some may have been burned.
    pub table_messages_lost: u64,
    /// Accounts that damaged tables lost, likewise: whoever has read messages that are still on disk gets them again.
    pub table_accounts_lost: u64,
    /// Sequences at the end that were synced and are not there: at most so many messages. Each opening takes one for
    /// itself, and several databases share them.
    pub sequences_lost: u64,
    /// Bytes of journals and tables that could not be read.
    pub bytes_lost: u64,
    /// Users of whom something was put back.
    pub users_touched: u64,
    /// Where the damaged files were copied to.
    pub kept_in: Vec<PathBuf>,
}

impl Recovery {
    /// Whether anything was wrong.
    pub fn is_clean(&self) -> bool {
        *self == Recovery::default()
    }

    /// Messages that were lost, at most.
    pub fn lost(&self) -> u64 {
        self.messages_lost + self.table_messages_lost + self.sequences_lost
    }

    /// Adds what was found in another database.
    pub(crate) fn add(&mut self, other: Recovery) {
        self.journals_damaged += other.journals_damaged;
        self.journals_missing += other.journals_missing;
        self.tables_damaged += other.tables_damaged;
        self.messages_put_back += other.messages_put_back;
        self.messages_unclaimed += other.messages_unclaimed;
        self.accounts_put_back += other.accounts_put_back;
        self.messages_lost += other.messages_lost;
        self.table_messages_lost += other.table_messages_lost;
        self.table_accounts_lost += other.table_accounts_lost;
        self.sequences_lost += other.sequences_lost;
        self.bytes_lost += other.bytes_lost;
        self.users_touched += other.users_touched;
        self.kept_in.extend(other.kept_in);
    }
}
