//! Puts a gateway together and sees it through: limits, kernel, store, listeners,
//! lanes, cores; then it waits for the drain.
//!
//! Owner: the main thread. Order matters: what can be wrong is found before
//! anything listens, and the store is closed after the last core has ended.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use iris_storage::{Quotas, Store, StoreError, StoreOptions, StoreState};
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::{Auth, Config};
use crate::core::{self, AddressLimits, CoreOptions, ProcessBudget, Shared};
use crate::metrics::{BudgetShown, Phase, Published};
use crate::placement;
use crate::shard::{APPEND_BYTES, Authenticator, Limits, Shard, ShardOptions};
use crate::signals::Shutdown;

/// Connections that the kernel may hold for us before they are accepted; it takes
/// no more than net.core.somaxconn.
const BACKLOG: i32 = 65_535;
/// A peer that answers nothing for this long is given up by the kernel.
const USER_TIMEOUT: Duration = Duration::from_secs(60);
/// When the kernel asks a silent peer whether it is there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(120);
/// How long an address may stay taken before the start is given up.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries.
const BIND_PAUSE: Duration = Duration::from_millis(50);
/// What a core opens at its start, its listeners aside: the executor's rings, its own,
/// eventfds. Eight, as counted, and room for further rings.
const DESCRIPTORS_OF_CORE: u64 = 10;
/// What the process and a young store of one database open: 16, as counted, and room to
/// grow; each further database takes less. A store of many tables takes hundreds, which
/// `iris-tune` advises on.
const DESCRIPTORS_OF_STORE: u64 = 32;

/// What `/readyz` says when the inbox store does not take messages; users who are online go on.
fn unready(state: StoreState) -> Option<&'static str> {
    match state {
        StoreState::Open => None,
        StoreState::Refusing => Some(
            "the disk is nearly full, so messages to users who are away are refused: make room on it",
        ),
        StoreState::Stopped => Some(
            "a write failed, so messages to users who are away are refused until the disk takes writes again: see to it",
        ),
        StoreState::Reopening => Some(
            "the inbox store is being opened again after a failed write: see to the disk if that lasts",
        ),
    }
}

/// Why a gateway could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}: choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The kernel lacks something, or does not let us use it.
    #[error("{0}")]
    Kernel(String),
    /// The inbox store cannot be opened, or not be closed in order.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cpus cannot be placed.
    #[error("{0}")]
    Placement(String),
    /// The process may not open enough descriptors.
    #[error(
        "{cores} cores and the inbox store need about {needed} descriptors, but the limit is {limit}: \
         raise it (ulimit -n, or LimitNOFILE= of the systemd unit) or start fewer cores (--cores)"
    )]
    Descriptors {
        /// Cores that were to start.
        cores: usize,
        /// What they need.
        needed: u64,
        /// RLIMIT_NOFILE.
        limit: u64,
    },
    /// A core could not start.
    #[error("core {core} cannot start: {reason}")]
    Start {
        /// Number of the core.
        core: usize,
        /// Why not.
        reason: String,
    },
    /// A core failed while it ran. The others have drained.
    #[error("core {core} failed: {reason}: the other cores have drained; restart, and report this")]
    Core {
        /// Number of the core.
        core: usize,
        /// How.
        reason: String,
    },
    /// The system refuses something small.
    #[error("cannot set up: {0}")]
    System(#[from] io::Error),
}

