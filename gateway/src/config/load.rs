//! Puts the layers together: flag over environment over file over default, and remembers for each
//! setting where its value came from.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Config, SETTINGS, Setting, file};

/// Variables of the environment that begin with `IRIS_` and are not settings.
const OTHER_VARIABLES: [&str; 2] = ["IRIS_CONFIG", "IRIS_SERVER"];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// This line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// This variable of the environment.
    Environment(String),
    /// This flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "file {}:{line}", path.display()),
            Origin::Environment(variable) => write!(f, "env {variable}"),
            Origin::Flag(flag) => write!(f, "flag --{flag}"),
        }
    }
}

/// What the operator gave, before any of it was parsed.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// Variables of the environment.
    pub environment: Vec<(String, String)>,
    /// Keys of settings with the flag's value, in the order of the command line.
    pub flags: Vec<(&'static str, String)>,
}

/// The effective configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// For each entry of [`SETTINGS`], in its order, where the value came from.
    pub origins: Vec<Origin>,
    /// What the operator should know although it is no error.
    pub warnings: Vec<String>,
}

/// A configuration that cannot be used: one line that says what to change (exit code 2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

/// Builds the configuration from defaults, file, environment and flags, for a process that may use
/// `cpus`.
///
/// # Errors
/// The first value that cannot be used, with its place and what is allowed.
pub fn load(defaults: Config, cpus: &[usize], given: &Given) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded {
        config: defaults,
        origins: vec![Origin::Default; SETTINGS.len()],
        warnings: Vec::new(),
    };
    let connections_planned = loaded.config.max_connections;
    if let Some(path) = &given.file {
        for entry in file::read(path).map_err(ConfigError)? {
            let place = Origin::File {
                path: path.clone(),
                line: entry.line,
            };
            loaded.apply(&entry.key, &entry.text, place)?;
        }
    }
    for (variable, text) in &given.environment {
        let Some(key) = variable.strip_prefix("IRIS_").map(str::to_lowercase) else {
            continue;
        };
        if Setting::find(&key).is_some() {
            loaded.apply(&key, text, Origin::Environment(variable.clone()))?;
        } else if !OTHER_VARIABLES.contains(&variable.as_str()) {
            // Not an error: orchestrators put variables of their own, named after the service,
            // into every process (IRIS_SERVICE_HOST).
            loaded.warnings.push(format!(
                "the environment's {variable} is no setting; it is ignored"
            ));
        }
    }
    for (key, text) in &given.flags {
        loaded.apply(key, text, Origin::Flag(key.replace('_', "-")))?;
    }
    loaded.check_together(connections_planned, cpus)?;
    Ok(loaded)
}

impl Loaded {
    fn apply(&mut self, key: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let index = SETTINGS
            .iter()
            .position(|setting| setting.key == key)
            .ok_or_else(|| ConfigError(format!("{key} is no setting")))?;
        (SETTINGS[index].set)(&mut self.config, text)
            .map_err(|problem| ConfigError(place(&origin, key) + &problem))?;
        self.origins[index] = origin;
        Ok(())
    }

    /// Where the value of `key` came from.
    pub fn origin(&self, key: &str) -> &Origin {
        SETTINGS
            .iter()
            .position(|setting| setting.key == key)
            .and_then(|index| self.origins.get(index))
            .unwrap_or(&Origin::Default)
    }

    /// What no single value can show.
    fn check_together(
        &mut self,
        connections_planned: u32,
        cpus: &[usize],
    ) -> Result<(), ConfigError> {
        let config = &self.config;
        let conflict =
            |key: &str, problem: String| Err(ConfigError(place(self.origin(key), key) + &problem));
        if config.outbox_bytes_max < config.payload_bytes_max {
            let (outbox, payload) = (config.outbox_bytes_max, config.payload_bytes_max);
            return conflict(
                "outbox_bytes_max",
                format!(
                    "{outbox} bytes are less than payload_bytes_max ({payload}): the largest message could never be delivered"
                ),
            );
        }
        if let Err(problem) = config.cores.place(cpus) {
            return conflict("cores", problem);
        }
        // A record: 53 bytes, a sender of up to 255, the payload.
        let record_bytes_max = u64::from(config.payload_bytes_max) + 53 + 255;
        for (key, bytes) in [
            ("inbox_bytes_max", config.inbox_bytes_max),
            ("store_bytes_max", config.store_bytes_max),
        ] {
            if bytes < record_bytes_max {
                return conflict(
                    key,
                    format!(
                        "{bytes} bytes are less than the largest message takes ({record_bytes_max}, after payload_bytes_max)"
                    ),
                );
            }
        }
        if config.ttl_default > config.ttl_max {
            return conflict("ttl_default", "is longer than ttl_max".to_owned());
        }
        for (at, address) in config.listen.iter().enumerate() {
            if address.port() == 0 {
                continue;
            }
            if config.listen[..at].contains(address) {
                return conflict("listen", format!("{address} is named twice"));
            }
            if config.admin == Some(*address) {
                return conflict("admin", format!("{address} is also an address for clients"));
            }
        }
        if config.max_connections > connections_planned {
            self.warnings.push(format!(
                "max_connections {} is more than this machine's memory carries by the plan ({connections_planned}); see iris-tune",
                config.max_connections
            ));
        }
        self.warnings.extend(self.config.auth.warning());
        self.warnings.extend(self.config.open_door());
        Ok(())
    }
}

