//! The table of settings: for each its key, group, help text, parser with range and reason, and
//! how it is shown as TOML.
//!
//! A new setting is one field in [`Config`](super::Config), its default, and one entry here.

use std::path::PathBuf;
use std::time::Duration;

use iris_protocol::{Protocol, Protocols};
use iris_storage::Overflow;

use super::setting::{Group, Setting};
use super::show::{array, bytes, quoted, span};
use super::units::{self, Bounds, ByteSize};
use super::{Auth, Cores, LogFormat, LogLevel};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

const WINDOW: Bounds<u32> = Bounds {
    range: 1..=65_536,
    because: "each is an entry in memory as long as it is open",
};

const BUDGET: Bounds<u64> = Bounds {
    range: 4 << 20..=1 << 40,
    because: "below it a few large messages use it up, and no machine has more memory",
};

const TTL: Bounds<Duration> = Bounds {
    range: MINUTE..=Duration::from_secs(10 * 365 * 86_400),
    because: "expiry is looked at about once a minute, and no message waits for ever",
};

fn percent(text: &str) -> Result<u8, String> {
    const BOUNDS: Bounds<u32> = Bounds {
        range: 1..=100,
        because: "it is a part of a whole, and a sender must be able to send",
    };
    units::count(text, &BOUNDS).map(|percent| percent as u8)
}

