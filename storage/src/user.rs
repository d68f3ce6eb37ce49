//! Who an inbox belongs to: the keys made from the hash of a user's name.
//!
//! Pure functions, used on every thread. The hash itself is made by a [`NameKey`](crate::NameKey).

use std::fmt;

/// Bytes of the user's hash that stand in every key.
pub const USER_KEY_LEN: usize = 12;
/// Bytes of a message's key: the user's, then the sequence, big-endian. At 20 bytes fjall keeps a key inline.
pub const MESSAGE_KEY_LEN: usize = USER_KEY_LEN + 8;

/// The key of a beat among the messages, see `upkeep`. It sorts before all of them.
pub(crate) const BEAT_KEY: &[u8] = &[0];

/// The key of a user in the store.
pub type UserKey = [u8; USER_KEY_LEN];
/// The key of a message in the store: it sorts by user, then by age.
pub type MessageKey = [u8; MESSAGE_KEY_LEN];

/// The hash of a user's name under the data folder's key. It is as secret as the key: it stands on disk, in memory and
/// on lanes, and never on the wire, in a log line or in a metric.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserHash(pub u128);

impl UserHash {
    /// The core that owns this user: the low 64 bits modulo the number of cores.
    ///
    /// # Panics
    /// If `cores` is 0.
    pub fn home(self, cores: usize) -> usize {
        ((self.0 as u64) % (cores as u64)) as usize
    }

    /// A hash with this key, for whoever knows no more: good for all that asks for the key.
    pub(crate) fn of_key(user: UserKey) -> UserHash {
        let mut bytes = [0; 16];
        if let Some(key) = bytes.first_chunk_mut() {
            *key = user;
        }
        UserHash(u128::from_be_bytes(bytes))
    }

    /// The user's key in the store: the high 96 bits.
    pub fn key(self) -> UserKey {
        let [key @ .., _, _, _, _] = self.0.to_be_bytes();
        key
    }
}

/// The database that holds a user's inbox: the high 64 bits of the key modulo the number of databases, so that it
/// shares no bit with what the home is taken from.
pub(crate) fn database_of(user: UserKey, databases: usize) -> usize {
    let [high @ .., _, _, _, _] = user;
    (u64::from_be_bytes(high) % databases as u64) as usize
}

/// The key that sorts next behind a user's.
pub(crate) fn next_user(mut user: UserKey) -> Option<UserKey> {
    for byte in user.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(user);
        }
    }
    None
}

/// One database of several, and which users are its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) number: usize,
    pub(crate) databases: usize,
}

impl Place {
    pub(crate) fn owns(self, user: UserKey) -> bool {
        database_of(user, self.databases) == self.number
    }
}

impl fmt::Debug for UserHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserHash(..)")
    }
}

/// The key of the message with this sequence in this user's inbox.
pub(crate) fn message_key(user: UserKey, sequence: u64) -> MessageKey {
    let mut key = [0; MESSAGE_KEY_LEN];
    let (user_part, sequence_part) = key.split_at_mut(USER_KEY_LEN);
    user_part.copy_from_slice(&user);
    sequence_part.copy_from_slice(&sequence.to_be_bytes());
    key
}

/// Takes a message's key apart; `None` if it has not the length of one.
pub(crate) fn split_message_key(key: &[u8]) -> Option<(UserKey, u64)> {
    let (user, sequence) = key.split_first_chunk::<USER_KEY_LEN>()?;
    Some((*user, u64::from_be_bytes(sequence.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NameKey;

    #[test]
    fn a_hash_is_not_shown_by_what_may_be_logged() {
        let hash = UserHash(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
        assert_eq!(format!("{hash:?}"), "UserHash(..)");
    }

    #[test]
    fn home_and_key_use_different_bits() {
        let hash = UserHash(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
        assert_eq!(hash.key(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(hash.home(1 << 32), 0x0d0e_0f10);
        assert_eq!(hash.home(1), 0);
    }

    #[test]
    fn users_of_one_home_are_spread_over_the_databases() {
        let mut found = [0; 4];
        for n in 0..4000 {
            let hash = NameKey::new(7).hash(format!("user{n}"));
            if hash.home(4) == 1 {
                found[database_of(hash.key(), 4)] += 1;
            }
        }
        assert!(
            found.iter().all(|users| (150..350).contains(users)),
            "{found:?}"
        );
        assert_eq!(database_of(UserHash(5 << 64).key(), 4), 1);
    }

    #[test]
    fn the_next_user_is_the_next() {
        assert_eq!(next_user([0; 12]).map(|user| user[11]), Some(1));
        let mut user = [255; 12];
        assert_eq!(next_user(user), None);
        user[0] = 7;
        assert_eq!(
            next_user(user).map(|user| (user[0], user[11])),
            Some((8, 0))
        );
    }

    #[test]
    fn keys_sort_by_user_then_by_sequence() {
        let user = UserHash(u128::MAX / 3).key();
        assert!(message_key(user, 255) < message_key(user, 256));
        assert_eq!(split_message_key(&message_key(user, 77)), Some((user, 77)));
        assert_eq!(split_message_key(&user), None);
    }
}
