//! Runs the cores until a shutdown is asked for and everything begun is finished.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::config::Config;
use crate::metrics::{Phase, Published};
use crate::signals::Shutdown;

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
    let mut listeners = Vec::new();
    for address in config.listen {
        let listener =
            TcpListener::bind(address).map_err(|source| ServeError::Listen { address, source })?;
        listeners.push(listener);
    }
    let listen = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .collect();
    published.set_phase(Phase::Serving { listen });
    shutdown.wait();
    published.set_phase(Phase::Draining);
    Ok(())
}
