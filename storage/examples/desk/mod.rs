//! A desk at the inbox store, for the examples that measure appends: an open store, one client of it, and whom to
//! append to.

use std::sync::mpsc;

use iris_storage::{NewRecord, Request, Store, StoreClient, StoreOptions, record, user_hash};

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

    /// Submits an append of `payload` for the user with this name.
    pub fn append(&mut self, token: u64, name: &str, payload: &[u8]) {
        let user = user_hash(self.store.seed(), name);
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
