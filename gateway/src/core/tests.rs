//! A core without its executor: what it decides, looked at between its turns.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iris_protocol::{Name, classic};
use iris_storage::{Store, StoreOptions};

use super::{AddressLimits, Core, CoreOptions, Lanes, Shared, mesh};
use crate::metrics::Published;
use crate::shard::harness::{first_of, name_at};

/// The first of two cores, and what must stay while it runs: the other's lanes, the store, its folder.
fn core(listeners: Vec<TcpListener>) -> (Core, (Lanes, Store, tempfile::TempDir)) {
    let (core, rest) = lone_core(listeners);
    core.shared.publish_ring(1, -1);
    (core, rest)
}

/// The same while the other core has no ring yet.
fn lone_core(listeners: Vec<TcpListener>) -> (Core, (Lanes, Store, tempfile::TempDir)) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(StoreOptions::new(folder.path())).expect("a store");
    let mut lanes = mesh(2);
    let other = lanes.pop().expect("two were made");
    let core = Core::new(CoreOptions {
        has_own_cpu: false,
        realtime: false,
        index: 0,
        shared: Arc::new(
            Shared::new(2, 10, AddressLimits::NONE, 1 << 30, 1 << 30).expect("eventfds"),
        ),
        shard: Box::new(|| first_of(2)),
        listeners,
        slots: 64,
        lanes: lanes.pop().expect("two were made"),
        store: store.client(Box::new(|| ())),
        published: Arc::new(Published::new(2)),
        drain_timeout: Duration::from_secs(1),
    })
    .expect("a core");
    (core, (other, store, folder))
}

#[test]
fn nobody_is_let_in_before_every_core_is_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (mut core, _rest) = lone_core(vec![listener]);
    let _client = std::net::TcpStream::connect(address).expect("the accept queue has room");
    let turns_accept = |core: &mut Core| {
        for _ in 0..20 {
            core.turn().expect("a turn");
            std::thread::sleep(Duration::from_millis(1));
        }
        core.shard.metrics.accepted
    };
    assert_eq!(turns_accept(&mut core), 0);
    core.shared.publish_ring(1, -1);
    assert_eq!(turns_accept(&mut core), 1);
}

/// The error stays for as long as the socket does not listen, as others stay while descriptors or
/// memory are short.
#[test]
fn an_accept_that_fails_again_and_again_is_put_off() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("bound");
    let listener: TcpListener = socket.try_clone().expect("a handle").into();
    let (mut core, _rest) = core(vec![listener]);
    let begun = Instant::now();
    let mut turns = 0;
    while begun.elapsed() < Duration::from_millis(500) {
        turns += 1;
        if !core.turn().expect("a turn") {
            core.sleep(Duration::MAX).expect("a sleep");
        }
    }
    let failures = core.shard.metrics.accept_failures;
    assert!((3..=10).contains(&failures), "{failures} accepts");
    assert!(turns < 100, "{turns} turns for nothing");
    // Once it can, it does.
    socket.listen(8).expect("listening");
    let address = socket.local_addr().expect("bound").as_socket().expect("IP");
    let _client = std::net::TcpStream::connect(address).expect("connected");
    while core.shard.connections_len() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "never accepted");
        if !core.turn().expect("a turn") {
            core.sleep(Duration::MAX).expect("a sleep");
        }
    }
}

/// Nobody rouses a core when the one at the other end of a full lane takes a batch.
#[test]
fn a_core_with_a_full_lane_does_not_sleep_for_long() {
    let (mut core, _rest) = core(Vec::new());
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
