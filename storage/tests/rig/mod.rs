//! What the store's tests share: a store with one client that can wait for its replies, and short words for the
//! usual requests.

#![allow(dead_code, reason = "each test uses its own part of this")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use iris_storage::{
    FailureKind, NewRecord, Party, Reply, Request, Store, StoreClient, StoreError, StoreOptions,
    StoreState, StoredMessage, UserHash, record,
};

/// Longer than any sync on a busy machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Small enough for tests that open a dozen stores.
pub fn options(path: &Path) -> StoreOptions {
    StoreOptions {
        cache_bytes: 4 << 20,
        journal_bytes_max: 64 << 20,
        // What else lies on the disk is no matter here, and no ballast is wanted.
        free_bytes_min: 0,
        ..StoreOptions::new(path)
    }
}

/// One database, and memtables so small that a few thousand messages make tables.
pub fn small_tables(path: &Path) -> StoreOptions {
    StoreOptions {
        memtable_bytes: 1 << 20,
        databases: 1,
        ..options(path)
    }
}

/// The name of a user among many.
pub fn name(user: u64) -> String {
    format!("user{user}")
}

/// What a message says: its number, then the last byte of that up to this length.
pub fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut payload = vec![number as u8; len];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    payload
}

/// A generator of its own, so that a failing case can be found again.
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Seeded {
        Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below.max(1)
    }
}

/// A store and one client of it.
pub struct Rig {
    pub store: Store,
    pub client: StoreClient,
    woken: Receiver<()>,
    tokens: u64,
}

/// One page, as the tests compare it.
#[derive(Debug)]
pub struct Page {
    pub messages: Vec<StoredMessage>,
    pub next: u64,
    pub end: bool,
    pub lost: u32,
}

/// An inbox as far as it could be read.
pub struct Readable {
    pub payloads: Vec<Vec<u8>>,
    /// What its pages said was lost.
    pub lost: u64,
    /// A page was not given; what would follow is not there.
    pub refused: bool,
}

impl Rig {
    pub fn open(path: &Path) -> Rig {
        Rig::with(options(path))
    }