/// Every setting, in the order of `--help` and of `iris check`.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        group: Group::Server,
        value_name: "ADDR",
        repeats: true,
        help: "Address and port for clients, of both protocols; may be repeated. \
               Port 0 takes a free port and logs it",
        set: |config, text| {
            config.listen = units::list(text)
                .map(units::address)
                .collect::<Result<_, _>>()?;
            if config.listen.is_empty() {
                return Err("needs at least one address, such as 0.0.0.0:8085".to_owned());
            }
            Ok(())
        },
        show: |config| array(&config.listen),
    },
    Setting {
        key: "protocols",
        group: Group::Server,
        value_name: "NAME",
        repeats: true,
        help: "Protocols spoken there, classic and framed; may be repeated. A connection that begins another one is \
               closed as unknown-protocol",
        set: |config, text| {
            let mut protocols = Protocols {
                classic: false,
                framed: false,
            };
            for name in units::list(text) {
                match name {
                    "classic" => protocols.classic = true,
                    "framed" => protocols.framed = true,
                    _ => return Err(format!("{name:?} is no protocol; allowed: classic, framed")),
                }
            }
            if !protocols.classic && !protocols.framed {
                return Err("needs at least one of classic, framed".to_owned());
            }
            config.protocols = protocols;
            Ok(())
        },
        show: |config| {
            let all = [Protocol::Classic, Protocol::Framed];
            let spoken = all
                .into_iter()
                .filter(|protocol| config.protocols.speaks(*protocol));
            let labels: Vec<&str> = spoken.map(Protocol::label).collect();
            array(&labels)
        },
    },
    Setting {
        key: "admin",
        group: Group::Server,
        value_name: "ADDR|off",
        repeats: false,
        help: "Address of /metrics, /healthz and /readyz; it has no login, so keep it private",
        set: |config, text| {
            config.admin = if text == "off" {
                None
            } else {
                Some(units::address(text)?)
            };
            Ok(())
        },
        show: |config| config.admin.map_or_else(|| quoted("off"), quoted),
    },
    Setting {
        key: "data",
        group: Group::Server,
        value_name: "DIR",
        repeats: false,
        help: "Folder of the inbox store; made if it is not there. One gateway at a time may hold it",
        set: |config, text| {
            if text.is_empty() {
                return Err("needs the path of a folder".to_owned());
            }
            config.data = PathBuf::from(text);
            Ok(())
        },
        show: |config| quoted(config.data.display()),
    },
    Setting {
        key: "free_bytes_min",
        group: Group::Server,
        value_name: "SIZE",
        repeats: false,
        help: "Bytes that must be free on the disk of the data folder: below it messages to users who are away are \
               refused as storage, while readers still empty their inboxes. 0B refuses nothing until the disk is full",
        set: |config, text| {
            const BOUNDS: Bounds<u64> = Bounds {
                range: 0..=1 << 40,
                because: "more than that kept free would not be a reserve",
            };
            config.free_bytes_min = units::large_size(text, &BOUNDS)?;
            Ok(())
        },
        show: |config| quoted(ByteSize(config.free_bytes_min)),
    },
    Setting {
        key: "cores",
        group: Group::Server,
        value_name: "all|N|LIST",
        repeats: false,
        help: "Cpus that run a core: all of them, a number, or a list such as 0,2,4-7",
        set: |config, text| {
            config.cores = Cores::parse(text)?;
            Ok(())
        },
        show: |config| config.cores.to_string(),
    },
    Setting {
        key: "realtime",
        group: Group::Server,
        value_name: "auto|off",
        repeats: false,
        help: "Real-time priority: a core that has a cpu of its own takes the lowest one where the system allows it, \
               and while it leaves half of the cpu to others, so that no other thread makes it wait",
        set: |config, text| {
            config.realtime = match text {
                "auto" => true,
                "off" => false,
                _ => return Err(format!("{text:?} is neither \"auto\" nor \"off\"")),
            };
            Ok(())
        },
        show: |config| quoted(if config.realtime { "auto" } else { "off" }),
    },
    Setting {
        key: "max_connections",
        group: Group::Server,
        value_name: "N",
        repeats: false,
        help: "Connections at once, over all cores; further ones are refused with a reason. \
               The default is what this machine's memory carries (see iris-tune)",
        set: |config, text| {
            const BOUNDS: Bounds<u32> = Bounds {
                range: 1..=16_000_000,
                because: "the slots of all rings together end there",
            };
            config.max_connections = units::count(text, &BOUNDS)?;
            Ok(())
        },
        show: |config| config.max_connections.to_string(),
    },
    Setting {
        key: "address_connections_max",
        group: Group::Server,
        value_name: "N|half",
        repeats: false,
        help: "Connections at once from one address, or one /64 of IPv6; further ones are closed and counted as \
               address-limit. half is half of max_connections, so that no address alone takes every place. \
               Raise it behind a balancer, and for a benchmark, since all of theirs come from one address",
        set: |config, text| {
            const BOUNDS: Bounds<u32> = Bounds {
                range: 1..=16_000_000,
                because: "there are no more connections than that",
            };
            config.address_connections_max = if text == "half" {
                None
            } else {
                Some(units::count(text, &BOUNDS)?)
            };
            Ok(())
        },
        show: |config| {
            let count = config.address_connections_max.map(|max| max.to_string());
            count.unwrap_or_else(|| quoted("half"))
        },
    },
    Setting {
        key: "address_failed_logins_max",
        group: Group::Server,
        value_name: "N",
        repeats: false,
        help: "Logins with a wrong credential that one address may try in a minute; after that its new connections are \
               closed as address-limit until the minute is over. Raise it behind a balancer",
        set: |config, text| {
            const BOUNDS: Bounds<u32> = Bounds {
                range: 1..=1_000_000,
                because: "a client may be configured wrongly once, and a million are no bound",
            };
            config.address_failed_logins_max = units::count(text, &BOUNDS)?;
            Ok(())
        },
        show: |config| config.address_failed_logins_max.to_string(),
    },
    Setting {
        key: "input_bytes_max",
        group: Group::Server,
        value_name: "SIZE",
        repeats: false,
        help: "Memory for what clients have sent and is not acted upon yet, of all connections. Beyond half of it, \
               whoever holds more than an equal share waits, and long messages come in a few at a time. The default is \
               this machine's plan (see iris-tune)",
        set: |config, text| {
            config.input_bytes_max = units::large_size(text, &BUDGET)?;
            Ok(())
        },
        show: |config| quoted(ByteSize(config.input_bytes_max)),
    },
    Setting {
        key: "output_bytes_max",
        group: Group::Server,
        value_name: "SIZE",
        repeats: false,
        help: "Memory for what waits for sockets and acknowledgements, of all sessions. Beyond half of it, a session \
               may hold an equal share instead of outbox_bytes_max. The default is this machine's plan (see iris-tune)",
        set: |config, text| {
            config.output_bytes_max = units::large_size(text, &BUDGET)?;
            Ok(())
        },
        show: |config| quoted(ByteSize(config.output_bytes_max)),
    },
    Setting {
        key: "drain_timeout",
        group: Group::Server,
        value_name: "TIME",
        repeats: false,
        help: "At shutdown, how long to wait until what was begun is finished; 0s is not at all",
        set: |config, text| {
            const BOUNDS: Bounds<Duration> = Bounds {
                range: Duration::ZERO..=HOUR,
                because: "a service manager kills a service that takes longer",
            };
            config.drain_timeout = units::duration(text, &BOUNDS)?;
            Ok(())
        },
        show: |config| span(config.drain_timeout),
    },
    Setting {
        key: "secret_file",
        group: Group::Sessions,
        value_name: "FILE|none",
        repeats: false,
        help: "Clients must show the bytes of this file (line ends at its end do not count) to log in; \
               none lets anyone in as anyone. Classic clients cannot show one and are refused",
        set: |config, text| {
            config.auth = Auth::parse(text)?;
            Ok(())
        },
        show: |config| {
            config
                .auth
                .secret_file()
                .map_or_else(|| quoted("none"), |file| quoted(file.display()))
        },
    },
    Setting {
        key: "login_timeout",
        group: Group::Sessions,
        value_name: "TIME",
        repeats: false,
        help: "A connection that has not logged in by then is closed",
        set: |config, text| {
            const BOUNDS: Bounds<Duration> = Bounds {
                range: Duration::from_millis(100)..=Duration::from_secs(600),
                because: "a shorter one cuts off distant clients, a longer one lets strangers hold slots",
            };
            config.login_timeout = units::duration(text, &BOUNDS)?;
            Ok(())
        },
        show: |config| span(config.login_timeout),
    },
    Setting {
        key: "idle_timeout",
        group: Group::Sessions,
        value_name: "TIME",
        repeats: false,
        help: "A framed session that sent nothing for this long, not even a ping, is closed",
        set: |config, text| {
            const BOUNDS: Bounds<Duration> = Bounds {
                range: Duration::from_secs(1)..=DAY,
                because: "clients ping three times within it, and a dead peer must be noticed some day",
            };
            config.idle_timeout = units::duration(text, &BOUNDS)?;
            Ok(())
        },
        show: |config| span(config.idle_timeout),
    },
    Setting {
        key: "classic_idle_timeout",
        group: Group::Sessions,
        value_name: "TIME|off",
        repeats: false,
        help: "A classic connection that sent nothing and took no message for this long is closed. Classic clients \
               have no ping, so it is off unless set; peers that are gone are noticed by TCP (keep-alive)",
        set: |config, text| {
            const BOUNDS: Bounds<Duration> = Bounds {
                range: Duration::from_secs(1)..=DAY,
                because: "a client that only waits for messages says nothing for long, and what is longer can be off",
            };
            config.classic_idle_timeout = if text == "off" {
                None
            } else {
                Some(units::duration(text, &BOUNDS)?)
            };
            Ok(())
        },
        show: |config| {
            config
                .classic_idle_timeout
                .map_or_else(|| quoted("off"), span)
        },
    },
    Setting {
        key: "outbox_bytes_max",
        group: Group::Sessions,
        value_name: "SIZE",
        repeats: false,
        help: "Bytes that may wait for one session's socket; above it deliveries go to the inbox",
        set: |config, text| {
            const BOUNDS: Bounds<u32> = Bounds {
                range: 4 << 10..=64 << 20,
                because: "every slow reader may hold that much memory",
            };
            config.outbox_bytes_max = units::size(text, &BOUNDS)?;
            Ok(())
        },
        show: |config| bytes(config.outbox_bytes_max),
    },
    Setting {
        key: "unanswered_sends_max",
        group: Group::Sessions,
        value_name: "N",
        repeats: false,
        help: "Sends of one user that may be without an answer; one more is refused as overloaded",
        set: |config, text| {
            config.unanswered_sends_max = units::count(text, &WINDOW)?;
            Ok(())
        },
        show: |config| config.unanswered_sends_max.to_string(),
    },
    Setting {
        key: "unacked_deliveries_max",
        group: Group::Sessions,
        value_name: "N",
        repeats: false,
        help: "Deliveries of one session that its reader has not acknowledged; above it deliveries go to the inbox",
        set: |config, text| {
            config.unacked_deliveries_max = units::count(text, &WINDOW)?;
            Ok(())
        },
        show: |config| config.unacked_deliveries_max.to_string(),
    },
    Setting {
        key: "follows_max",
        group: Group::Sessions,
        value_name: "N",
        repeats: false,
        help: "Users whose presence one session may follow",
        set: |config, text| {
            const BOUNDS: Bounds<u32> = Bounds {
                range: 0..=65_536,
                because: "each costs memory as long as the session lives",
            };
            config.follows_max = units::count(text, &BOUNDS)?;
            Ok(())
        },
        show: |config| config.follows_max.to_string(),
    },
    Setting {
        key: "followers_max",
        group: Group::Sessions,
        value_name: "N",
        repeats: false,
        help: "Sessions that may follow one user's presence",
        set: |config, text| {
            const BOUNDS: Bounds<u32> = Bounds {
                range: 0..=1_000_000,
                because: "one login tells all of them at once",
            };
            config.followers_max = units::count(text, &BOUNDS)?;
            Ok(())
        },
        show: |config| config.followers_max.to_string(),
    },
    Setting {
        key: "payload_bytes_max",
        group: Group::Messages,
        value_name: "SIZE",
        repeats: false,
        help: "Largest payload of a message; a larger one is refused and its connection lives",
        set: |config, text| {
            const BOUNDS: Bounds<u32> = Bounds {
                range: 1 << 10..=1 << 20,
                because: "one message must not hold up the others of its core",
            };
            config.payload_bytes_max = units::size(text, &BOUNDS)?;
            Ok(())
        },
        show: |config| bytes(config.payload_bytes_max),
    },
    Setting {
        key: "ack_timeout",
        group: Group::Messages,
        value_name: "TIME",
        repeats: false,
        help: "A delivery that its reader has not acknowledged by then is stored as well, and its sender gets an answer",
        set: |config, text| {
            const BOUNDS: Bounds<Duration> = Bounds {
                range: Duration::from_millis(10)..=HOUR,
                because: "below one round trip every message is written to disk; above it senders wait",
            };
            config.ack_timeout = units::duration(text, &BOUNDS)?;
            Ok(())
        },
        show: |config| span(config.ack_timeout),
    },
    Setting {
        key: "inbox_messages_max",
        group: Group::Messages,
        value_name: "N",
        repeats: false,
        help: "Messages that may wait in one user's inbox; what comes on top is refused as inbox-full, or see inbox_overflow",
        set: |config, text| {
            const BOUNDS: Bounds<u32> = Bounds {
                range: 1..=1_000_000_000,
                because: "an inbox that holds nothing stores nothing, and nobody reads more",
            };
            config.inbox_messages_max = units::count(text, &BOUNDS)?;
            Ok(())
        },
        show: |config| config.inbox_messages_max.to_string(),
    },
    Setting {
        key: "inbox_bytes_max",
        group: Group::Messages,
        value_name: "SIZE",
        repeats: false,
        help: "Bytes that may wait in one user's inbox: payloads, senders' names and 53 bytes for each message",
        set: |config, text| {
            const BOUNDS: Bounds<u64> = Bounds {
                range: 64 << 10..=16 << 40,
                because: "below it a single message may not fit, and no disk is larger",
            };
            config.inbox_bytes_max = units::large_size(text, &BOUNDS)?;
            Ok(())
        },
        show: |config| quoted(ByteSize(config.inbox_bytes_max)),
    },
    Setting {
        key: "store_bytes_max",
        group: Group::Messages,
        value_name: "SIZE",
        repeats: false,
        help: "The same for all inboxes together; on disk there may be about twice as much for a while. \
               What comes on top is refused as storage",
        set: |config, text| {
            const BOUNDS: Bounds<u64> = Bounds {
                range: 1 << 20..=1 << 50,
                because: "below it a single message may not fit, and no disk is larger",
            };
            config.store_bytes_max = units::large_size(text, &BOUNDS)?;
            Ok(())
        },
        show: |config| quoted(ByteSize(config.store_bytes_max)),
    },
    Setting {
        key: "sender_inbox_percent",
        group: Group::Messages,
        value_name: "PERCENT",
        repeats: false,
        help: "Part of an inbox that one sender may fill while nobody else writes there; with others it is less, so that a \
               newcomer finds room: at 50, as much as is still free. What comes on top is refused as inbox-full. \
               It counts from a quarter of the inbox on; 100 is all of it",
        set: |config, text| {
            config.sender_inbox_percent = percent(text)?;
            Ok(())
        },
        show: |config| config.sender_inbox_percent.to_string(),
    },
    Setting {
        key: "sender_store_percent",
        group: Group::Messages,
        value_name: "PERCENT",
        repeats: false,
        help: "The same of all inboxes together, in bytes; what comes on top is refused as storage. \
               Raise it where one service writes to everybody",
        set: |config, text| {
            config.sender_store_percent = percent(text)?;
            Ok(())
        },
        show: |config| config.sender_store_percent.to_string(),
    },
    Setting {
        key: "inbox_overflow",
        group: Group::Messages,
        value_name: "refuse|drop-oldest",
        repeats: false,
        help: "What gives way in a full inbox: refuse tells the sender, drop-oldest destroys the oldest messages of \
               that inbox, although they were answered as stored, unless their sender holds less of it",
        set: |config, text| {
            config.inbox_overflow = match text {
                "refuse" => Overflow::Refuse,
                "drop-oldest" => Overflow::DropOldest,
                _ => {
                    return Err(format!(
                        "{text:?} is no way out; allowed: refuse, drop-oldest"
                    ));
                }
            };
            Ok(())
        },
        show: |config| {
            quoted(match config.inbox_overflow {
                Overflow::Refuse => "refuse",
                Overflow::DropOldest => "drop-oldest",
            })
        },
    },
    Setting {
        key: "ttl_default",
        group: Group::Messages,
        value_name: "TIME",
        repeats: false,
        help: "How long a message waits for its reader when the sender names no time",
        set: |config, text| {
            config.ttl_default = units::duration(text, &TTL)?;
            Ok(())
        },
        show: |config| span(config.ttl_default),
    },
    Setting {
        key: "ttl_max",
        group: Group::Messages,
        value_name: "TIME",
        repeats: false,
        help: "The longest time a sender may name; a longer one is cut to it",
        set: |config, text| {
            config.ttl_max = units::duration(text, &TTL)?;
            Ok(())
        },
        show: |config| span(config.ttl_max),
    },
    Setting {
        key: "log",
        group: Group::Logs,
        value_name: "human|json",
        repeats: false,
        help: "Form of the log lines on stderr",
        set: |config, text| {
            config.log = match text {
                "human" => LogFormat::Human,
                "json" => LogFormat::Json,
                _ => return Err(format!("{text:?} is no log format; allowed: human, json")),
            };
            Ok(())
        },
        show: |config| match config.log {
            LogFormat::Human => quoted("human"),
            LogFormat::Json => quoted("json"),
        },
    },
    Setting {
        key: "log_level",
        group: Group::Logs,
        value_name: "LEVEL",
        repeats: false,
        help: "error, warn, info, debug, trace or off; or directives such as info,iris_gateway::core=debug",
        set: |config, text| {
            config.log_level = LogLevel::parse(text)?;
            Ok(())
        },
        show: |config| quoted(config.log_level.as_str()),
    },
];
