//! Any of several journals that is gone is found, the oldest too: what it had is told in numbers, and the messages whose
//! accounts went with it are served all the same.

mod rig;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use iris_storage::{StoreOptions, check};
use rig::Rig;

const USERS: u64 = 5;
const MESSAGES: u64 = 8_000;

/// Messages become tables all the time; accounts stay in the journals, which therefore stay.
fn options(path: &Path) -> StoreOptions {
    StoreOptions {
        journal_bytes_max: 512 << 20,
        ..rig::small_tables(path)
    }
}

fn payload(number: u64) -> Vec<u8> {
    rig::payload(number, 20_000)
}

fn fill(path: &Path) {
    let mut rig = Rig::with(options(path));
    // Written once, by the first message; never again.
    let early = rig.append("early", &payload(0));
    let names: Vec<String> = (0..USERS).map(|user| format!("user{user}")).collect();
    let all = (1..MESSAGES).map(|number| (&*names[(number % USERS) as usize], payload(number)));
    rig.append_all(all);
    assert_eq!(rig.drain("early", 10).0[0].0, early);
    rig.close();
}

fn served(rig: &mut Rig) -> u64 {
    let mut all = BTreeSet::new();
    for name in (0..USERS)
        .map(|user| format!("user{user}"))
        .chain(["early".to_string()])
    {
        for (_, content) in rig.drain(&name, 500).0 {
            let number = u64::from_be_bytes(content[..8].try_into().expect("eight bytes"));
            assert_eq!(content, payload(number));
            assert!(all.insert(number));
        }
    }
    all.len() as u64
}

#[test]
fn whichever_journal_is_gone_is_told() {
    let template = tempfile::tempdir().expect("a folder");
    fill(template.path());
    let journals =
        || (0..).take_while(|n| template.path().join(format!("inbox-0/{n}.jnl")).exists());
    let count = journals().count();
    assert!(count >= 2, "{count} journals");
    for number in journals() {
        let folder = tempfile::tempdir().expect("a folder");
        rig::copy_folder(template.path(), folder.path());
        fs::remove_file(folder.path().join(format!("inbox-0/{number}.jnl"))).expect("removed");
        let checked = check(folder.path()).expect("checked").faults;
        assert!(
            checked
                .iter()
                .any(|fault| fault.contains("1 journals are missing")),
            "{number}: {checked:?}"
        );
        let mut rig = Rig::with(options(folder.path()));
        let recovery = rig.store.recovery();
        assert_eq!(recovery.journals_missing, 1, "{number}: {recovery:?}");
        let missing = MESSAGES - served(&mut rig);
        assert!(
            recovery.lost() >= missing,
            "{number}: {missing} missing, {recovery:?}"
        );
        // Of the oldest all messages are in tables; only accounts stood in it alone.
        assert!(number > 0 || missing == 0, "{missing} missing");
        rig.close();
        assert_eq!(
            check(folder.path()).expect("checked").faults,
            Vec::<String>::new()
        );
    }
    // What was written off by the database itself is not missing.
    let folder = tempfile::tempdir().expect("a folder");
    rig::copy_folder(template.path(), folder.path());
    rig::flush(folder.path());
    assert!(!folder.path().join("inbox-0/0.jnl").exists(), "written off");
    let mut rig = Rig::with(options(folder.path()));
    assert!(
        rig.store.recovery().is_clean(),
        "{:?}",
        rig.store.recovery()
    );
    assert_eq!(served(&mut rig), MESSAGES);
    rig.close();
}
