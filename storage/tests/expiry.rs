//! Messages past their time to live are not delivered, and do not stop a drain however many they are.

mod rig;

use std::time::{SystemTime, UNIX_EPOCH};

use iris_storage::Reply;
use rig::Rig;

#[test]
fn what_has_expired_is_skipped_and_what_has_not_is_delivered() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as u64;
    for (payload, expires_at_ms) in [
        (b"old", 1_000),
        (b"new", now_ms + 600_000),
        (b"for", 0),
        (b"end", 1_000),
    ] {
        let request = rig.append_request("anna", payload, expires_at_ms);
        assert!(matches!(rig.ask(request), Reply::Appended { .. }));
    }
    let page = rig.page("anna", 0, 10);
    let payloads: Vec<&[u8]> = page
        .messages
        .iter()
        .map(|message| message.record.view().expect("sound").payload)
        .collect();
    assert_eq!(payloads, [b"new", b"for"]);
    assert_eq!((page.end, page.lost), (true, 0));
    assert_eq!(rig.store.metrics().skipped_expired, 2);
    // Counted until the head passes them; the page's `next` leaves all of them behind.
    assert_eq!(rig.account("anna").0, 4);
    rig.burn("anna", page.next);
    assert_eq!(rig.account("anna").0, 0);
}

#[test]
fn a_page_does_not_look_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    for _ in 0..10_500 {
        let request = rig.append_request("anna", b"old", 1_000);
        rig.client.submit(request);
    }
    for _ in 0..10_500 {
        assert!(matches!(rig.reply(), Reply::Appended { .. }));
    }
    let last = rig.append("anna", b"new");
    let first = rig.page("anna", 0, 10);
    assert_eq!((first.messages.len(), first.end), (0, false));
    assert_eq!(rig.page("anna", first.next, 10).messages[0].sequence, last);
    assert_eq!(rig.drain("anna", 10).0, [(last, b"new".to_vec())]);
}
