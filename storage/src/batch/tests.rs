//! Which batches ask for a sync, and what they give back.

use super::*;

/// One of each kind: the first promises nothing; the two in the middle are answered.
fn requests() -> [Write; 4] {
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
    [seen, append, burn, beat]
}

/// A batch of its own for each of them.
fn written() -> Vec<Written> {
    let path = tempfile::tempdir().expect("a folder");
    let (_tables, mut ledger) = Ledger::of_new(path.path());
    let each = requests().into_iter().zip(1..);
    let write = |(request, number)| {
        let mut batch = Batch::new(&ledger, number, 1);
        batch
            .apply(&mut ledger, 1, Envelope { client: 3, request })
            .expect("a sequence");
        let written = batch.commit(&mut ledger, Instant::now());
        written.ok().expect("written")
    };
    each.map(write).collect()
}

/// No test can cut the power; that a promise asks for a sync is what can be held on to.
#[test]
fn whatever_is_promised_is_synced() {
    let synced: Vec<bool> = written().iter().map(|it| it.needs_sync).collect();
    assert_eq!(synced, [false, true, true, true]);
}

/// Freed by this thread, it would take locks that the cores wait for.
#[test]
fn what_is_answered_gives_back_what_it_was_made_of() {
    let of = |written: &Written| {
        let spent = written.spent.first();
        spent.map(|(client, (name, record))| (*client, name.len(), record.is_empty()))
    };
    let given_back: Vec<_> = written().iter().map(of).collect();
    assert_eq!(
        given_back,
        [None, Some((3, 4, false)), Some((3, 4, true)), None]
    );
}
