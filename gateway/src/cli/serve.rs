//! `iris serve`: puts the pieces around the cores together and waits until they have drained.
//!
//! Order matters: the configuration first (exit code 2, before anything is touched), then logs,
//! then signals (a stop during a long recovery of the store is not lost), then the admin port (so
//! that a probe sees "starting"), then the cores.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use rustix::process::{Resource, Rlimit, setrlimit};
use sd_notify::NotifyState;

use super::{Failure, arguments::SettingArguments};
use crate::config::{Config, Loaded};
use crate::metrics::{Phase, Published};
use crate::serve::serve;
use crate::signals::{self, Shutdown};
use crate::{admin, logging};

/// Runs the gateway until it has drained.
pub(super) fn run(settings: &SettingArguments) -> Result<(), Failure> {
    let Loaded {
        config, warnings, ..
    } = settings.load()?;
    logging::start(config.log, &config.log_level);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let shutdown = Shutdown::new();
    signals::listen(shutdown.clone())
        .map_err(|error| Failure::Run(format!("cannot handle signals: {error}")))?;

    let machine = iris_tune::read_machine();
    raise_descriptors(iris_tune::plan(&machine).descriptors);
    let cpus = config.cores.place(&machine.cpus).map_err(Failure::Usage)?;
    let published = Arc::new(Published::new(cpus.len()));
    if let Some(address) = config.admin {
        let bound = admin::start(address, Arc::clone(&published)).map_err(|error| {
            Failure::Run(format!(
                "cannot listen on {address} for administration: {error}: choose another with --admin, or --admin off"
            ))
        })?;
        tracing::info!("administration on http://{bound}: /metrics /healthz /readyz");
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        cores = cpus.len(),
        max_connections = config.max_connections,
        data = %config.data.display(),
        "starting"
    );
    let herald = {
        let (published, config) = (Arc::clone(&published), config.clone());
        thread::Builder::new()
            .name("iris-herald".to_owned())
            .spawn(move || herald(&published, &config))
    };
    let herald = herald.map_err(|error| Failure::Run(format!("cannot start a thread: {error}")))?;

    let served = serve(config, shutdown, Arc::clone(&published));
    published.set_phase(Phase::Stopped);
    // It ends with the phase Stopped; a panic in it must not change how the gateway ends.
    let _ = herald.join();
    served.map_err(|error| Failure::Run(chain(&error)))?;
    tracing::info!("drained; bye");
    Ok(())
}

/// Raises the soft limit of descriptors to the hard one: it bounds the slots of a ring, and the
/// files that the store keeps open. The soft limit is low for programs that use select(2) only.
fn raise_descriptors(descriptors: u64) {
    let limit = Rlimit {
        current: Some(descriptors),
        maximum: Some(descriptors),
    };
    // An unlimited hard limit is left alone, as the kernel's own bound for it is not known here.
    if descriptors != u64::MAX
        && let Err(error) = setrlimit(Resource::Nofile, limit)
    {
        tracing::warn!(%error, "cannot raise the limit of descriptors; a core may need more rings");
    }
}

/// Tells the operator and the service manager of each phase.
fn herald(published: &Published, config: &Config) {
    let mut phase = published.phase();
    let mut stopping = false;
    loop {
        match &phase {
            Phase::Starting => notify(&[NotifyState::Status("starting")]),
            Phase::Serving { listen } => {
                let addresses = join(listen);
                tracing::info!(listen = %addresses, "serving");
                tracing::info!(
                    "next, in a second terminal: {}",
                    chat_command(listen, config)
                );
                notify(&[
                    NotifyState::Ready,
                    NotifyState::Status(&format!("serving on {addresses}")),
                ]);
            }
            Phase::Draining | Phase::Stopped => {
                if !stopping {
                    stopping = true;
                    notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
                }
            }
        }
        if phase == Phase::Stopped {
            return;
        }
        phase = published.next_phase(&phase);
    }
}

/// Tells systemd, if it started us and asked to be told.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager; is NotifyAccess set?");
    }
}

fn join(addresses: &[SocketAddr]) -> String {
    addresses
        .iter()
        .map(SocketAddr::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The command that talks to this gateway from this machine.
fn chat_command(listen: &[SocketAddr], config: &Config) -> String {
    let mut command = "iris chat alice".to_owned();
    if let Some(address) = listen
        .first()
        .filter(|address| !crate::chat::is_default_server(address))
    {
        let mut reachable = *address;
        if reachable.ip().is_unspecified() {
            let loopback = if reachable.is_ipv4() {
                "127.0.0.1"
            } else {
                "::1"
            };
            reachable.set_ip(loopback.parse().unwrap_or(reachable.ip()));
        }
        if !crate::chat::is_default_server(&reachable) {
            command += &format!(" --server {reachable}");
        }
    }
    if let Some(file) = config.auth.secret_file() {
        command += &format!(" --credential-file {}", file.display());
    }
    command
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        // Many errors already hold the text of their cause.
        if !line.contains(&text) {
            line += &format!(": {text}");
        }
        cause = inner.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(listen: &str) -> String {
        chat_command(&[listen.parse().expect("an address")], &Config::embedded(1))
    }

    #[test]
    fn the_command_reaches_the_address() {
        assert_eq!(command("127.0.0.1:8085"), "iris chat alice");
        assert_eq!(command("0.0.0.0:8085"), "iris chat alice");
        assert_eq!(
            command("0.0.0.0:9000"),
            "iris chat alice --server 127.0.0.1:9000"
        );
        assert_eq!(command("[::]:8085"), "iris chat alice --server [::1]:8085");
        assert_eq!(
            command("10.0.0.1:8085"),
            "iris chat alice --server 10.0.0.1:8085"
        );
    }

    #[test]
    fn causes_are_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open the store: {0}")]
        struct Saying(#[source] std::io::Error);
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open the store")]
        struct Silent(#[source] std::io::Error);
        let cause = || std::io::Error::other("it is locked");
        assert_eq!(
            chain(&Saying(cause())),
            "cannot open the store: it is locked"
        );
        assert_eq!(
            chain(&Silent(cause())),
            "cannot open the store: it is locked"
        );
    }
}
