//! Shares: no sender alone fills an inbox or the store, there is room for a newcomer, what is burned is given back, and a
//! restart hands nobody the rest.

mod rig;

use std::path::Path;

use iris_storage::{FailureKind, Overflow, Quotas, Reply, Request, StoreOptions};
use rig::{Rig, Seeded, encoded_by, name, record_len};

const INBOX_SHARE: Result<u64, FailureKind> = Err(FailureKind::InboxShare);
const STORE_SHARE: Result<u64, FailureKind> = Err(FailureKind::StoreShare);
/// Names as long as the rig's own, so that records are.
const FLOOD: &str = "flood1";
const OTHER: &str = "other1";
const THIRD: &str = "third1";

fn with_quotas(path: &Path, quotas: Quotas) -> Rig {
    Rig::with(StoreOptions {
        quotas,
        ..rig::options(path)
    })
}

fn inbox_of(messages: u64) -> Quotas {
    Quotas {
        inbox_messages_max: messages,
        ..Quotas::default()
    }
}

fn request(rig: &mut Rig, sender: &str, reader: &str, payload: &[u8]) -> Request {
    let (token, user) = (rig.token(), rig.user(reader));
    Request::Append {
        token,
        user,
        name: reader.into(),
        record: encoded_by(sender, payload, 0),
    }
}

fn outcome(reply: Reply) -> Result<u64, FailureKind> {
    match reply {
        Reply::Appended { sequence, .. } => Ok(sequence),
        Reply::Failed { error, .. } => Err(error),
        other => panic!("{other:?}"),
    }
}

fn send(rig: &mut Rig, sender: &str, reader: &str, payload: &[u8]) -> Result<u64, FailureKind> {
    let request = request(rig, sender, reader, payload);
    outcome(rig.ask(request))
}

/// Side by side, so that they share batches; how many were taken, and what the last was refused as.
fn flood(rig: &mut Rig, sender: &str, reader: &str, count: u64) -> (u64, Option<FailureKind>) {
    for _ in 0..count {
        let request = request(rig, sender, reader, b"flood");
        rig.client.submit(request);
    }
    let (mut taken, mut reason) = (0, None);
    for _ in 0..count {
        match outcome(rig.reply()) {
            Ok(_) => taken += 1,
            Err(error) => reason = Some(error),
        }
    }
    (taken, reason)
}

#[test]
fn one_sender_gets_half_of_an_inbox_and_others_find_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = with_quotas(folder.path(), inbox_of(1_000));
    let share = Some(FailureKind::InboxShare);
    assert_eq!(flood(&mut rig, FLOOD, "anna", 1_500), (500, share));
    // As much as is free then, as a switch shares its buffer.
    assert_eq!(flood(&mut rig, OTHER, "anna", 1_500), (250, share));
    assert_eq!(flood(&mut rig, THIRD, "anna", 1_500), (125, share));
    assert!(send(&mut rig, "newcomer", "anna", b"hello").is_ok());
    // Elsewhere it may go on.
    assert_eq!(flood(&mut rig, FLOOD, "ben", 10), (10, None));
    let failed = rig.store.metrics().failed;
    let of = |kind: FailureKind| failed[kind as usize];
    assert_eq!(of(FailureKind::InboxShare), 1_000 + 1_250 + 1_375);
    assert_eq!(of(FailureKind::InboxFull), 0);
}

#[test]
fn bytes_are_shared_like_messages() {
    let folder = tempfile::tempdir().expect("a folder");
    let payload = [7; 1_000];
    let record = record_len(&payload);
    let quotas = Quotas {
        inbox_bytes_max: 100 * record,
        ..Quotas::default()
    };
    let mut rig = with_quotas(folder.path(), quotas);
    for _ in 0..50 {
        assert!(send(&mut rig, FLOOD, "anna", &payload).is_ok());
    }
    assert_eq!(send(&mut rig, FLOOD, "anna", &payload), INBOX_SHARE);
    assert!(send(&mut rig, OTHER, "anna", &payload).is_ok());
}

