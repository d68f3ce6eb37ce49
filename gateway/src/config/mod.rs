//! The effective configuration of a gateway: parsed once, at start, into types that cannot be wrong.
//!
//! A value comes from the first of these that names it: flag, environment (`IRIS_*`), file (TOML),
//! built-in default ([`load`]). One table ([`SETTINGS`]) says for each setting its key, its range
//! and the reason, its help text and how it is shown; flags, environment, file, `--help` and
//! `iris check` all read that table, so they cannot disagree.
//!
//! Owned by the main thread until `serve` takes it; nothing changes it afterwards.

mod auth;
mod cores;
mod file;
mod load;
mod setting;
mod settings;
mod show;
pub mod units;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use iris_protocol::Protocols;
use iris_storage::{Overflow, Quotas};

pub use auth::{Auth, Secret};
pub use cores::Cores;
pub use load::{ConfigError, Given, Loaded, Origin, load};
pub use setting::{Group, Setting};
pub use settings::SETTINGS;

/// Everything an operator may decide. Documentation of ranges and reasons: [`SETTINGS`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect; both protocols share each address.
    pub listen: Vec<SocketAddr>,
    /// What is spoken there.
    pub protocols: Protocols,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; `None` is off.
    pub admin: Option<SocketAddr>,
    /// Folder of the inbox store.
    pub data: PathBuf,
    /// Bytes that must be free on the disk of `data` for a message to be stored; 0: no matter.
    pub free_bytes_min: u64,
    /// Which cpus run a core.
    pub cores: Cores,
    /// Cores may take a real-time priority.
    pub realtime: bool,
    /// Connections at once, over all cores; further ones are refused with a reason.
    pub max_connections: u32,
    /// Connections at once from one address; `None` is half of `max_connections`.
    pub address_connections_max: Option<u32>,
    /// Failed logins of one address in a minute, after which it is refused until the minute is over.
    pub address_failed_logins_max: u32,
    /// Memory for input that is not acted upon yet, of all connections.
    pub input_bytes_max: u64,
    /// Memory for the outboxes of all sessions.
    pub output_bytes_max: u64,
    /// Largest payload of a message, in bytes.
    pub payload_bytes_max: u32,
    /// A connection that has not logged in by then is closed.
    pub login_timeout: Duration,
    /// A framed session that sent nothing for this long is closed.
    pub idle_timeout: Duration,
    /// A classic connection that sent nothing and took nothing for this long is closed, if at all.
    pub classic_idle_timeout: Option<Duration>,
    /// A delivery without the reader's acknowledgement for this long is stored as well, so that
    /// its sender gets an answer.
    pub ack_timeout: Duration,
    /// How long a shutdown may take to finish what was begun.
    pub drain_timeout: Duration,
    /// Bytes that may wait for one session's socket; above it deliveries spill to the inbox.
    pub outbox_bytes_max: u32,
    /// Sends of one user without an answer; one more is refused as `overloaded`.
    pub unanswered_sends_max: u32,
    /// Deliveries of one session without an acknowledgement; above it deliveries spill.
    pub unacked_deliveries_max: u32,
    /// Users one session may follow.
    pub follows_max: u32,
    /// Sessions that may follow one user.
    pub followers_max: u32,
    /// Messages one inbox may hold.
    pub inbox_messages_max: u32,
    /// Bytes of records one inbox may hold.
    pub inbox_bytes_max: u64,
    /// Bytes of records all inboxes together may hold.
    pub store_bytes_max: u64,
    /// What a sender may hold of an inbox while nobody else holds any, in percent.
    pub sender_inbox_percent: u8,
    /// What a sender may hold of all inboxes together while nobody else holds any, in percent.
    pub sender_store_percent: u8,
    /// What gives way in a full inbox.
    pub inbox_overflow: Overflow,
    /// How long a message waits for its reader if the sender names no time.
    pub ttl_default: Duration,
    /// The longest time a sender may name; longer ones are cut to it.
    pub ttl_max: Duration,
    /// Who may log in.
    pub auth: Auth,
    /// Form of the log lines.
    pub log: LogFormat,
    /// Which log lines are written.
    pub log_level: LogLevel,
}

