//! A small disk, really full: messages to users who are away fill it up to the floor, another program fills the rest.
//! Nothing that was answered is lost, who is online notices nothing, readers empty their inboxes as long as anything
//! fits, and with room the store goes on by itself.
//!
//! The disk is a tmpfs in a mount namespace of the gateway's own; where that is not permitted the test says so.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{Event, Framed, Gateway, eventually};
use iris_protocol::{Outcome, RefusalReason};

const DISK: &str = "384m";
const FLOOR: &str = "96MiB";
/// Held by the test, and given back at the end: what the store itself has filled comes free only by and by.
const RESERVE: usize = 96 << 20;
const READERS: u64 = 8;
const PAYLOAD: usize = 8000;
const REFUSED: Outcome = Outcome::Refused(RefusalReason::Storage);

fn namespaces_are_permitted() -> bool {
    let mount = "mount -t tmpfs -o size=1m none /mnt";
    let tried = Command::new("unshare")
        .args(["-rm", "sh", "-c", mount])
        .output();
    match tried {
        Ok(output) if output.status.success() => true,
        other => {
            eprintln!("SKIPPED: needs a mount namespace (unshare -rm): {other:?}");
            false
        }
    }
}

/// Writes until the disk is full.
fn fill(path: &Path) {
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(path)
        .expect("made");
    let mut chunk = vec![7; 1 << 20];
    while !chunk.is_empty() {
        match file.write(&chunk) {
            Ok(_) => {}
            // A smaller piece may fit still.
            Err(error) if error.kind() == ErrorKind::StorageFull => chunk.truncate(chunk.len() / 2),
            Err(error) => panic!("{error}"),
        }
    }
}

struct Stage {
    gateway: Gateway,
    anna: Framed,
    ben: Framed,
    /// The numbers of what was answered as stored, and of what readers have.
    stored: HashSet<u64>,
    received: HashSet<u64>,
    next: u64,
}

impl Stage {
    /// Sends one message to a reader who is away.
    fn sends(&mut self) -> Outcome {
        self.next += 1;
        let mut payload = self.next.to_be_bytes().to_vec();
        payload.resize(PAYLOAD, b'.');
        let reader = format!("away-{}", self.next % READERS);
        let outcome = self.ben.sends(&reader, &payload);
        if outcome == Outcome::Stored {
            self.stored.insert(self.next);
        }
        outcome
    }

    fn sends_until(&mut self, wanted: Outcome) {
        eventually("another outcome", || (self.sends() == wanted).then_some(()));
    }

    /// Users who are online do not notice.
    fn online_goes_on(&mut self) {
        for _ in 0..20 {
            let sequence = self.ben.send("anna", b"now");
            self.anna.takes();
            assert_eq!(self.ben.outcome(sequence), Outcome::Delivered);
        }
    }

    /// A reader takes what there is, and acknowledges it.
    fn drains(&mut self, reader: u64) {
        let mut client = Framed::login(self.gateway.address(), &format!("away-{reader}"));
        let mut last = 0;
        while let Some(event) = client.hears_within(Duration::from_millis(500)) {
            let Event::Deliver(message) = event else {
                panic!("{event:?}");
            };
            let (number, _) = message.payload.split_first_chunk().expect("a number");
            self.received.insert(u64::from_be_bytes(*number));
            last = message.delivery;
            if last % 8 == 0 {
                client.ack(last);
            }
        }
        client.ack(last);
        client.leave();
    }

    fn is_in(&self, state: &str) {
        let series = format!("iris_store_state{{state=\"{state}\"}}");
        self.gateway
            .metrics_when(state, |metrics| metrics.sum(&series) == 1);
        let (status, reason) = self.gateway.page("/readyz");
        assert_eq!(status == 200, state == "open", "{reason}");
    }
}

#[test]
fn a_full_disk_loses_nothing_and_heals() {
    if !namespaces_are_permitted() {
        return;
    }
    let gateway = Gateway::serving_on_tmpfs(DISK, &["--free-bytes-min", FLOOR]);
    let address = gateway.address();
    // The way into its namespace.
    let disk: PathBuf = gateway.data_inside();
    fs::write(disk.join("reserve"), vec![7; RESERVE]).expect("written");
    let mut stage = Stage {
        anna: Framed::login(address, "anna"),
        ben: Framed::login(address, "ben"),
        gateway,
        stored: HashSet::new(),
        received: HashSet::new(),
        next: 0,
    };
    let Stage { anna, ben, .. } = &mut stage;
    ben.warms_up("anna", || drop(anna.takes()));

    // The store itself stops at the floor.
    while stage.sends() == Outcome::Stored {}
    stage.is_in("refusing");
    let metrics = stage.gateway.metrics();
    assert!(metrics.sum("iris_store_failed_total{reason=\"disk-full\"}") > 0);
    assert!(metrics.sum("iris_store_free_bytes") > 32 << 20);
    assert!(stage.stored.len() > 1000, "{}", stage.stored.len());
    stage.online_goes_on();
    stage.drains(0);
    Framed::inbox_becomes(address, "away-0", 0);

    // Another program fills the rest: the ballast goes, and burns still fit.
    fill(&disk.join("filler"));
    eventually("the ballast given up", || {
        (!disk.join("BALLAST").exists()).then_some(())
    });
    assert_eq!(stage.sends(), REFUSED);
    stage.online_goes_on();
    stage.drains(1);
    Framed::inbox_becomes(address, "away-1", 0);

    // And fills that as well: nothing fits any more. What is there can be read.
    fill(&disk.join("filler"));
    assert_eq!(stage.sends(), REFUSED);
    stage.online_goes_on();
    stage.drains(2);
    eventually("a write that does not fit", || {
        // Each leaves a last-seen.
        Framed::login(address, "guest").leave();
        let stopped = "iris_store_state{state=\"stopped\"}";
        (stage.gateway.metrics().sum(stopped) == 1).then_some(())
    });
    stage.drains(4);
    stage.online_goes_on();
    assert_eq!(stage.sends(), REFUSED);

    // A little room: enough to burn. A lot of room: it goes on, with its ballast.
    fs::remove_file(disk.join("filler")).expect("removed");
    stage.is_in("refusing");
    stage.drains(3);
    Framed::inbox_becomes(address, "away-3", 0);
    fs::remove_file(disk.join("reserve")).expect("removed");
    stage.is_in("open");
    eventually("the ballast", || {
        disk.join("BALLAST").exists().then_some(())
    });
    for _ in 0..100 {
        stage.sends_until(Outcome::Stored);
    }
    (0..READERS).for_each(|reader| stage.drains(reader));
    assert!(stage.gateway.metrics().sum("iris_store_healed_total") > 0);
    let lost = stage.stored.difference(&stage.received).count();
    assert_eq!(lost, 0, "of {}", stage.stored.len());
    stage.gateway.stop();
}
