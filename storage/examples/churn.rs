//! An hour's churn in fast motion: appends, burns and expiries around a steady live set, and what it costs the disk.
//!
//! `cargo run --release -p iris-storage --example churn -- [folder] [seconds] [users] [messages kept each]`
//! Each line is a stretch of time: messages a second, bytes written to the disk for each byte of records (the
//! process's own `write_bytes` in /proc/self/io), bytes held on disk for each live byte, the longest commit. Time runs
//! fast: the upkeep does every second what it does every ten. It measures and prints; it judges nothing. The folder
//! (default: one beside the current) is made and removed.

use std::collections::VecDeque;
use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use iris_storage::{NewRecord, Reply, Request, Store, StoreClient, StoreOptions, UserHash, record};

const PAYLOAD_LEN: usize = 200;
const IN_FLIGHT: usize = 4_000;
/// One user in so many has messages that expire instead of a reader that comes.
const EXPIRING: u64 = 4;
const TTL_MS: u64 = 3_000;
const STRETCHES: u64 = 8;

type Failure = Box<dyn Error>;

struct Inbox {
    user: UserHash,
    name: String,
    kept: VecDeque<u64>,
    expires: bool,
}

struct Churn {
    store: Store,
    client: StoreClient,
    woken: mpsc::Receiver<()>,
    inboxes: Vec<Inbox>,
    kept_max: usize,
    /// Whose append waits, by token.
    asked: VecDeque<usize>,
    appended: u64,
    random: u64,
}

impl Churn {
    fn step(&mut self) -> Result<(), Failure> {
        while self.asked.len() < IN_FLIGHT {
            self.random = self
                .random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = (self.random >> 33) as usize % self.inboxes.len();
            let inbox = &self.inboxes[at];
            let mut bytes = Vec::new();
            let new = NewRecord {
                id_sender: 1,
                id_number: self.appended,
                sent_at_ms: 1,
                expires_at_ms: if inbox.expires { now_ms() + TTL_MS } else { 0 },
                sender: "sender",
                payload: &[7; PAYLOAD_LEN],
            };
            record::encode(&mut bytes, &new);
            self.client.submit(Request::Append {
                token: at as u64,
                user: inbox.user,
                name: inbox.name.as_str().into(),
                record: bytes,
            });
            self.asked.push_back(at);
            self.appended += 1;
        }
        loop {
            match self.client.poll() {
                Some(Reply::Appended { token, sequence }) => {
                    self.asked.pop_front();
                    self.keep(token as usize, sequence);
                }
                Some(Reply::Burned { .. }) => {}
                Some(other) => return Err(format!("{other:?}").into()),
                None if self.asked.len() < IN_FLIGHT => return Ok(()),
                None => self.woken.recv_timeout(Duration::from_secs(60))?,
            }
        }
    }

    /// A reader that comes when twice as much waits as stays, and leaves half.
    fn keep(&mut self, at: usize, sequence: u64) {
        let inbox = &mut self.inboxes[at];
        if inbox.expires {
            return;
        }
        inbox.kept.push_back(sequence);
        if inbox.kept.len() >= self.kept_max * 2 {
            inbox.kept.drain(..self.kept_max);
            self.client.submit(Request::Burn {
                token: 0,
                user: inbox.user,
                name: inbox.name.as_str().into(),
                head: inbox.kept[0],
            });
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}

/// What a folder occupies on the disk.
fn occupied(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => occupied(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

/// Bytes this process had written to the disk.
fn written() -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/self/io")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("no write_bytes in /proc/self/io")?.parse()?)
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "churn-data".to_string()));
    let seconds: u64 = arguments.next().map_or(Ok(40), |text| text.parse())?;
    let users: u64 = arguments.next().map_or(Ok(5_000), |text| text.parse())?;
    let kept_max: usize = arguments.next().map_or(Ok(20), |text| text.parse())?;
    if folder.exists() {
        return Err(format!("{} exists; choose a folder that does not", folder.display()).into());
    }
    let store = Store::open(StoreOptions {
        upkeep_interval: Duration::from_secs(1),
        journal_interval: Duration::from_secs(5),
        free_bytes_min: 0,
        ..StoreOptions::new(&folder)
    })?;
    let (wake, woken) = mpsc::channel();
    let client = store.client(Box::new(move || {
        // The receiver lives as long as the store.
        let _ = wake.send(());
    }));
    let inbox = |n: u64| {
        let name = format!("user{n}");
        Inbox {
            user: store.name_key().hash(&name),
            name,
            kept: VecDeque::new(),
            expires: n.is_multiple_of(EXPIRING),
        }
    };
    let mut churn = Churn {
        inboxes: (0..users).map(inbox).collect(),
        client,
        woken,
        kept_max,
        asked: VecDeque::new(),
        appended: 0,
        random: 0x9e37_79b9_7f4a_7c15,
        store,
    };
    let (begin, written_first) = (churn.store.metrics(), written()?);
    let (mut before, mut written_before) = (begin, written_first);
    let mut line = |churn: &Churn, label: &str, elapsed: Duration| -> Result<(), Failure> {
        let (now, written_now) = (churn.store.metrics(), written()?);
        let records = now.appended_bytes - before.appended_bytes;
        let held = occupied(&folder);
        println!(
            "{label}: {:.0}/s; live {:.1} MB, on disk {:.1} MB = {:.2} a live byte; written {:.1} MB = {:.2} a byte of records; \
             expired {}, burned {}; longest commit so far {} ms",
            (now.appended - before.appended) as f64 / elapsed.as_secs_f64(),
            now.live_bytes as f64 / 1e6,
            held as f64 / 1e6,
            held as f64 / now.live_bytes.max(1) as f64,
            (written_now - written_before) as f64 / 1e6,
            // Not a number where there were none.
            (written_now - written_before) as f64 / records as f64,
            now.expired - before.expired,
            now.burned - before.burned,
            now.commit_us.max() / 1000
        );
        (before, written_before) = (now, written_now);
        Ok(())
    };
    for stretch in 1..=STRETCHES {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) / STRETCHES as u32 {
            churn.step()?;
        }
        line(
            &churn,
            &format!("stretch {stretch} of {STRETCHES}"),
            began.elapsed(),
        )?;
    }
    let records = churn.store.metrics().appended_bytes;
    let total = (written()? - written_first) as f64 / records as f64;
    println!("in all: {total:.2} bytes written for each byte of records");
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(8));
    line(&churn, "then 8 s without traffic", began.elapsed())?;
    churn.store.close()?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}