/// The store knows the reasons of its own limits.
const QUOTAS: Quotas = Quotas::DEFAULT;

impl Config {
    /// The built-in defaults, with the memory and connections of this machine's plan.
    pub fn planned(plan: &iris_tune::Plan) -> Config {
        Config {
            input_bytes_max: plan.input_bytes_max,
            output_bytes_max: plan.output_bytes_max,
            ..Config::embedded(plan.connections_max)
        }
    }

    /// The built-in defaults for so many connections, with the budgets of a machine of 8 GiB.
    pub fn embedded(max_connections: u32) -> Config {
        Config {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8085))],
            protocols: Protocols::ALL,
            admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9085))),
            data: PathBuf::from("./iris-data"),
            free_bytes_min: 512 << 20,
            cores: Cores::All,
            realtime: true,
            max_connections,
            address_connections_max: None,
            // A person who mistypes notices nothing; a guesser gets nowhere with a secret of 16 bytes or more.
            address_failed_logins_max: 100,
            input_bytes_max: 256 << 20,
            output_bytes_max: 512 << 20,
            payload_bytes_max: 64 << 10,
            login_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(5 * 60),
            classic_idle_timeout: None,
            ack_timeout: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(10),
            outbox_bytes_max: 256 << 10,
            unanswered_sends_max: 1024,
            unacked_deliveries_max: 4096,
            follows_max: 128,
            followers_max: 4096,
            inbox_messages_max: u32::try_from(QUOTAS.inbox_messages_max).unwrap_or(u32::MAX),
            inbox_bytes_max: QUOTAS.inbox_bytes_max,
            store_bytes_max: QUOTAS.store_bytes_max,
            sender_inbox_percent: QUOTAS.sender_inbox_percent,
            sender_store_percent: QUOTAS.sender_store_percent,
            inbox_overflow: QUOTAS.overflow,
            ttl_default: Duration::from_secs(30 * 86_400),
            ttl_max: Duration::from_secs(365 * 86_400),
            auth: Auth::None,
            log: LogFormat::Human,
            log_level: LogLevel::info(),
        }
    }
}

impl Config {
    /// The warning of an address that others reach where nobody has to show anything.
    fn open_door(&self) -> Option<String> {
        let is_public = |address: &&SocketAddr| !address.ip().to_canonical().is_loopback();
        let address = self.listen.iter().find(is_public)?;
        matches!(self.auth, Auth::None).then(|| {
            format!(
                "whoever reaches {address} may log in as anyone: set secret_file, or keep the address from all but those \
                 you trust"
            )
        })
    }
}

/// Form of the log lines on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line for each event; colour only on a terminal.
    Human,
    /// One JSON object for each event.
    Json,
}

/// Which log lines are written: a level, or `tracing` directives such as
/// `info,iris_gateway::core=debug`. Known to be valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    /// The default: lifecycle and trouble, nothing per connection or message.
    pub fn info() -> LogLevel {
        LogLevel("info".to_owned())
    }

    /// Checks the directives.
    ///
    /// # Errors
    /// A sentence for people: what is wrong and what is allowed.
    pub fn parse(text: &str) -> Result<LogLevel, String> {
        let text = text.trim();
        // A single word that is no level would be taken for a module's name: silence, by a typo.
        let is_level = text.parse::<tracing::metadata::LevelFilter>().is_ok();
        let is_directives =
            text.contains('=') && tracing_subscriber::EnvFilter::builder().parse(text).is_ok();
        if text.is_empty() || !(is_level || is_directives) {
            return Err(format!(
                "{text:?} is not a log level; allowed: error, warn, info, debug, trace, off, \
                 or directives such as info,iris_gateway::core=debug"
            ));
        }
        Ok(LogLevel(text.to_owned()))
    }

    /// The directives as they were given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
