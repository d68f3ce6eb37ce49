//! Shows people that a run goes on. Only on a terminal, and on stderr, so that what is written to
//! stdout is the report alone.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// The line at the bottom of the terminal; nothing elsewhere.
pub(crate) struct Progress {
    scenario: &'static str,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows that `scenario` has begun.
    pub(crate) fn begin(scenario: &'static str) -> Self {
        let bar = stderr().is_terminal().then(ProgressBar::new_spinner);
        Self { scenario, bar }
    }

    /// A new phase; `steps` of it, if that is known.
    pub(crate) fn phase(&mut self, what: &str, steps: Option<u64>) {
        let Some(bar) = &self.bar else { return };
        let template = match steps {
            Some(steps) => {
                bar.set_length(steps);
                bar.set_position(0);
                "{elapsed_precise} {msg} [{bar:40}] {human_pos} of {human_len}, {eta} left"
            }
            None => "{elapsed_precise} {spinner} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(format!("{}: {what}", self.scenario));
    }

    /// It goes on.
    pub(crate) fn tick(&self) {
        if let Some(bar) = &self.bar {
            bar.tick();
        }
    }

    /// So many steps of the phase are done.
    pub(crate) fn at(&self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
    }

    /// Leaves the terminal as it was.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
