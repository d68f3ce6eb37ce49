//! Who is compared: each server with the settings it is started with.
//!
//! Invariant: every setting that differs from the server's default stands in the text that is
//! printed, for it is the very text the server is started with.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::program::{Program, Programs};
use crate::BenchError;
use crate::dialect::{Protocol, jetstream};
use crate::measure::{Server, free_address};

/// How long a server may take to make a stream.
const STREAM_MAX: Duration = Duration::from_secs(10);
/// The name of a configuration file in a server's folder.
const CONFIG: &str = "config";

/// When a store syncs to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// It keeps nothing.
    NoStore,
    /// Before it answers.
    Always,
    /// Some time after it has answered.
    Later,
}

/// One server and how it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) program: Program,
    pub(super) protocol: Protocol,
    pub(super) durability: Durability,
}

const fn contender(
    name: &'static str,
    program: Program,
    protocol: Protocol,
    durability: Durability,
) -> Contender {
    Contender {
        name,
        program,
        protocol,
        durability,
    }
}

/// Those who pass messages between users that are online. The first of the gateway is what the
/// others are set against.
pub(super) const ONLINE: [Contender; 7] = {
    use Durability::{Always, NoStore};
    use Program::{Iris, Limit, Mosquitto, Nats, Redis};
    [
        contender("bare ring", Limit, Protocol::Classic, NoStore),
        contender("Iris, classic", Iris, Protocol::Classic, Always),
        contender("Iris, framed", Iris, Protocol::Framed, Always),
        contender("NATS core", Nats, Protocol::Nats, NoStore),
        contender("Mosquitto, QoS 0", Mosquitto, Protocol::Mqtt, NoStore),
        contender("Mosquitto, QoS 1", Mosquitto, Protocol::MqttQos1, NoStore),
        contender("Redis pub/sub", Redis, Protocol::Redis, NoStore),
    ]
};

/// Those who keep messages for users who are away.
pub(super) const STORED: [Contender; 5] = {
    use Durability::{Always, Later};
    use Program::{Iris, Nats, Redis};
    [
        contender(
            "Iris, synced before the answer",
            Iris,
            Protocol::Framed,
            Always,
        ),
        contender(
            "JetStream, sync_interval always",
            Nats,
            Protocol::Jetstream,
            Always,
        ),
        contender("JetStream, default sync", Nats, Protocol::Jetstream, Later),
        contender(
            "Redis Streams, fsync always",
            Redis,
            Protocol::RedisStreams,
            Always,
        ),
        contender(
            "Redis Streams, fsync everysec",
            Redis,
            Protocol::RedisStreams,
            Later,
        ),
    ]
};

/// The yardstick of those: no server, so nothing is started for it.
pub(super) const RAW_LOG: Contender = contender(
    "raw log, one fdatasync a batch",
    Program::Limit,
    Protocol::Classic,
    Durability::Always,
);

/// A server that runs, with its folder.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) address: SocketAddr,
    // In this order: the server ends before its folder goes.
    server: Server,
    _folder: TempDir,
}

impl Running {
    /// The server's process.
    pub(super) fn pid(&self) -> u32 {
        self.server.pid()
    }
}

impl Contender {
    /// The settings it is started with, for people: one line.
    pub(super) fn settings(&self, cpu: usize) -> String {
        let settings = match self.program {
            Program::Limit | Program::Iris => self.arguments("ADDRESS", "FOLDER", cpu).join(" "),
            _ => self.config("PORT", "FOLDER"),
        };
        settings.trim().replace('\n', "; ")
    }

    /// Starts it on `cpu`, with a new folder under `data`, ready to be connected to.
    ///
    /// # Errors
    /// It does not serve.
    pub(super) fn start(
        &self,
        programs: &Programs,
        cpu: usize,
        data: &Path,
    ) -> Result<Running, BenchError> {
        let folder = TempDir::new_in(data)?;
        let address = free_address()?;
        let file = programs.find(self.program)?;
        let file = file.unwrap_or_else(|| self.program.package().unwrap_or_default().into());
        let path = folder.path().to_string_lossy();
        let arguments = self.arguments(&address.to_string(), &path, cpu);
        let command: Vec<_> = [file.to_string_lossy().into_owned()]
            .into_iter()
            .chain(arguments)
            .collect();
        let config = self.config(&address.port().to_string(), &path);
        fs::write(folder.path().join(CONFIG), config)?;
        let server = Server::start(&command, Some(cpu), address)?;
        if self.protocol == Protocol::Jetstream {
            create_stream(address)?;
        }
        Ok(Running {
            address,
            server,
            _folder: folder,
        })
    }