#[test]
fn with_the_whole_as_its_share_a_sender_fills_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let quotas = Quotas {
        sender_inbox_percent: 100,
        ..inbox_of(20)
    };
    let mut rig = with_quotas(folder.path(), quotas);
    let full = Some(FailureKind::InboxFull);
    assert_eq!(flood(&mut rig, FLOOD, "anna", 30), (20, full));
}

/// The reader takes from the front; only who stands there has room again.
#[test]
fn what_is_burned_is_given_back_to_whose_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = with_quotas(folder.path(), inbox_of(100));
    let first: Vec<u64> = (0..20)
        .map(|_| send(&mut rig, OTHER, "anna", b"x").expect("stored"))
        .collect();
    // 40 of 80.
    assert_eq!(flood(&mut rig, FLOOD, "anna", 60).0, 40);
    // All of the other's go: that is room for ten more of the flood, and not for twenty.
    rig.burn("anna", first[19] + 1);
    assert_eq!(flood(&mut rig, FLOOD, "anna", 60).0, 10);
    rig.burn("anna", u64::MAX);
    assert_eq!(flood(&mut rig, FLOOD, "anna", 60).0, 50);
}

#[test]
fn a_restart_forgets_nobody_in_an_inbox() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = with_quotas(folder.path(), inbox_of(2_000));
    // The flood is dense, all others are far between, for the sequences of other inboxes.
    for number in 0..100 {
        assert!(send(&mut rig, OTHER, "anna", b"x").is_ok());
        flood(&mut rig, THIRD, &name(number), 100);
    }
    assert_eq!(flood(&mut rig, FLOOD, "anna", 600), (600, None));
    rig.close();
    let mut rig = with_quotas(folder.path(), inbox_of(2_000));
    // 950 of them beside 100 leave 950.
    let (more, reason) = flood(&mut rig, FLOOD, "anna", 2_000);
    assert_eq!(reason, Some(FailureKind::InboxShare));
    assert!((330..=400).contains(&more), "{more}");
}

#[test]
fn one_sender_gets_half_of_the_store_however_many_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let payload = [7; 1_000];
    let quotas = Quotas {
        store_bytes_max: 100 * record_len(&payload),
        ..Quotas::default()
    };
    let mut rig = with_quotas(folder.path(), quotas);
    let mut taken = 0;
    while send(&mut rig, FLOOD, &name(taken), &payload).is_ok() {
        taken += 1;
    }
    // What it wrote before the store was crowded is not counted: a fourth, and half of the rest beyond what it has.
    assert!((50..=64).contains(&taken), "{taken}");
    assert_eq!(send(&mut rig, FLOOD, "new", &payload), STORE_SHARE);
    for reader in 0..10 {
        assert!(send(&mut rig, OTHER, &name(reader), &payload).is_ok());
    }
    // Others' readers make no room for it.
    let before = rig.store.metrics().live_bytes;
    for _ in 0..200 {
        send(&mut rig, OTHER, "reads", &payload).expect("stored");
        rig.burn("reads", u64::MAX);
    }
    assert_eq!(rig.store.metrics().live_bytes, before);
    assert_eq!(send(&mut rig, FLOOD, "new", &payload), STORE_SHARE);
    // Its own do.
    for reader in 26..taken {
        rig.burn(&name(reader), u64::MAX);
    }
    assert!(send(&mut rig, FLOOD, "new", &payload).is_ok());
}

#[test]
fn a_restart_gives_no_sender_more_than_half_of_what_was_free() {
    let folder = tempfile::tempdir().expect("a folder");
    let payload = [7; 1_000];
    let quotas = Quotas {
        store_bytes_max: 100 * record_len(&payload),
        ..Quotas::default()
    };
    let mut free = 100;
    for _ in 0..3 {
        let mut rig = with_quotas(folder.path(), quotas);
        let mut taken = 0;
        while send(&mut rig, FLOOD, &name(taken), &payload).is_ok() {
            taken += 1;
        }
        assert!(taken <= free * 5 / 8 + 2, "{taken} of {free}");
        free -= taken;
        assert!(send(&mut rig, OTHER, "anna", &payload).is_ok());
        rig.burn("anna", u64::MAX);
        rig.close();
    }
    assert!(free > 3);
}