/// The beginning of an error's line: where the value stands.
fn place(origin: &Origin, key: &str) -> String {
    match origin {
        Origin::Default => format!("{key}: "),
        Origin::File { path, line } => format!("{}:{line}: {key}: ", path.display()),
        Origin::Environment(variable) => format!("{variable}: "),
        Origin::Flag(flag) => format!("--{flag}: "),
    }
}

impl Given {
    /// What the file at `path` alone says.
    pub fn file(path: &Path) -> Given {
        Given {
            file: Some(path.to_owned()),
            ..Given::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn with_file(text: &str) -> (tempfile::NamedTempFile, Given) {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), text).expect("write");
        let given = Given::file(file.path());
        (file, given)
    }

    fn of(given: &Given) -> Result<Loaded, String> {
        load(Config::embedded(1000), &[0, 1], given).map_err(|error| error.to_string())
    }

    #[test]
    fn each_layer_wins_over_the_one_below() {
        let (_file, mut given) =
            with_file("idle_timeout = \"10s\"\nlogin_timeout = \"3s\"\nfollows_max = 1\n");
        given.environment = vec![
            ("IRIS_IDLE_TIMEOUT".to_owned(), "20s".to_owned()),
            ("IRIS_LOGIN_TIMEOUT".to_owned(), "4s".to_owned()),
        ];
        given.flags = vec![("idle_timeout", "30s".to_owned())];
        let loaded = of(&given).expect("valid");
        assert_eq!(loaded.config.idle_timeout, Duration::from_secs(30));
        assert_eq!(loaded.config.login_timeout, Duration::from_secs(4));
        assert_eq!(loaded.config.follows_max, 1);
        assert_eq!(loaded.config.followers_max, 4096);
        assert_eq!(
            loaded.origin("idle_timeout").to_string(),
            "flag --idle-timeout"
        );
        assert_eq!(
            loaded.origin("login_timeout").to_string(),
            "env IRIS_LOGIN_TIMEOUT"
        );
        assert!(loaded.origin("follows_max").to_string().ends_with(":3"));
        assert_eq!(loaded.origin("followers_max"), &Origin::Default);
    }

    #[test]
    fn an_error_names_the_place_of_the_value() {
        let (file, given) = with_file("data = \"x\"\nidle_timeout = \"1ms\"\n");
        let error = of(&given).expect_err("out of range");
        assert!(
            error.starts_with(&format!(
                "{}:2: idle_timeout: 1ms is out of range",
                file.path().display()
            )),
            "{error}"
        );
        let given = Given {
            environment: vec![("IRIS_PAYLOAD_BYTES_MAX".to_owned(), "2MiB".to_owned())],
            ..Given::default()
        };
        let error = of(&given).expect_err("out of range");
        assert!(
            error
                .starts_with("IRIS_PAYLOAD_BYTES_MAX: 2MiB is out of range; allowed: 1KiB to 1MiB"),
            "{error}"
        );
    }

    #[test]
    fn values_that_contradict_each_other_are_refused() {
        for flags in [
            vec![("outbox_bytes_max", "4KiB")],
            vec![("ttl_default", "2d"), ("ttl_max", "1d")],
            vec![("inbox_bytes_max", "64KiB")],
            vec![("listen", "127.0.0.1:9085")],
            vec![("listen", "127.0.0.1:1,127.0.0.1:1")],
            vec![("listen", "")],
            vec![("cores", "0,7")],
        ] {
            let flags = flags
                .into_iter()
                .map(|(key, text)| (key, text.to_owned()))
                .collect();
            let given = Given {
                flags,
                ..Given::default()
            };
            assert!(of(&given).is_err(), "{:?}", given.flags);
        }
    }

    #[test]
    fn a_foreign_variable_is_a_warning_and_a_large_limit_too() {
        let given = Given {
            environment: vec![
                ("IRIS_SERVICE_HOST".to_owned(), "10.0.0.1".to_owned()),
                ("IRIS_CONFIG".to_owned(), "x".to_owned()),
                ("HOME".to_owned(), "/".to_owned()),
                ("IRIS_MAX_CONNECTIONS".to_owned(), "2000".to_owned()),
            ],
            ..Given::default()
        };
        let warnings = of(&given).expect("valid").warnings;
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("IRIS_SERVICE_HOST"));
        assert!(warnings[1].contains("max_connections 2000"));
    }
}
