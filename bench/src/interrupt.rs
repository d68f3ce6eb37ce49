//! Being asked to stop: SIGINT and SIGTERM end a scenario as an error does, so that its servers are
//! ended and its folders removed on the way out.
//!
//! Owner: the process. Invariant: once asked, every loop that waits fails at its next turn.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::BenchError;

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Takes both signals from now on. The second of them ends the process at once.
pub(crate) fn watch() -> io::Result<()> {
    let asked = ASKED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // In this order: the default action applies when the flag was set before.
        signal_hook::flag::register_conditional_default(signal, asked.clone())?;
        signal_hook::flag::register(signal, asked.clone())?;
    }
    Ok(())
}

/// An error if the process was asked to stop.
pub(crate) fn check() -> Result<(), BenchError> {
    match ASKED.get() {
        Some(asked) if asked.load(Ordering::Relaxed) => Err(BenchError::Interrupted),
        _ => Ok(()),
    }
}