    /// Why it cannot take part, if it cannot.
    pub(super) fn missing(&self, programs: &Programs) -> Result<Option<String>, BenchError> {
        let Some(file) = programs.find(self.program)? else {
            let package = self.program.package().unwrap_or_default();
            return Ok(Some(format!(
                "{package} is not installed: apt-get install {package}"
            )));
        };
        if self.program == Program::Nats && self.durability == Durability::Always {
            // Older servers cannot sync before they answer.
            let folder = tempfile::tempdir()?;
            let config = folder.path().join(CONFIG);
            let port = free_address()?.port().to_string();
            fs::write(
                &config,
                self.config(&port, &folder.path().to_string_lossy()),
            )?;
            let test = Command::new(&file)
                .arg("-t")
                .arg("-c")
                .arg(&config)
                .output()?;
            if !test.status.success() {
                let version = programs.version(self.program)?;
                return Ok(Some(format!(
                    "{version} has no sync_interval; a newer one has"
                )));
            }
        }
        Ok(None)
    }

    fn arguments(&self, address: &str, folder: &str, cpu: usize) -> Vec<String> {
        let (config, data) = (format!("{folder}/{CONFIG}"), format!("{folder}/data"));
        // The comma makes it a list of cpus and not a number of cores.
        let cores = format!("{cpu},");
        let words: &[&str] = match self.program {
            Program::Limit => &["limit", "--listen", address],
            Program::Iris => &[
                "serve",
                "--listen",
                address,
                "--data",
                &data,
                "--cores",
                &cores,
                "--admin",
                "off",
                "--max-connections",
                "20000",
            ],
            Program::Nats | Program::Mosquitto => &["-c", &config],
            Program::Redis => &[&config],
        };
        words.iter().map(|&word| word.to_owned()).collect()
    }

    /// Its configuration file; empty for our own.
    fn config(&self, port: &str, folder: &str) -> String {
        match self.program {
            Program::Limit | Program::Iris => String::new(),
            Program::Nats => {
                let store = match self.durability {
                    Durability::NoStore => String::new(),
                    Durability::Always => {
                        format!("jetstream {{ store_dir: \"{folder}\", sync_interval: always }}\n")
                    }
                    Durability::Later => format!("jetstream {{ store_dir: \"{folder}\" }}\n"),
                };
                format!("listen: 127.0.0.1:{port}\n{store}")
            }
            Program::Mosquitto => format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n\
                 set_tcp_nodelay true\nmax_inflight_messages 0\nmax_queued_messages 0\n\
                 log_type error\n"
            ),
            Program::Redis => {
                let store = match self.durability {
                    Durability::NoStore => "appendonly no\n",
                    Durability::Always => "appendonly yes\nappendfsync always\n",
                    Durability::Later => "appendonly yes\nappendfsync everysec\n",
                };
                format!(
                    "bind 127.0.0.1\nprotected-mode no\nport {port}\ndir {folder}\nsave \"\"\n\
                     maxclients 20000\n{store}"
                )
            }
        }
    }
}

/// Makes the stream that holds everything.
fn create_stream(server: SocketAddr) -> Result<(), BenchError> {
    let refused = |words: Box<str>| BenchError::NotServing {
        status: None,
        words: words.into(),
    };
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(STREAM_MAX))?;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    jetstream::create_stream(&mut bytes);
    socket.write_all(&bytes)?;
    bytes.clear();
    let deadline = Instant::now() + STREAM_MAX;
    while Instant::now() < deadline {
        let len = socket.read(&mut chunk)?;
        if len == 0 {
            return Err(refused("it closed the connection".into()));
        }
        bytes.extend_from_slice(&chunk[..len]);
        match jetstream::stream_created(&bytes) {
            Ok(None) => {}
            Ok(Some(Ok(()))) => return Ok(()),
            Ok(Some(Err(words))) => return Err(refused(words)),
            Err(_) => return Err(refused("what it said is not the protocol of NATS".into())),
        }
    }
    Err(BenchError::Unanswered("making a stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_is_named_in_the_settings() {
        let settings = |name| {
            let all = STORED.iter().chain(&ONLINE);
            let found = all.into_iter().find(|contender| contender.name == name);
            found.expect("a contender").settings(0)
        };
        for (name, setting) in [
            ("JetStream, sync_interval always", "sync_interval: always"),
            ("Redis Streams, fsync always", "appendfsync always"),
            ("Redis Streams, fsync everysec", "appendfsync everysec"),
            ("Redis pub/sub", "appendonly no"),
            ("Mosquitto, QoS 0", "persistence false"),
            ("Iris, framed", "serve --listen ADDRESS"),
        ] {
            assert!(
                settings(name).contains(setting),
                "{name}: {}",
                settings(name)
            );
        }
    }
}
