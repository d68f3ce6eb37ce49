//! A core without its executor: what it decides, looked at between its turns.

use std::sync::Arc;
use std::time::Duration;

use iris_protocol::{Name, classic};
use iris_storage::{Store, StoreOptions, user_hash};

use super::{Core, CoreOptions, Shared, mesh};
use crate::metrics::Published;
use crate::shard::{Authenticator, Limits, Shard, ShardOptions};

struct Everybody;

impl Authenticator for Everybody {
    fn admits(&self, _user: &str, _credential: Option<&[u8]>) -> bool {
        true
    }
}

fn name_at(core: usize) -> String {
    (0..100)
        .map(|n| format!("user-{n}"))
        .find(|name| user_hash(1, name).home(2) == core)
        .expect("a name with that home")
}

/// Nobody rouses a core when the one at the other end of a full lane takes a batch.
#[test]
fn a_core_with_a_full_lane_does_not_sleep_for_long() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(StoreOptions::new(folder.path())).expect("a store");
    let mut lanes = mesh(2);
    let _other = lanes.pop();
    let mut core = Core::new(CoreOptions {
        index: 0,
        shared: Arc::new(Shared::new(2, 10).expect("eventfds")),
        shard: Box::new(|| {
            Shard::new(ShardOptions {
                core: 0,
                cores: 2,
                seed: 1,
                first_number: 1,
                limits: Limits::default(),
                authenticator: Box::new(Everybody),
            })
        }),
        listeners: Vec::new(),
        slots: 64,
        lanes: lanes.pop().expect("two were made"),
        store: store.client(Box::new(|| ())),
        published: Arc::new(Published::new(2)),
        drain_timeout: Duration::from_secs(1),
    })
    .expect("a core");
    let (here, there) = (name_at(0), name_at(1));
    let mut login = Vec::new();
    classic::encode_login(&mut login, Name::parse(here.as_bytes()).expect("a name"));
    let mut send = Vec::new();
    let target = Name::parse(there.as_bytes()).expect("a name");
    classic::encode_send(&mut send, target, b"");
    let id = core.shard.accepted();
    core.shard.received(id, &login);
    while !core.shard.has_batches() {
        core.shard.received(id, &send);
        core.turn().expect("a turn");
    }
    // Once its counts are shown, nothing else would wake it for a second.
    assert!(core.sleep_max() <= Duration::from_millis(10));
}
