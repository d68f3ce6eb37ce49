//! A part of a table that cannot be read costs the messages in it: the rest of an inbox is served, the loss is counted,
//! and the inbox goes on.

mod rig;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rig::{Rig, small_tables};

fn payload(number: u64) -> Vec<u8> {
    rig::payload(number, 300)
}

/// Stores messages of two users, one after the other, until there are tables.
fn fill(path: &Path, each: u64) -> [Vec<(u64, u64)>; 2] {
    let mut rig = Rig::with(small_tables(path));
    let names = ["anna", "ben"];
    let numbers = 0..each * 2;
    let all = numbers
        .clone()
        .map(|number| (names[number as usize % 2], payload(number)));
    let mut said = [Vec::new(), Vec::new()];
    for (sequence, number) in rig.append_all(all).into_iter().zip(numbers) {
        said[number as usize % 2].push((sequence, number));
    }
    let until = Instant::now() + Duration::from_secs(20);
    while rig::tables(path).is_empty() {
        assert!(Instant::now() < until, "no table was written");
        std::thread::sleep(Duration::from_millis(10));
    }
    rig.close();
    said
}

#[test]
fn an_inbox_is_read_around_damaged_blocks() {
    let template = tempfile::tempdir().expect("a folder");
    let said = fill(template.path(), 4000);
    let name = rig::tables(template.path())[0]
        .file_name()
        .expect("a name")
        .to_os_string();
    // Within a block, over several, two at once, and the table's beginning. A block has 4,096 bytes and some.
    for holes in [
        &[(40_000, 1)][..],
        &[(100_000, 9_000)],
        &[(20_000, 1), (60_000, 5_000), (300_000, 1), (304_200, 1)],
        &[(0, 30_000)],
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        rig::copy_folder(template.path(), folder.path());
        let damaged = folder.path().join("inbox-0/keyspaces/1/tables").join(&name);
        let mut bytes = fs::read(&damaged).expect("read");
        for (from, len) in holes {
            for byte in &mut bytes[*from..from + len] {
                *byte ^= 0x55;
            }
        }
        fs::write(&damaged, &bytes).expect("written");
        let mut rig = Rig::with(small_tables(folder.path()));
        let mut missing = 0;
        for (user, said) in ["anna", "ben"].iter().zip(&said) {
            for messages_max in [7, 5000] {
                let (found, lost) = rig.drain(user, messages_max);
                let mut left = found.iter().peekable();
                for (sequence, number) in said {
                    if let Some(found) = left.next_if(|found| found.0 == *sequence) {
                        assert_eq!(found.1, payload(*number), "{holes:?}");
                    }
                }
                assert!(
                    left.peek().is_none(),
                    "{holes:?}: out of order, or never stored"
                );
                assert_eq!(
                    lost as usize,
                    said.len() - found.len(),
                    "{user}, {messages_max} at a time, {holes:?}"
                );
                missing += lost;
            }
        }
        assert!(missing > 0, "{holes:?}: nothing was hit");
        assert!(rig.store.metrics().pages_broken > 0);
        // The inbox goes on, with its order and its numbers.
        let sequence = rig.append("anna", b"more");
        let (found, _) = rig.drain("anna", 1000);
        assert_eq!(found.last(), Some(&(sequence, b"more".to_vec())));
        assert_eq!(rig.page("anna", 0, usize::MAX).next, sequence + 1);
        rig.burn("anna", sequence);
        assert_eq!(
            rig.drain("anna", 10),
            (vec![(sequence, b"more".to_vec())], 0)
        );
        assert_eq!(rig.account("anna").0, 1);
        rig.close();
    }
}

/// The blocks at the end of a table, with the newest that were written of a user: what follows in memory counts.
#[test]
fn an_inbox_goes_on_behind_a_damaged_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut said = fill(folder.path(), 1800);
    let tables = rig::tables(folder.path());
    // Behind those in the table, wherever its batches ended.
    let mut rig = Rig::with(small_tables(folder.path()));
    for (user, said) in ["anna", "ben"].iter().zip(&mut said) {
        said.push((rig.append(user, &payload(9_999)), 9_999));
    }
    rig.close();
    assert_eq!(tables.len(), 1, "one table, and the rest in memory");
    let mut bytes = fs::read(&tables[0]).expect("read");
    for at in (0..bytes.len() / 4 * 3).step_by(4_000) {
        bytes[at] ^= 1;
    }
    fs::write(&tables[0], &bytes).expect("written");
    let mut rig = Rig::with(small_tables(folder.path()));
    for (user, said) in ["anna", "ben"].iter().zip(&said) {
        let (found, lost) = rig.drain(user, 100);
        assert!(
            !found.is_empty() && lost > 0,
            "{} found, {lost} lost",
            found.len()
        );
        assert_eq!(found.len() + lost as usize, said.len());
        let sequence = rig.append(user, b"more");
        assert_eq!(rig.account(user).0, said.len() as u64 + 1);
        let (found, _) = rig.drain(user, 100);
        assert_eq!(found.last(), Some(&(sequence, b"more".to_vec())));
    }
    rig.close();
}
