//! What unit tests of shards and of cores have in common.

use iris_storage::NameKey;

use super::budget::alone;
use super::{Authenticator, Key, Limits, Shard, ShardOptions};

struct Everybody;

impl Authenticator for Everybody {
    fn admits(&self, _user: &str, _credential: Option<&[u8]>) -> bool {
        true
    }
}

/// A name with that home, of two.
pub(crate) fn name_at(core: usize) -> String {
    (0..100)
        .map(|n| format!("user-{n}"))
        .find(|name| NameKey::new(1).hash(name).home(2) == core)
        .expect("a name with that home")
}

/// The first shard of so many.
pub(crate) fn first_of(cores: u16) -> Shard {
    Shard::new(ShardOptions {
        core: 0,
        cores,
        name_key: NameKey::new(1),
        first_number: 1,
        limits: Limits::default(),
        budgets: alone::budgets(1 << 30, 1 << 30),
        authenticator: Box::new(Everybody),
    })
}

impl Shard {
    /// What is sent on a connection now.
    pub(super) fn take_sent(&mut self, id: Key) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.next_dirty().is_some() {}
        while let Some(next) = self.next_send(id) {
            bytes.extend(&next.chunk[next.from..]);
            let len = next.chunk.len() - next.from;
            drop(next);
            self.sent(id, len);
        }
        bytes
    }
}