/// Serves until `shutdown` is asked for, then drains.
///
/// # Errors
/// What kept it from running.
pub fn serve(
    config: Config,
    shutdown: Shutdown,
    published: Arc<Published>,
) -> Result<(), ServeError> {
    iris_ring::probe().map_err(|missing| ServeError::Kernel(say_missing(&missing)))?;
    let machine = iris_tune::read_machine();
    let cpus = config
        .cores
        .place(&machine.cpus)
        .map_err(ServeError::Placement)?;
    let cores = cpus.len();
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let plan = iris_tune::plan(&machine);
    // The executor panics where it finds none left, which explains nothing.
    let options = StoreOptions {
        free_bytes_min: config.free_bytes_min,
        quotas: quotas(&config),
        queue_requests_max: store_requests_max(&config, &plan, cores),
        ..StoreOptions::new(&config.data).for_cores(cores)
    };
    let needed = options.databases as u64 * DESCRIPTORS_OF_STORE
        + cores as u64 * (DESCRIPTORS_OF_CORE + config.listen.len() as u64);
    if descriptors < needed {
        return Err(ServeError::Descriptors {
            cores,
            needed,
            limit: descriptors,
        });
    }
    let listeners = listen(&config.listen, cores)?;
    let addresses = listeners[0]
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .collect();
    placement::leave_cpus_of_cores(&machine.cpus, &cpus);
    let store = Arc::new(Store::open(options)?);
    published.add_source({
        let store = Arc::downgrade(&store);
        move |page| {
            if let Some(store) = store.upgrade() {
                page.store(&store.metrics());
            }
        }
    });
    published.add_check("store", {
        let store = Arc::downgrade(&store);
        move || {
            let reason = unready(store.upgrade()?.state())?;
            Some(reason.to_owned())
        }
    });
    let shared = Arc::new(Shared::new(
        cores,
        config.max_connections as usize,
        of_address(&config),
        config.input_bytes_max,
        config.output_bytes_max,
    )?);
    published.add_source({
        let (shared, cores) = (Arc::clone(&shared), Arc::downgrade(&published));
        let store_bytes_max = plan.store_queue_bytes_max * cpus.len() as u64;
        move |page| {
            let counts = cores.upgrade().map_or(Vec::new(), |cores| cores.cores());
            let of = |name, budget: &ProcessBudget| BudgetShown {
                name,
                bytes: budget.leased(),
                bytes_max: budget.max(),
            };
            let store = BudgetShown {
                name: "store",
                bytes: counts.iter().map(|core| core.store_pending_bytes).sum(),
                bytes_max: store_bytes_max,
            };
            page.budgets(&[
                of("input", &shared.input),
                of("output", &shared.output),
                store,
            ]);
        }
    });
    // The kernel bounds a table by the limit that is in force now; the plan is made for the hard one.
    let slots = plan
        .rings(config.max_connections, cores as u32)
        .slots
        .min(u32::try_from(descriptors).unwrap_or(u32::MAX));

    let (ready, readiness) = mpsc::channel();
    let mut handles = Vec::new();
    let lanes = core::mesh(cores);
    for (index, ((cpu, listeners), lanes)) in cpus.iter().zip(listeners).zip(lanes).enumerate() {
        let (name_key, limits, auth) = (
            store.name_key(),
            limits(&config, &plan),
            config.auth.clone(),
        );
        let waker = Arc::clone(&shared);
        let budgets_of = Arc::clone(&shared);
        let options = CoreOptions {
            index,
            has_own_cpu: cpus.iter().filter(|other| *other == cpu).count() == 1,
            realtime: config.realtime,
            shared: Arc::clone(&shared),
            shard: Box::new(move || {
                Shard::new(ShardOptions {
                    core: index as u16,
                    cores: cores as u16,
                    name_key,
                    first_number: unix_nanos(),
                    limits,
                    budgets: core::budgets(&budgets_of),
                    authenticator: Box::new(auth),
                })
            }),
            listeners,
            slots,
            lanes,
            store: store.client(Box::new(move || waker.wakes[index].ring())),
            published: Arc::clone(&published),
            drain_timeout: config.drain_timeout,
        };
        handles.push(core::start(*cpu, options, ready.clone())?);
    }
    drop(ready);
    let mut failure = None;
    for (core, started) in readiness.iter().take(cores) {
        if let Err(reason) = started {
            failure.get_or_insert(ServeError::Start { core, reason });
        }
    }
    if failure.is_none() {
        published.set_phase(Phase::Serving { listen: addresses });
    }
    shutdown.on_request({
        let (shared, published) = (Arc::clone(&shared), Arc::clone(&published));
        move || {
            published.set_phase(Phase::Draining);
            shared.drain();
        }
    });
    for (core, handle) in handles.into_iter().enumerate() {
        if let Err(error) = handle.join() {
            tracing::error!(core, %error, "core ended");
            let reason = error.to_string();
            failure.get_or_insert(ServeError::Core { core, reason });
        }
    }
    // From here on nobody else holds the store, so that it is closed here, in order.
    published.forget_sources();
    if let Some(store) = Arc::into_inner(store) {
        store.close()?;
    }
    failure.map_or(Ok(()), Err)
}

fn unix_nanos() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_nanos() as u64
}

