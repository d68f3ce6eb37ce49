//! A restart keeps everything: messages, order, what was burned, when users were last seen; and a page is bounded
//! as it was asked to be.

mod rig;

use rig::{Rig, record_len};

#[test]
fn a_restart_keeps_messages_heads_and_last_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    let key = rig.store.name_key();
    let sequences: Vec<u64> = (0..10u8).map(|n| rig.append("anna", &[n])).collect();
    rig.burn("anna", sequences[4]);
    rig.seen("anna", 77);
    rig.seen("anna", 76);

    let mut rig = rig.reopen(folder.path());
    assert_eq!(rig.store.name_key(), key);
    let kept: Vec<(u64, Vec<u8>)> = (4..10).map(|n| (sequences[n], vec![n as u8])).collect();
    assert_eq!(rig.drain("anna", 4), (kept, 0));
    assert_eq!(rig.account("anna"), (6, 6 * record_len(&[0]), 77));
    assert!(rig.append("anna", b"new") > sequences[9]);
    assert_eq!(rig.account("nobody"), (0, 0, 0));
    assert!(rig.page("nobody", 0, 10).end);
}

#[test]
fn a_page_keeps_to_its_limits() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    let first = rig.append("anna", &[0; 100]);
    for _ in 0..4 {
        rig.append("anna", &[0; 100]);
    }
    let by_count = rig.page("anna", 0, 2);
    assert_eq!(
        (by_count.messages.len(), by_count.next, by_count.end),
        (2, first + 2, false)
    );
    let two = 2 * record_len(&[0; 100]) as usize;
    let by_bytes = rig.page_within("anna", 0, 100, two);
    assert_eq!((by_bytes.messages.len(), by_bytes.end), (2, false));
    // One message comes, however small the limit: a drain always gets on.
    assert_eq!(rig.page_within("anna", 0, 100, 0).messages.len(), 1);
    assert_eq!(rig.page("anna", 0, 0).messages.len(), 1);
    let rest = rig.page("anna", by_count.next, 3);
    assert_eq!((rest.messages.len(), rest.end), (3, true));
    // A page from below the head begins at the head.
    rig.burn("anna", first + 3);
    let page = rig.page("anna", first, 10);
    assert_eq!(
        page.messages
            .iter()
            .map(|message| message.sequence)
            .collect::<Vec<_>>(),
        [first + 3, first + 4]
    );
}

#[test]
fn a_burn_of_everything_spares_what_comes_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    rig.append("anna", b"old");
    rig.burn("anna", u64::MAX);
    let new = rig.append("anna", b"new");
    rig.burn("nobody", u64::MAX);
    let first = rig.append("nobody", b"first");
    for _ in 0..2 {
        assert_eq!(rig.drain("anna", 10).0, [(new, b"new".to_vec())]);
        assert_eq!(rig.drain("nobody", 10).0, [(first, b"first".to_vec())]);
        assert_eq!(rig.account("anna").0, 1);
        rig = rig.reopen(folder.path());
    }
}

#[test]
fn what_is_queued_at_close_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    for n in 0..5000u32 {
        let request = rig.append_request("anna", &n.to_be_bytes(), 0);
        rig.client.submit(request);
    }
    let mut rig = rig.reopen(folder.path());
    let (messages, lost) = rig.drain("anna", 1000);
    assert_eq!((messages.len(), lost), (5000, 0));
    assert!(
        messages
            .iter()
            .zip(0u32..)
            .all(|((_, payload), n)| *payload == n.to_be_bytes())
    );
}