#[test]
fn where_the_oldest_give_way_nobody_drives_out_who_holds_less() {
    let folder = tempfile::tempdir().expect("a folder");
    let quotas = Quotas {
        overflow: Overflow::DropOldest,
        ..inbox_of(20)
    };
    let mut rig = with_quotas(folder.path(), quotas);
    // Alone it has all, and its newest stay.
    assert_eq!(flood(&mut rig, FLOOD, "anna", 50), (50, None));
    // A newcomer drives out the flood, one by one, up to half.
    for _ in 0..10 {
        assert!(send(&mut rig, OTHER, "anna", b"kept").is_ok());
    }
    // The flood gives up its own for its own as long as they stand in front. Of who holds as many it drives out one, and
    // then it holds more and is refused.
    let (taken, reason) = flood(&mut rig, FLOOD, "anna", 50);
    assert_eq!((taken, reason), (11, Some(FailureKind::InboxShare)));
    let (messages, _) = rig.drain("anna", 100);
    assert_eq!(messages.len(), 20);
    let kept = messages.iter().filter(|(_, payload)| payload == b"kept");
    assert_eq!(kept.count(), 9);
    assert!(send(&mut rig, THIRD, "anna", b"x").is_ok());
}

/// A stranger's one message is the oldest, and stays for as long as it is not read.
#[test]
fn where_the_oldest_give_way_one_old_message_keeps_nobody_out_who_holds_little() {
    let folder = tempfile::tempdir().expect("a folder");
    let quotas = Quotas {
        overflow: Overflow::DropOldest,
        ..inbox_of(20)
    };
    let mut rig = with_quotas(folder.path(), quotas);
    assert!(send(&mut rig, THIRD, "anna", b"first").is_ok());
    for _ in 0..4 {
        assert!(send(&mut rig, OTHER, "anna", b"kept").is_ok());
    }
    let (taken, reason) = flood(&mut rig, FLOOD, "anna", 50);
    assert_eq!((taken, reason), (15, Some(FailureKind::InboxShare)));
    // It goes for a friend who has less than a fourth, of three senders.
    assert!(send(&mut rig, OTHER, "anna", b"kept").is_ok());
    let (messages, _) = rig.drain("anna", 100);
    assert_eq!(messages.len(), 20);
    assert!(messages.iter().all(|(_, payload)| payload != b"first"));
}

/// Any mix of senders, burns and restarts: nobody is ever above what was free, and whoever holds nothing finds room.
#[test]
fn whatever_comes_nobody_is_above_the_share_and_a_newcomer_finds_room() {
    for seed in 1..=6 {
        let mut random = Seeded::new(seed);
        let folder = tempfile::tempdir().expect("a folder");
        let messages_max = 4 + random.below(40);
        let mut rig = with_quotas(folder.path(), inbox_of(messages_max));
        let mut inbox: Vec<(u64, u64)> = Vec::new();
        for step in 0..400 {
            let held = |inbox: &[(u64, u64)], sender: u64| {
                inbox.iter().filter(|(_, other)| *other == sender).count() as u64
            };
            match random.below(40) {
                0 => {
                    rig.close();
                    rig = with_quotas(folder.path(), inbox_of(messages_max));
                }
                1..=6 => {
                    let gone = random.below(1 + inbox.len() as u64) as usize;
                    let head = inbox.get(gone).map_or(u64::MAX, |(sequence, _)| *sequence);
                    rig.burn("anna", head);
                    inbox.drain(..gone.min(inbox.len()));
                    if head == u64::MAX {
                        inbox.clear();
                    }
                }
                _ => {
                    // The first sends most.
                    let sender = random.below(5).saturating_sub(1);
                    let free = messages_max - inbox.len() as u64;
                    let is_crowded = inbox.len() as u64 > messages_max / 4;
                    let own = held(&inbox, sender);
                    let due = free > 0 && (!is_crowded || own == 0 || own < free);
                    let sent = send(&mut rig, &format!("send{sender}"), "anna", b"x");
                    assert_eq!(
                        sent.is_ok(),
                        due,
                        "seed {seed}, step {step}: {own} of {} held, {free} free: {sent:?}",
                        inbox.len()
                    );
                    inbox.extend(sent.map(|sequence| (sequence, sender)));
                }
            }
        }
    }
}
