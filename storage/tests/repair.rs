//! A data folder that cannot be opened, or that has damaged tables, is rebuilt from whatever can be read, and the numbers
//! that are told are right.

mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use iris_storage::{Store, StoreError, check, repair, stats};
use rig::{Rig, name, small_tables};

const USERS: u64 = 20;
const MESSAGES: u64 = 6000;

fn payload(number: u64) -> Vec<u8> {
    rig::payload(number, 300)
}

/// Some messages in tables, some in the journal; of each user the first ten are burned.
fn fill(path: &Path) {
    let mut rig = Rig::with(small_tables(path));
    let names: Vec<String> = (0..USERS).map(name).collect();
    let all =
        (0..MESSAGES).map(|number| (names[(number % USERS) as usize].as_str(), payload(number)));
    let sequences = rig.append_all(all);
    for (user, name) in names.iter().enumerate() {
        rig.burn(name, sequences[user + 10 * USERS as usize]);
    }
    let until = Instant::now() + Duration::from_secs(20);
    while rig::tables(path).is_empty() {
        assert!(Instant::now() < until, "no table was written");
        std::thread::sleep(Duration::from_millis(10));
    }
    rig.close();
}

/// How many messages are there; none is wrong or out of order.
fn count(rig: &mut Rig) -> u64 {
    let mut all = 0;
    for user in 0..USERS {
        let (found, lost) = rig.drain(&name(user), 500);
        assert_eq!(lost, 0, "user {user}");
        let mut last = 0;
        for (_, content) in &found {
            let number = u64::from_be_bytes(content[..8].try_into().expect("eight bytes"));
            assert_eq!(content, &payload(number));
            assert!(
                number % USERS == user && number >= last && number / USERS >= 10,
                "{number}"
            );
            last = number + 1;
        }
        all += found.len() as u64;
    }
    all
}

#[test]
fn a_sound_folder_is_sound_and_stays_as_it_is_when_repaired() {
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path());
    let live = MESSAGES - 10 * USERS;
    let found = check(folder.path()).expect("checked");
    assert_eq!(found.faults, Vec::<String>::new());
    let survey = found.survey.expect("opened");
    assert_eq!(
        (survey.users, survey.messages, survey.messages_counted),
        (USERS, live, live)
    );
    assert_eq!((survey.messages_missing, survey.oldest_ms), (0, Some(3)));
    assert_eq!(survey.largest.len(), 10);
    assert_eq!(survey.largest[0].messages, live / USERS);
    let (counted, disk) = stats(folder.path()).expect("counted");
    assert_eq!(counted, survey);
    assert!(disk > survey.bytes);
    let before = fs::read(folder.path().join("SEQUENCE")).expect("read");
    let repaired = repair(folder.path()).expect("repaired");
    assert_eq!(
        (
            repaired.messages,
            repaired.accounts,
            repaired.messages_missing
        ),
        (live, USERS, 0)
    );
    assert_eq!((repaired.blocks_lost, repaired.bytes_lost), (0, 0));
    assert_eq!(
        before,
        fs::read(folder.path().join("SEQUENCE")).expect("read")
    );
    let mut rig = Rig::with(small_tables(folder.path()));
    assert_eq!(count(&mut rig), live);
    rig.close();
    assert_eq!(
        check(folder.path()).expect("checked").faults,
        Vec::<String>::new()
    );
}

/// A table needs no repair: it is kept aside, and what it had is put back from it and from the journal.
fn a_start_heals(template: &Path, table: &Path, spoil: fn(&Path), live: u64, all: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    rig::copy_folder(template, folder.path());
    spoil(&folder.path().join(table));
    let mut rig = Rig::with(small_tables(folder.path()));
    let left = count(&mut rig);
    let recovery = rig.store.recovery();
    assert_eq!(recovery.tables_damaged, 1);
    assert_eq!(left == live, all, "{left} left, {recovery:?}");
    // The journal and the table each tell what they lost: it is the same messages.
    assert!(recovery.lost() >= live - left, "{left} left, {recovery:?}");
    assert_eq!(recovery.lost() == 0, all, "{left} left, {recovery:?}");
    let kept = fs::read_dir(&recovery.kept_in[0]).expect("kept");
    let kept: Vec<PathBuf> = kept.map(|entry| entry.expect("one").path()).collect();
    assert!(
        kept.iter().any(|path| path.ends_with("1-1.table")),
        "{kept:?}"
    );
    assert_eq!(rig.store.metrics().recovery_lost, recovery.lost());
    let mut rig = rig.reopen(folder.path());
    assert!(rig.store.recovery().is_clean());
    assert_eq!(count(&mut rig), left);
    rig.close();
    let checked = check(folder.path()).expect("checked");
    assert_eq!(checked.faults, Vec::<String>::new());
}

