//! Which message it is: inside the gateway, and as its framed readers and senders see it.
//!
//! Inside, a message is known by the pair of its sender and a number, in the shard, on lanes and in stored records.
//! Outside, that pair would tell half of the hash of the sender's name, which must stay secret, and how much a user sends.
//! So clients see it encrypted, by a permutation whose key is made from the data folder's. Invariants: a repeat keeps its id;
//! two pairs never have the same id; without the key an id tells nothing.
//!
//! Owner: the shard. It is encrypted where a DELIVER is encoded and where an answer is put on its way, nowhere else.

use aes::Aes128;
use aes::cipher::{BlockEncrypt, KeyInit};
use iris_protocol::MessageId;
use iris_storage::NameKey;

/// What the permutation's key is made from; no user can have this name.
const LABEL: &str = "\0message ids";

/// A message inside the gateway: the same pair for a repeat, for as long as the store lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The upper half of the hash of the sender's name.
    pub sender: u64,
    /// The sender's own number, or, above [`SEQUENCE_MAX`](iris_protocol::SEQUENCE_MAX), one of the gateway's.
    pub number: u64,
}

/// Makes the ids that clients see: AES-128 over the pair.
pub struct Ids(Aes128);

impl Ids {
    /// Those of a data folder.
    pub fn new(key: NameKey) -> Ids {
        Ids(Aes128::new(&key.derive(LABEL).into()))
    }

    /// The id of a message.
    #[inline]
    pub fn of(&self, origin: Origin) -> MessageId {
        let pair = (u128::from(origin.sender) << 64) | u128::from(origin.number);
        let mut block = pair.to_be_bytes().into();
        self.0.encrypt_block(&mut block);
        MessageId::from_bytes(block.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const KEY: NameKey = NameKey::new(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);

    fn bits(id: MessageId) -> u128 {
        u128::from_be_bytes(id.to_bytes())
    }

    fn origin(name: &str, number: u64) -> Origin {
        Origin {
            sender: (KEY.hash(name).0 >> 64) as u64,
            number,
        }
    }

    #[test]
    fn a_repeat_keeps_its_id_and_no_two_messages_share_one() {
        let ids = Ids::new(KEY);
        let origins = (0..200)
            .flat_map(|user| (1..=50).map(move |number| origin(&format!("user-{user}"), number)));
        let mut seen = HashSet::new();
        for origin in origins {
            assert_eq!(ids.of(origin), Ids::new(KEY).of(origin));
            assert!(seen.insert(ids.of(origin)), "{origin:?}");
        }
    }

    #[test]
    fn neighbours_share_no_structure() {
        let ids = Ids::new(KEY);
        let count = 10_000;
        let mut changed = [0u32; 128];
        for number in 1..=count {
            let (id, next) = (
                bits(ids.of(origin("anna", number))),
                bits(ids.of(origin("anna", number + 1))),
            );
            let difference = id ^ next;
            // Half of 128, and no further from it than chance goes: seven standard deviations.
            assert!((24..=104).contains(&difference.count_ones()), "{number}");
            for (bit, changed) in changed.iter_mut().enumerate() {
                *changed += (difference >> bit & 1) as u32;
            }
        }
        // Each bit changes half of the time: 5,000 times, with a deviation of 50.
        assert!(
            changed
                .iter()
                .all(|changed| (4_650..=5_350).contains(changed)),
            "{changed:?}"
        );
    }

    #[test]
    fn neither_sender_nor_number_is_seen() {
        let ids = Ids::new(KEY);
        let mut halves = HashSet::new();
        for number in (1..5_000).chain((1 << 63)..(1 << 63) + 5_000) {
            let origin = origin("anna", number);
            let id = bits(ids.of(origin));
            for half in [(id >> 64) as u64, id as u64] {
                assert!(half != origin.sender && half != number, "{number}");
                // A sender is not even told by what its ids have in common.
                assert!(halves.insert(half), "{number}");
            }
        }
    }

    #[test]
    fn another_folder_gives_other_ids() {
        let (ours, theirs) = (Ids::new(KEY), Ids::new(NameKey::new(1)));
        for number in 1..100 {
            let origin = origin("anna", number);
            let difference = bits(ours.of(origin)) ^ bits(theirs.of(origin));
            assert!((24..=104).contains(&difference.count_ones()), "{number}");
        }
    }
}
