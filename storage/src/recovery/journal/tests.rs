//! Journals that are sound, flipped, holed and cut, byte by byte.

use super::entry::{COMPRESSION_NONE, END, ITEM, START, TRAILER};
use super::*;
use crate::record;

fn entries(items: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in items {
        bytes.extend_from_slice(&[ITEM, 0, COMPRESSION_NONE]);
        bytes.extend_from_slice(&1u64.to_le_bytes());
        bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
    }
    bytes
}

fn batch(seqno: u64, items: &[(&[u8], &[u8])]) -> Vec<u8> {
    let entries = entries(items);
    let mut bytes = vec![START];
    bytes.extend_from_slice(&(items.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&seqno.to_le_bytes());
    bytes.extend_from_slice(&entries);
    bytes.push(END);
    bytes.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&entries).to_le_bytes());
    bytes.extend_from_slice(TRAILER);
    bytes
}

fn value(n: u8, len: usize) -> Vec<u8> {
    let mut value = vec![n; len];
    record::write_crc(&mut value);
    value
}

/// Three batches of three items, each with a key of its own, and zeros.
fn sample() -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut bytes = Vec::new();
    let mut keys = Vec::new();
    for n in 0..3u8 {
        let of_batch: Vec<(Vec<u8>, Vec<u8>)> = (0..3u8)
            .map(|m| {
                (
                    vec![n * 3 + m + 1; MESSAGE_KEY_LEN],
                    value(n, 40 + usize::from(m)),
                )
            })
            .collect();
        let items: Vec<(&[u8], &[u8])> = of_batch
            .iter()
            .map(|(key, value)| (&key[..], &value[..]))
            .collect();
        bytes.extend(batch(u64::from(n) + 5, &items));
        keys.extend(of_batch.into_iter().map(|(key, _)| key));
    }
    bytes.resize(bytes.len() + 1000, 0);
    (bytes, keys)
}

const PLACE: Place = Place {
    number: 0,
    databases: 1,
};

fn journal(bytes: &[u8]) -> (tempfile::TempDir, Journal) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("0.jnl");
    std::fs::write(&path, bytes).expect("written");
    let journal = Journal::open(&path, PLACE).expect("opened");
    (folder, journal)
}

fn found(bytes: &[u8]) -> (Vec<Vec<u8>>, u64) {
    let (_folder, mut journal) = journal(bytes);
    let mut keys = Vec::new();
    let unreadable = journal
        .walk(&mut |found| {
            keys.push(found.key.to_vec());
            Ok(())
        })
        .expect("readable");
    (keys, unreadable)
}

#[test]
fn what_fjall_writes_is_sound() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = fjall::Database::builder(folder.path())
        .open()
        .expect("opened");
    let keyspace = database
        .keyspace("messages", fjall::KeyspaceCreateOptions::default)
        .expect("a keyspace");
    for n in 0..50u8 {
        let mut write = database.batch();
        for m in 0..n + 1 {
            let key = [[n + 1; 10], [m; 10]].concat();
            write.insert(&keyspace, key, value(m, usize::from(n) * 10 + 4));
        }
        write.commit().expect("written");
    }
    keyspace.insert([0], value(1, 9)).expect("written");
    drop((keyspace, database));
    let path = folder.path().join("0.jnl");
    let mut journal = Journal::open(&path, PLACE).expect("opened");
    let look = journal.look(None).expect("readable");
    assert_eq!(look.ending, Ending::Clean);
    let mut keys = 0;
    let walked = journal.walk(&mut |found| {
        assert!(!found.behind_damage && !found.after_gap && found.keyspace == 1);
        keys += 1;
        Ok(())
    });
    assert_eq!((walked.expect("readable"), keys), (0, 50 * 51 / 2 + 1));
}

#[test]
fn every_flipped_byte_is_seen_and_costs_one_item_at_most() {
    let (bytes, keys) = sample();
    let end = bytes.len() - 1000;
    assert_eq!(found(&bytes), (keys.clone(), 0));
    for at in 0..end {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x11;
        let (_folder, mut journal) = journal(&flipped);
        let look = journal.look(None).expect("readable");
        // A seqno that still rises changes nothing; it is not covered by the checksum.
        let in_seqno = (0..3).any(|n| {
            let from = n * (end / 3);
            (from + 5..from + 13).contains(&at)
        });
        assert!(look.ending != Ending::Clean || in_seqno, "byte {at}");
        let (left, _) = found(&flipped);
        let lost = keys.iter().filter(|key| !left.contains(key)).count();
        assert!(lost <= 1, "byte {at}: {lost} lost");
    }
}

#[test]
fn what_stands_behind_a_hole_is_found() {
    let (bytes, keys) = sample();
    let end = bytes.len() - 1000;
    for from in (0..end - 60).step_by(7) {
        let mut holed = bytes.clone();
        holed[from..from + 60].fill(0);
        let (left, unreadable) = found(&holed);
        // No item is shorter than 79 bytes.
        assert!(
            left.len() >= keys.len() - 2,
            "hole at {from}: {} left",
            left.len()
        );
        assert!(left.iter().all(|key| keys.contains(key)), "hole at {from}");
        assert!(unreadable > 0 || left.len() == keys.len(), "hole at {from}");
    }
}

#[test]
fn a_cut_is_the_end_and_no_damage() {
    let (bytes, _) = sample();
    let end = bytes.len() - 1000;
    for len in 0..end {
        let (_folder, mut journal) = journal(&bytes[..len]);
        let look = journal.look(None).expect("readable");
        assert_ne!(look.ending, Ending::Broken, "{len} bytes");
        assert_eq!(
            look.ending == Ending::Clean,
            len as u64 == look.sound_to,
            "{len} bytes"
        );
        assert!(look.sound_to <= len as u64);
    }
}