fn say_missing(missing: &[iris_ring::Missing]) -> String {
    let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

impl Authenticator for Auth {
    fn admits(&self, _user: &str, credential: Option<&[u8]>) -> bool {
        // Classic clients have no credential: only who asks for none lets them in.
        Auth::admits(self, credential.unwrap_or_default())
    }
}

fn quotas(config: &Config) -> Quotas {
    Quotas {
        inbox_messages_max: u64::from(config.inbox_messages_max),
        inbox_bytes_max: config.inbox_bytes_max,
        store_bytes_max: config.store_bytes_max,
        sender_inbox_percent: config.sender_inbox_percent,
        sender_store_percent: config.sender_store_percent,
        overflow: config.inbox_overflow,
    }
}

fn of_address(config: &Config) -> AddressLimits {
    let half = config.max_connections.div_ceil(2);
    AddressLimits {
        connections_max: config.address_connections_max.unwrap_or(half),
        failed_logins_max: config.address_failed_logins_max,
    }
}

/// More requests than the cores ever have on their way to the store: what they may have is bounded in bytes, and a store
/// that refuses would lose messages that nobody waits for an answer to.
fn store_requests_max(config: &Config, plan: &iris_tune::Plan, cores: usize) -> usize {
    let of_senders = plan.store_queue_bytes_max * cores as u64;
    let appends = (of_senders + config.output_bytes_max) / APPEND_BYTES as u64;
    // A burn for each of as many users, and as much again for what a last batch of each lane brings.
    4 * appends as usize
}

fn limits(config: &Config, plan: &iris_tune::Plan) -> Limits {
    let ms = |duration: Duration| duration.as_millis() as u64;
    Limits {
        payload_bytes_max: config.payload_bytes_max,
        outbox_bytes_max: u64::from(config.outbox_bytes_max),
        unacked_deliveries_max: config.unacked_deliveries_max,
        unanswered_sends_max: config.unanswered_sends_max,
        follows_max: config.follows_max,
        followers_max: config.followers_max,
        login_timeout_ms: ms(config.login_timeout),
        idle_timeout_ms: ms(config.idle_timeout),
        classic_idle_timeout_ms: config.classic_idle_timeout.map_or(u64::MAX, ms),
        ack_timeout_ms: ms(config.ack_timeout),
        ttl_default_ms: ms(config.ttl_default),
        ttl_max_ms: ms(config.ttl_max),
        protocols: config.protocols,
        store_pending_bytes_max: plan.store_queue_bytes_max,
        lane_batch_bytes_max: plan.lane_batch_bytes_max as usize,
        ..Limits::default()
    }
}

/// Listeners for every core, by core: each core has a socket of its own on every
/// address (SO_REUSEPORT), so that the kernel spreads connections and no core
/// accepts for another.
fn listen(addresses: &[SocketAddr], cores: usize) -> Result<Vec<Vec<TcpListener>>, ServeError> {
    let mut by_core: Vec<Vec<TcpListener>> = (0..cores).map(|_| Vec::new()).collect();
    for address in addresses {
        let failed = |source| ServeError::Listen {
            address: *address,
            source,
        };
        // SO_REUSEPORT would let two gateways of one user share a port unnoticed:
        // binding without it fails where anybody listens. It does not listen
        // itself, or early clients would be lost with it.
        wait_for(*address).map_err(failed)?;
        let mut bound = *address;
        for listeners in &mut by_core {
            let socket = bind(bound, true).map_err(failed)?;
            socket.listen(BACKLOG).map_err(failed)?;
            let listener = TcpListener::from(socket);
            bound = listener.local_addr().map_err(failed)?;
            listeners.push(listener);
        }
    }
    Ok(by_core)
}

/// Waits until nobody listens on the address. After a kill the kernel ends the sockets
/// of the old rings on a worker of its own, some tenths of a second after the process has
/// gone: a supervisor that restarts at once must not find the port taken.
fn wait_for(address: SocketAddr) -> io::Result<()> {
    let until = Instant::now() + BIND_PATIENCE;
    loop {
        match bind(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                thread::sleep(BIND_PAUSE);
            }
            bound => return bound.map(drop),
        }
    }
}

/// Options set here are inherited by every accepted socket.
fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // Else [::] would take IPv4 as well, and could not stand beside 0.0.0.0.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    let options = SockRef::from(&socket);
    options.set_tcp_nodelay(true)?;
    options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    options.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ip_versions_share_a_port() {
        let any_v4 = SocketAddr::from(([0; 4], 0));
        let listeners = listen(&[any_v4], 2).expect("a free port");
        let port = listeners[0][0].local_addr().expect("bound").port();
        match listen(&[SocketAddr::from(([0; 16], port))], 2) {
            Ok(listeners) => assert_eq!(listeners.len(), 2),
            Err(ServeError::Listen { source, .. }) => {
                assert_ne!(source.kind(), io::ErrorKind::AddrInUse, "{source}");
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_port_that_is_freed_late_is_waited_for() {
        let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = holder.local_addr().expect("bound");
        let freeing = thread::spawn(move || {
            thread::sleep(Duration::from_millis(200));
            drop(holder);
        });
        assert!(listen(&[address], 1).is_ok());
        freeing.join().expect("no panic");
    }

    #[test]
    fn a_port_that_stays_taken_is_an_error() {
        let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = holder.local_addr().expect("bound");
        let error = listen(&[address], 1).expect_err("it is taken").to_string();
        assert!(error.contains("in use"), "{error}");
    }
}
