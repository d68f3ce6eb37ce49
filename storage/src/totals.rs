//! What all inboxes of a database hold together, as a row that each batch writes anew.
//!
//! Owner: the committer. The row lies in the keyspace `users` under a key no user has. Layout, integers
//! little-endian: `crc32 u32 | messages u64 | bytes u64 | last_sequence u64`; the CRC covers all that follows it.
//!
//! Invariant: the row is written in the same atomic batch as what it counts, so it is exact after any crash: the
//! sum over all accounts of what stands between head and tail. Where it is missing (an older or a repaired
//! folder) or damaged, that sum is made once, from the accounts and the last message of each.

use fjall::{Guard, PersistMode, Readable, Snapshot};
use tracing::{error, info};

use crate::account;
use crate::database::Tables;
use crate::inbox;
use crate::record::{CRC_LEN, check_crc, write_crc};
use crate::request::FailureKind;
use crate::user::UserKey;

/// The row's key. Users' keys have 12 bytes.
pub(crate) const TOTALS_KEY: &[u8] = b"totals";
const LEN: usize = CRC_LEN + 3 * 8;

/// The sums of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Messages that stand between the heads and the tails.
    pub(crate) messages: u64,
    /// Bytes of their records.
    pub(crate) bytes: u64,
    /// The highest sequence that was ever written.
    pub(crate) last_sequence: u64,
}

impl Totals {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; CRC_LEN];
        for field in [self.messages, self.bytes, self.last_sequence] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        write_crc(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Totals> {
        check_crc(bytes).ok()?;
        let (fields, []) = bytes.get(CRC_LEN..LEN)?.as_chunks::<8>() else {
            return None;
        };
        let &[messages, sum, last_sequence] = fields else {
            return None;
        };
        (bytes.len() == LEN).then(|| Totals {
            messages: u64::from_le_bytes(messages),
            bytes: u64::from_le_bytes(sum),
            last_sequence: u64::from_le_bytes(last_sequence),
        })
    }

    /// Forgets the row, durably: what is about to change does not keep it.
    pub(crate) fn forget(tables: &Tables) -> fjall::Result<()> {
        let mut batch = tables.database.batch();
        batch.remove(&tables.users, TOTALS_KEY);
        batch.durability(Some(PersistMode::SyncData)).commit()
    }

    /// The row, if it is there and sound.
    pub(crate) fn stored(tables: &Tables) -> fjall::Result<Option<Totals>> {
        let row = tables.users.get(TOTALS_KEY)?;
        Ok(row.and_then(|row| Totals::decode(&row)))
    }

    /// Reads the row, or makes the sums where it cannot be had.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub(crate) fn load(tables: &Tables) -> fjall::Result<Totals> {
        let snapshot = tables.database.snapshot();
        match snapshot.get(&tables.users, TOTALS_KEY)? {
            Some(value) => {
                if let Some(totals) = Totals::decode(&value) {
                    return Ok(totals);
                }
                error!("the totals row fails its checks; the sums are made anew");
            }
            None if tables.users.is_empty()? => return Ok(Totals::default()),
            None => info!("there is no totals row yet; the sums are made once"),
        }
        Totals::scan(tables, &snapshot)
    }

    fn scan(tables: &Tables, snapshot: &Snapshot) -> fjall::Result<Totals> {
        let mut totals = Totals::default();
        for guard in snapshot.iter(&tables.users) {
            let (key, value) = Guard::into_inner(guard)?;
            let Ok(user) = UserKey::try_from(&*key) else {
                continue;
            };
            match account::decode(&value).and_then(|stored| {
                let tail = inbox::tail(tables, snapshot, user, &stored.account)?;
                Ok((stored.account, tail))
            }) {
                Ok((account, tail)) => {
                    let live = inbox::live(&account, &tail);
                    totals.messages += live.messages;
                    totals.bytes += live.bytes;
                    totals.last_sequence = totals.last_sequence.max(tail.sequence);
                }
                Err(FailureKind::Unreadable) => {
                    let source = std::io::Error::other("a message cannot be read");
                    return Err(fjall::Error::Io(source));
                }
                Err(_) => error!("an account fails its checks; its inbox is not in the totals"),
            }
        }
        Ok(totals)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::batch::{Batch, Step};
    use crate::client::{Envelope, Write};
    use crate::ledger::Ledger;
    use crate::record::{self, NewRecord};
    use crate::user::UserHash;

    const SAMPLE: Totals = Totals {
        messages: 1,
        bytes: 2,
        last_sequence: 3,
    };

    #[test]
    fn the_row_reads_as_it_was_encoded() {
        let bytes = SAMPLE.encode();
        assert_eq!(Totals::decode(&bytes), Some(SAMPLE));
        let fields: Vec<u8> = [1u64, 2, 3]
            .iter()
            .flat_map(|field| field.to_le_bytes())
            .collect();
        assert_eq!(bytes[CRC_LEN..], fields);
    }

    #[test]
    fn every_single_bit_flip_and_every_other_length_is_caught() {
        let bytes = SAMPLE.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Totals::decode(&flipped), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Totals::decode(&bytes[..len]), None, "{len} bytes");
        }
    }

    /// What was there before the row is counted by a scan, to the same sums.
    #[test]
    fn where_the_row_is_missing_or_damaged_the_sums_are_the_same() {
        let path = tempfile::tempdir().expect("a folder");
        let (tables, mut ledger) = Ledger::of_new(path.path());
        let mut batch = Batch::new(&ledger, 1, 100);
        for number in 0..100 {
            let mut record = Vec::new();
            let new = NewRecord {
                id_sender: 1,
                id_number: number,
                sent_at_ms: 1,
                expires_at_ms: 0,
                sender: "ben",
                payload: &vec![0; number as usize],
            };
            record::encode(&mut record, &new);
            let (token, user) = (number, UserHash(u128::from(number % 7) << 64));
            let name = format!("user{}", number % 7).into();
            let request = Write::Append {
                token,
                user,
                name,
                record,
            };
            let taken = batch.apply(&mut ledger, 1, Envelope { client: 0, request });
            assert!(matches!(taken, Ok(Step::Taken)));
        }
        assert!(batch.commit(&mut ledger, Instant::now()).is_ok());
        let mut batch = Batch::new(&ledger, 2, 1);
        let (token, user, name) = (1, UserHash(3 << 64), "user3".into());
        let request = Write::Burn {
            token,
            user,
            name,
            head: 40,
        };
        let taken = batch.apply(&mut ledger, 1, Envelope { client: 0, request });
        assert!(matches!(taken, Ok(Step::Taken)));
        assert!(batch.commit(&mut ledger, Instant::now()).is_ok());

        let counted = ledger.totals;
        assert_eq!((counted.messages, counted.last_sequence), (100 - 5, 101));
        assert_eq!(Totals::load(&tables).expect("read"), counted);
        tables
            .users
            .insert(TOTALS_KEY, b"damaged")
            .expect("written");
        assert_eq!(Totals::load(&tables).expect("read"), counted);
        tables.users.remove(TOTALS_KEY).expect("written");
        assert_eq!(Totals::load(&tables).expect("read"), counted);
    }
}
