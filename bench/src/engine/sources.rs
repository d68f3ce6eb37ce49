//! The addresses that clients connect from.
//!
//! Between one source and one destination address there are no more connections than ephemeral
//! ports; past half of them connect searches them one by one, and those of the last run are still
//! in TIME_WAIT. Loopback has 16 million addresses, so each run takes a few of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

/// Connections from each source.
const CONNECTIONS_PER_SOURCE: usize = 8_000;
/// Runs that are told apart: 127.1.1.x to 127.250.250.x.
const NETWORKS: u32 = 250 * 250;
/// Runs of one process that are told apart from those of the next one.
const RUNS_PER_PROCESS: u32 = 100;

/// The sources of one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sources {
    /// The first three bytes of the addresses; `None` leaves the choice to the system.
    network: Option<[u8; 3]>,
}

impl Sources {
    /// Sources for connections to `server`, different from those of the runs before.
    pub(super) fn towards(server: SocketAddr) -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed) % RUNS_PER_PROCESS;
        let number = std::process::id()
            .wrapping_mul(RUNS_PER_PROCESS)
            .wrapping_add(run)
            % NETWORKS;
        let is_loopback = server.is_ipv4() && server.ip().is_loopback();
        Self {
            network: is_loopback.then_some([
                127,
                1 + (number / 250) as u8,
                1 + (number % 250) as u8,
            ]),
        }
    }

    /// The source of the `index`th connection that is opened.
    pub(super) fn of(self, index: usize) -> Option<IpAddr> {
        let [a, b, c] = self.network?;
        let host = 1 + (index / CONNECTIONS_PER_SOURCE) % 254;
        Some(Ipv4Addr::new(a, b, c, host as u8).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_differ_and_within_a_run_the_address_changes_before_ports_run_out() {
        let server = SocketAddr::from(([127, 0, 0, 1], 1));
        let (first, second) = (Sources::towards(server), Sources::towards(server));
        assert_ne!(first.of(0), second.of(0));
        assert_eq!(first.of(0), first.of(7_999));
        assert_ne!(first.of(7_999), first.of(8_000));
        assert!(
            first
                .of(2_000_000)
                .is_some_and(|source| source.is_loopback())
        );
    }

    #[test]
    fn elsewhere_the_system_chooses() {
        assert_eq!(
            Sources::towards(SocketAddr::from(([192, 0, 2, 1], 1))).of(0),
            None
        );
    }
}
