//! The programs that are compared: where they are, and what they call themselves.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use clap::ValueEnum;

use crate::BenchError;

/// Folders with servers that are not always on the PATH of a user.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// A program that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Program {
    /// The bare ring of this program.
    Limit,
    /// The gateway.
    Iris,
    /// nats-server.
    Nats,
    /// mosquitto.
    Mosquitto,
    /// redis-server.
    Redis,
}

impl Program {
    /// What it is called in print.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Limit => "iris-bench",
            Self::Iris => "gateway",
            Self::Nats => "nats-server",
            Self::Mosquitto => "mosquitto",
            Self::Redis => "redis-server",
        }
    }

    /// What Debian calls it; `None` for our own.
    pub(super) fn package(self) -> Option<&'static str> {
        match self {
            Self::Limit | Self::Iris => None,
            Self::Nats => Some("nats-server"),
            Self::Mosquitto => Some("mosquitto"),
            Self::Redis => Some("redis-server"),
        }
    }
}

/// Where the programs are.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) gateway: PathBuf,
}

impl Programs {
    /// The file of a program; `None` if it is not installed.
    pub(super) fn find(&self, program: Program) -> Result<Option<PathBuf>, BenchError> {
        let Some(name) = program.package() else {
            return Ok(Some(match program {
                Program::Limit => env::current_exe()?,
                _ => self.gateway.clone(),
            }));
        };
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from));
        Ok(folders
            .map(|folder| folder.join(name))
            .find(|file| file.is_file()))
    }

    /// What a program calls itself and its version.
    pub(super) fn version(&self, program: Program) -> Result<String, BenchError> {
        let Some(file) = self.find(program)? else {
            return Ok("not installed".to_owned());
        };
        // Mosquitto has no flag for its version alone.
        let flag = if program == Program::Mosquitto {
            "-h"
        } else {
            "--version"
        };
        let output = Command::new(&file).arg(flag).output();
        let output = output.map_err(|source| BenchError::Spawn {
            program: file.to_string_lossy().into_owned(),
            source,
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        // The rest of Redis's line is about its build.
        let words = text.lines().next().unwrap_or_default().split(' ');
        let words = words.take_while(|word| !word.starts_with("sha="));
        Ok(words.collect::<Vec<_>>().join(" "))
    }
}
