//! A desk at the inbox store, for the examples: an open store, one client of it, and whom to
//! append to.

#![allow(dead_code, reason = "each example uses its own part of this")]

use std::sync::mpsc;
use std::time::Duration;

use iris_storage::{NewRecord, Reply, Request, Store, StoreClient, StoreOptions, record};

/// As the gateway has it: who makes a record is never who lets go of it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// An open store with one client.
pub struct Desk {
    pub store: Store,
    pub client: StoreClient,
    /// Told whenever there are replies.
    pub woken: mpsc::Receiver<()>,
}

impl Desk {
    pub fn open(options: StoreOptions) -> Result<Desk, Box<dyn std::error::Error>> {
        let store = Store::open(options)?;
        let (wake, woken) = mpsc::channel();
        let client = store.client(Box::new(move || {
            // The receiver lives as long as the store.
            let _ = wake.send(());
        }));
        Ok(Desk {
            store,
            client,
            woken,
        })
    }

    /// The next reply, waiting for it.
    pub fn reply(&mut self) -> Result<Reply, Box<dyn std::error::Error>> {
        loop {
            if let Some(reply) = self.client.poll() {
                return Ok(reply);
            }
            self.woken.recv_timeout(Duration::from_secs(60))?;
        }
    }

    /// Submits an append of `payload` for the user with this name.
    pub fn append(&mut self, token: u64, name: &str, payload: &[u8]) {
        let user = self.store.name_key().hash(name);
        let mut bytes = Vec::new();
        let new = NewRecord {
            id_sender: 1,
            id_number: token,
            sent_at_ms: 1,
            expires_at_ms: 0,
            sender: "sender",
            payload,
        };
        record::encode(&mut bytes, &new);
        self.client.submit(Request::Append {
            token,
            user,
            name: name.into(),
            record: bytes,
        });
    }
}

/// Names of users, picked in a random order that is the same each time.
pub struct Users {
    names: Vec<String>,
    random: u64,
}

impl Users {
    pub fn new(count: u64) -> Users {
        Users {
            names: (0..count).map(|n| format!("user{n}")).collect(),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    pub fn pick(&mut self) -> &str {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        &self.names[(self.random >> 33) as usize % self.names.len()]
    }
}