#[test]
fn what_can_be_read_survives_the_loss_of_a_file() {
    let template = tempfile::tempdir().expect("a folder");
    fill(template.path());
    let live = MESSAGES - 10 * USERS;
    let table = rig::tables(template.path())[0].clone();
    let table = table.strip_prefix(template.path()).expect("in it");
    // What is removed, cut or overwritten. Of a table, the journal still has everything.
    type Spoil = fn(&Path);
    let remove: Spoil = |path| fs::remove_file(path).expect("removed");
    let cut: Spoil = |path| {
        let file = fs::File::options().write(true).open(path).expect("opened");
        let len = file.metadata().expect("a length").len();
        file.set_len(len - 10).expect("cut");
    };
    let garble: Spoil = |path| {
        let mut bytes = fs::read(path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(path, bytes).expect("written");
    };
    // The beginning of the journal, too, which has what the first table has.
    let remove_both: Spoil = |path| {
        fs::remove_file(path).expect("removed");
        let journal = path.ancestors().nth(4).expect("a database").join("0.jnl");
        let mut bytes = fs::read(&journal).expect("read");
        bytes[..700_000].fill(0);
        fs::write(journal, bytes).expect("written");
    };
    let manifest = |keyspace: u64| -> PathBuf {
        let keyspace = Path::new("inbox-0/keyspaces").join(keyspace.to_string());
        let current = fs::read(template.path().join(&keyspace).join("current")).expect("read");
        let version = u64::from_le_bytes(current[..8].try_into().expect("eight bytes"));
        keyspace.join(format!("v{version}"))
    };
    for (path, spoil, all) in [
        (table.to_path_buf(), remove, true),
        (table.to_path_buf(), remove_both, false),
        (table.to_path_buf(), cut, true),
        (Path::new("inbox-0/version").to_path_buf(), remove, true),
        (Path::new("inbox-0/version").to_path_buf(), garble, true),
        (
            Path::new("inbox-0/keyspaces/0/current").to_path_buf(),
            remove,
            true,
        ),
        (
            Path::new("inbox-0/keyspaces/1/current").to_path_buf(),
            garble,
            true,
        ),
        (
            Path::new("inbox-0/keyspaces/2/current").to_path_buf(),
            remove,
            true,
        ),
        (manifest(0), garble, true),
        (manifest(1), cut, true),
        (manifest(2), remove, true),
        (Path::new("SEQUENCE").to_path_buf(), remove, true),
        (Path::new("SEQUENCE").to_path_buf(), garble, true),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        rig::copy_folder(template.path(), folder.path());
        spoil(&folder.path().join(&path));
        if path == table {
            a_start_heals(template.path(), &path, spoil, live, all);
        } else {
            let refused = Store::open(small_tables(folder.path()));
            let Err(error @ (StoreError::Damaged { .. } | StoreError::Database { .. })) = refused
            else {
                panic!("{}: not refused as damaged", path.display());
            };
            let told = format!("iris store repair {}", folder.path().display());
            assert!(error.to_string().contains(&told), "{error}");
        }
        let checked = check(folder.path()).expect("checked");
        assert!(!checked.faults.is_empty(), "{}", path.display());
        let repaired = repair(folder.path()).expect("repaired");
        let mut rig = Rig::with(small_tables(folder.path()));
        let left = count(&mut rig);
        assert_eq!(left, repaired.messages, "{}", path.display());
        assert_eq!(left + repaired.messages_missing, live, "{}", path.display());
        assert_eq!(left == live, all, "{}: {left} left", path.display());
        // The old database is kept, and no sequence comes again.
        assert!(repaired.kept_in[0].join("keyspaces").exists());
        let before = rig.page(&name(0), 0, 10_000).next;
        assert!(rig.append(&name(0), b"more") >= before);
        rig.close();
        assert_eq!(
            check(folder.path()).expect("checked").faults,
            Vec::<String>::new()
        );
    }
}

#[test]
fn totals_that_are_not_the_sum_of_the_inboxes_are_a_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path());
    let database = fjall::Database::builder(folder.path().join("inbox-0"))
        .open()
        .expect("opens");
    let users = database
        .keyspace("users", fjall::KeyspaceCreateOptions::default)
        .expect("a keyspace");
    let mut row = users.get("totals").expect("read").expect("there").to_vec();
    // One message more than there is, under a CRC that is right.
    row[4] ^= 1;
    let crc = crc32fast::hash(&row[4..]);
    row[..4].copy_from_slice(&crc.to_le_bytes());
    users.insert("totals", row).expect("written");
    drop((users, database));
    let checked = check(folder.path()).expect("checked");
    let live = MESSAGES - 10 * USERS;
    let told = format!("its totals say {} messages", live ^ 1);
    assert!(
        checked.faults.len() == 1 && checked.faults[0].contains(&told),
        "{:?}",
        checked.faults
    );
    repair(folder.path()).expect("repaired");
    let checked = check(folder.path()).expect("checked");
    assert_eq!(checked.faults, Vec::<String>::new());
}

#[test]
fn what_is_no_store_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing");
    assert!(matches!(check(&missing), Err(StoreError::NoStore { .. })));
    assert!(matches!(repair(&missing), Err(StoreError::NoStore { .. })));
    assert!(matches!(
        stats(folder.path()),
        Err(StoreError::NoStore { .. })
    ));
    assert!(!missing.exists());
    let open = Rig::with(small_tables(folder.path()));
    assert!(matches!(
        check(folder.path()),
        Err(StoreError::Locked { .. })
    ));
    assert!(matches!(
        repair(folder.path()),
        Err(StoreError::Locked { .. })
    ));
    open.close();
}
