//! `iris check`: validates the configuration and shows the values in effect.

use std::io::Write;

use super::{Failure, arguments::SettingArguments};

/// Prints the effective configuration on stdout, warnings on stderr.
pub(super) fn run(settings: &SettingArguments) -> Result<(), Failure> {
    let loaded = settings.load()?;
    for warning in &loaded.warnings {
        // A warning nobody can read is no failure of the check.
        let _ = writeln!(std::io::stderr(), "iris: warning: {warning}");
    }
    std::io::stdout()
        .write_all(loaded.to_toml().as_bytes())
        .map_err(|error| Failure::Run(format!("cannot write to stdout: {error}")))
}