    /// A child that another test of this process starts holds its locks until it has become another program: so a folder
    /// that was closed just now may be in use for a moment.
    pub fn with(options: StoreOptions) -> Rig {
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            match Store::open(options.clone()) {
                Err(StoreError::Locked { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                opened => return Rig::of(opened.expect("the store opens")),
            }
        }
    }

    /// Opens a store on a thread of its own: an open that hangs or panics is a failure, not the end of the test.
    pub fn open_aside(
        options: StoreOptions,
        patience: Duration,
        case: &str,
    ) -> Result<Rig, StoreError> {
        let (sender, opened) = mpsc::channel();
        std::thread::spawn(move || {
            // Nobody waits for one that hangs any more.
            let _ = sender.send(Store::open(options));
        });
        match opened.recv_timeout(patience) {
            Ok(store) => store.map(Rig::of),
            Err(error) => panic!("{case}: the open panicked or hangs: {error}"),
        }
    }

    pub fn of(store: Store) -> Rig {
        let (client, woken) = client(&store);
        Rig {
            store,
            client,
            woken,
            tokens: 0,
        }
    }

    pub fn close(self) {
        self.store.close().expect("the store closes");
    }

    pub fn reopen(self, path: &Path) -> Rig {
        self.close();
        Rig::open(path)
    }

    pub fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    pub fn user(&self, name: &str) -> UserHash {
        self.store.name_key().hash(name)
    }

    /// The next reply, waiting for it.
    pub fn reply(&mut self) -> Reply {
        loop {
            if let Some(reply) = self.client.poll() {
                return reply;
            }
            self.woken
                .recv_timeout(PATIENCE)
                .expect("the store answers in time");
        }
    }

    /// Waits until the store is in this state.
    pub fn wait_for(&self, state: StoreState) {
        let until = Instant::now() + PATIENCE;
        while self.store.state() != state {
            assert!(Instant::now() < until, "{} for good", self.store.state());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn ask(&mut self, request: Request) -> Reply {
        self.client.submit(request);
        self.reply()
    }

    pub fn append_request(&mut self, name: &str, payload: &[u8], expires_at_ms: u64) -> Request {
        let user = self.user(name);
        let token = self.token();
        Request::Append {
            token,
            user,
            name: name.into(),
            record: encoded(payload, expires_at_ms),
        }
    }

    pub fn append(&mut self, name: &str, payload: &[u8]) -> u64 {
        let request = self.append_request(name, payload, 0);
        match self.ask(request) {
            Reply::Appended { sequence, .. } => sequence,
            other => panic!("not appended: {other:?}"),
        }
    }

    /// Appends side by side, in order; the sequences.
    pub fn append_all<'a>(&mut self, all: impl Iterator<Item = (&'a str, Vec<u8>)>) -> Vec<u64> {
        let mut sequences = BTreeMap::new();
        let mut asked = 0;
        let first = self.tokens + 1;
        for (name, payload) in all {
            let request = self.append_request(name, &payload, 0);
            self.client.submit(request);
            asked += 1;
            while asked - sequences.len() > 1000 {
                self.appended_to(&mut sequences);
            }
        }
        while asked > sequences.len() {
            self.appended_to(&mut sequences);
        }
        assert_eq!(
            sequences
                .first_key_value()
                .map_or(first, |(token, _)| *token),
            first
        );
        sequences.into_values().collect()
    }

    fn appended_to(&mut self, sequences: &mut BTreeMap<u64, u64>) {
        match self.reply() {
            Reply::Appended { token, sequence } => sequences.insert(token, sequence),
            other => panic!("not appended: {other:?}"),
        };
    }

    pub fn burn(&mut self, name: &str, head: u64) {
        let (token, user) = (self.token(), self.user(name));
        match self.ask(Request::Burn {
            token,
            user,
            name: name.into(),
            head,
        }) {
            Reply::Burned { .. } => {}
            other => panic!("not burned: {other:?}"),
        }
    }

    pub fn seen(&mut self, name: &str, at_ms: u64) {
        let user = self.user(name);
        self.client.submit(Request::Seen {
            user,
            name: name.into(),
            at_ms,
        });
    }

    pub fn page(&mut self, name: &str, from: u64, messages_max: usize) -> Page {
        self.page_within(name, from, messages_max, usize::MAX)
    }

    pub fn page_within(
        &mut self,
        name: &str,
        from: u64,
        messages_max: usize,
        bytes_max: usize,
    ) -> Page {
        self.try_page(name, from, messages_max, bytes_max)
            .unwrap_or_else(|other| panic!("no page: {other:?}"))
    }

    /// A page, or what was replied instead.
    fn try_page(
        &mut self,
        name: &str,
        from: u64,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Page, Reply> {
        let (token, user) = (self.token(), self.user(name));
        match self.ask(Request::Page {
            token,
            party: Party(0),
            user,
            name: name.into(),
            from,
            messages_max,
            bytes_max,
        }) {
            Reply::Page {
                messages,
                next,
                end,
                lost,
                ..
            } => Ok(Page {
                messages,
                next,
                end,
                lost,
            }),
            other => Err(other),
        }
    }

    /// An inbox of a damaged store, up to its end or to the first page that is refused.
    pub fn read_on(&mut self, name: &str, case: &str) -> Readable {
        let (mut payloads, mut lost, mut from) = (Vec::new(), 0, 0);
        loop {
            let Ok(page) = self.try_page(name, from, 300, usize::MAX) else {
                return Readable {
                    payloads,
                    lost,
                    refused: true,
                };
            };
            for message in &page.messages {
                let view = message.record.view().expect("a sound record");
                payloads.push(view.payload.to_vec());
            }
            lost += u64::from(page.lost);
            if page.end {
                return Readable {
                    payloads,
                    lost,
                    refused: false,
                };
            }
            assert!(page.next > from, "{case}: no end");
            from = page.next;
        }
    }

    /// The whole inbox, page by page: sequence and payload of each message, and how many records were lost.
    pub fn drain(&mut self, name: &str, messages_max: usize) -> (Vec<(u64, Vec<u8>)>, u32) {
        let (mut all, mut lost, mut from) = (Vec::new(), 0, 0);
        loop {
            let page = self.page(name, from, messages_max);
            lost += page.lost;
            for message in &page.messages {
                let view = message.record.view().expect("a sound record");
                all.push((message.sequence, view.payload.to_vec()));
            }
            if page.end {
                return (all, lost);
            }
            assert!(page.next > from, "a page that is not the end goes on");
            from = page.next;
        }
    }

    /// Messages and bytes of all inboxes, as the store keeps them. It shows a batch once all of it is answered.
    pub fn totals(&mut self) -> (u64, u64) {
        let metrics = self.store.metrics();
        (metrics.live_messages, metrics.live_bytes)
    }

    /// Messages, bytes, last seen.
    pub fn account(&mut self, name: &str) -> (u64, u64, u64) {
        let (token, user) = (self.token(), self.user(name));
        match self.ask(Request::Account {
            token,
            party: Party(0),
            user,
            name: name.into(),
        }) {
            Reply::Account {
                messages,
                bytes,
                last_seen_ms,
                ..
            } => (messages, bytes, last_seen_ms),
            other => panic!("no account: {other:?}"),
        }
    }

    pub fn failure(&mut self, request: Request) -> FailureKind {
        match self.ask(request) {
            Reply::Failed { error, .. } => error,
            other => panic!("did not fail: {other:?}"),
        }
    }
}

/// A client, and a channel that hears of every wake.
pub fn client(store: &Store) -> (StoreClient, Receiver<()>) {
    let (wake, woken) = mpsc::channel();
    let client = store.client(Box::new(move || {
        // The test may have ended.
        let _ = wake.send(());
    }));
    (client, woken)
}

pub fn encoded(payload: &[u8], expires_at_ms: u64) -> Vec<u8> {
    encoded_by("sender", payload, expires_at_ms)
}

pub fn encoded_by(sender: &str, payload: &[u8], expires_at_ms: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::encode(
        &mut bytes,
        &NewRecord {
            id_sender: 1,
            id_number: 2,
            sent_at_ms: 3,
            expires_at_ms,
            sender,
            payload,
        },
    );
    bytes
}

/// Bytes that a record with this payload counts for.
pub fn record_len(payload: &[u8]) -> u64 {
    (record::OVERHEAD + "sender".len() + payload.len()) as u64
}

/// Copies a closed store, so that damage can be tried on it again and again.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let path = entry.expect("an entry").path();
        let copy = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            fs::copy(&path, &copy).expect("copied");
        }
    }
}

/// The tables of the messages of database 0, oldest first.
pub fn tables(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("inbox-0/keyspaces/1/tables")).expect("tables");
    let mut tables: Vec<(u64, PathBuf)> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy();
            (name.parse().expect("a number"), path)
        })
        .collect();
    tables.sort();
    tables.into_iter().map(|(_, path)| path).collect()
}

/// Turns all that stands in the journals of database 0 into tables, without a store of ours.
pub fn flush(folder: &Path) {
    let database = fjall::Database::builder(folder.join("inbox-0"))
        .open()
        .expect("opens");
    for keyspace in ["messages", "users"] {
        let keyspace = database
            .keyspace(keyspace, fjall::KeyspaceCreateOptions::default)
            .expect("a keyspace");
        keyspace.rotate_memtable_and_wait().expect("flushed");
    }
}
