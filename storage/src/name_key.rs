//! The key of a data folder, under which users' names are hashed.
//!
//! Drawn once, when the folder is made; used on every thread. Invariants: the hash of a name under a key never changes,
//! neither between processes nor between versions, because it decides where a user's messages lie on disk. Nobody outside
//! learns the key or a hash made with it, so nobody can choose a name that meets another's in one place.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use siphasher::sip128::SipHasher24;

use crate::user::UserHash;

/// The secret key of a data folder: 128 bits for SipHash-2-4 with 128 bits of output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NameKey([u8; 16]);

impl NameKey {
    /// The key with this number, as FORMAT has it.
    pub const fn new(key: u128) -> NameKey {
        NameKey(key.to_be_bytes())
    }

    /// A new one, from the kernel's random numbers.
    pub(crate) fn draw() -> io::Result<NameKey> {
        let mut key = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(NameKey(key))
    }

    /// Its number.
    pub(crate) const fn number(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// Hashes a user's name.
    #[inline]
    pub fn hash(&self, name: impl AsRef<[u8]>) -> UserHash {
        let hash = SipHasher24::new_with_key(&self.0).hash(name.as_ref());
        UserHash(u128::from_be_bytes(hash.as_bytes()))
    }

    /// A key for another purpose, which tells nothing of this one or of any hash.
    ///
    /// # Panics
    /// If the label could be a user's name: it must hold a control character, as no name does.
    pub fn derive(&self, label: &str) -> [u8; 16] {
        assert!(
            label.chars().any(char::is_control),
            "a user could have the name {label:?}"
        );
        self.hash(label).0.to_be_bytes()
    }
}

impl fmt::Debug for NameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_name_never_changes() {
        // Of the published vectors of SipHash-2-4-128; a change here would orphan every inbox on disk.
        let key = NameKey::new(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);
        for (name, hash) in [
            (&[][..], 0xa381_7f04_ba25_a8e6_6df6_7214_c755_0293),
            (&[0], 0xda87_c1d8_6b99_af44_3476_5911_9b22_fc45),
        ] {
            assert_eq!(key.hash(name).0, hash);
        }
        assert_ne!(NameKey::new(7).hash("messi"), NameKey::new(8).hash("messi"));
    }

    #[test]
    fn a_key_is_its_number_and_shows_it_to_nobody() {
        let key = NameKey::draw().expect("a key");
        assert_eq!(NameKey::new(key.number()), key);
        assert_ne!(NameKey::draw().expect("another"), key);
        assert_eq!(format!("{key:?}"), "NameKey(..)");
    }

    #[test]
    fn a_derived_key_is_another_for_each_label_and_key() {
        let (one, two) = (NameKey::new(1), NameKey::new(2));
        assert_ne!(one.derive("\0a"), one.derive("\0b"));
        assert_ne!(one.derive("\0a"), two.derive("\0a"));
    }

    #[test]
    #[should_panic = "could have the name"]
    fn a_label_is_no_name() {
        NameKey::new(1).derive("messages");
    }
}
