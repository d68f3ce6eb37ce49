//! Which batches ask for a sync.

use super::*;

/// No test can cut the power; that a promise asks for a sync is what can be held on to.
#[test]
fn whatever_is_promised_is_synced() {
    let path = tempfile::tempdir().expect("a folder");
    let (_tables, mut ledger) = Ledger::of_new(path.path());
    let user = UserHash(1);
    let mut record = Vec::new();
    let new = record::NewRecord {
        id_sender: 1,
        id_number: 1,
        sent_at_ms: 1,
        expires_at_ms: 0,
        sender: "ben",
        payload: b"x",
    };
    record::encode(&mut record, &new);
    let name = || Box::from("anna");
    let seen = Write::Seen {
        user,
        name: name(),
        at_ms: 5,
    };
    let append = Write::Append {
        token: 1,
        user,
        name: name(),
        record,
    };
    let burn = Write::Burn {
        token: 2,
        user,
        name: name(),
        head: u64::MAX,
    };
    let (done, _waits) = crossbeam_channel::bounded(1);
    let beat = Write::Beat {
        fill_bytes: 0,
        done,
    };
    let expected = [false, true, true, true];
    let requests = [seen, append, burn, beat].into_iter();
    for ((request, expected), number) in requests.zip(expected).zip(1..) {
        let mut batch = Batch::new(&ledger, number, 1);
        batch
            .apply(&mut ledger, 1, Envelope { client: 0, request })
            .expect("a sequence");
        let written = batch.commit(&mut ledger, Instant::now());
        assert_eq!(
            written.map(|written| written.needs_sync).ok(),
            Some(expected)
        );
    }
}
