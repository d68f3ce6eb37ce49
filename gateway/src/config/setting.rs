//! What a setting is: key, group, help, how it is parsed into the configuration and shown as TOML.
//!
//! The key in the file is `idle_timeout`, the flag `--idle-timeout`, the environment variable
//! `IRIS_IDLE_TIMEOUT`: all follow from [`Setting::key`].

use super::{Config, SETTINGS};

/// Headings of the settings in `--help` and `iris check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Addresses, folder, cpus.
    Server,
    /// What is allowed to whom, and for how long.
    Sessions,
    /// What a message may be and how long it waits.
    Messages,
    /// Logs.
    Logs,
}

impl Group {
    /// The heading.
    pub fn heading(self) -> &'static str {
        match self {
            Group::Server => "Server",
            Group::Sessions => "Sessions",
            Group::Messages => "Messages",
            Group::Logs => "Logs",
        }
    }
}

/// One setting.
pub struct Setting {
    /// The key in the file.
    pub key: &'static str,
    /// Where it stands in `--help`.
    pub group: Group,
    /// The value's name in `--help`.
    pub value_name: &'static str,
    /// Whether the flag may be repeated; the values are joined with commas.
    pub repeats: bool,
    /// What it does and why one would change it.
    pub help: &'static str,
    /// Parses a value into the configuration.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// The value as TOML.
    pub(super) show: fn(&Config) -> String,
}

impl Setting {
    /// The flag, without the dashes before it.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("IRIS_{}", self.key.to_uppercase())
    }

    /// The value that `config` holds, as TOML.
    pub fn shown(&self, config: &Config) -> String {
        (self.show)(config)
    }

    /// The setting with this key.
    pub fn find(key: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }
}
