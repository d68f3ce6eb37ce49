//! The effective configuration as TOML that can be fed back as a configuration file, with each
//! value's source as a comment, and the forms that values have in it.

use std::fmt::{Display, Write};
use std::time::Duration;

use super::units::{ByteSize, Span};
use super::{Loaded, SETTINGS};

impl Loaded {
    /// The configuration as TOML. The secret is not in it, only the name of its file.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut group = None;
        for (setting, origin) in SETTINGS.iter().zip(&self.origins) {
            if group != Some(setting.group) {
                let gap = if group.is_some() { "\n" } else { "" };
                group = Some(setting.group);
                // Writing to a String cannot fail.
                let _ = writeln!(out, "{gap}# {}", setting.group.heading());
            }
            let line = format!("{} = {}", setting.key, setting.shown(&self.config));
            let _ = writeln!(out, "{line:<44} # {origin}");
        }
        out
    }
}

/// A TOML string; control characters and quotes are escaped.
pub(super) fn quoted(value: impl Display) -> String {
    toml::Value::String(value.to_string()).to_string()
}

/// A TOML array of strings.
pub(super) fn array(values: &[impl Display]) -> String {
    let quoted: Vec<String> = values.iter().map(quoted).collect();
    format!("[{}]", quoted.join(", "))
}

/// A duration, with its unit.
pub(super) fn span(value: Duration) -> String {
    quoted(Span(value))
}

/// A size, with its unit.
pub(super) fn bytes(value: u32) -> String {
    quoted(ByteSize(u64::from(value)))
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Given, load};

    #[test]
    fn what_is_shown_feeds_back_as_the_same_configuration() {
        let flags = [
            ("listen", "127.0.0.1:1,[::1]:2"),
            ("admin", "off"),
            ("data", "/a \"quoted\"\tpath"),
            ("cores", "1,"),
            ("max_connections", "17"),
            ("idle_timeout", "90s"),
            ("outbox_bytes_max", "65537"),
            ("inbox_bytes_max", "3TiB"),
            ("store_bytes_max", "5MiB"),
            ("sender_inbox_percent", "70"),
            ("sender_store_percent", "80"),
            ("protocols", "framed"),
            ("address_connections_max", "9"),
            ("address_failed_logins_max", "8"),
            ("inbox_overflow", "drop-oldest"),
            ("log", "json"),
            ("log_level", "info,iris_gateway::core=debug"),
        ];
        let flags = flags.map(|(key, text)| (key, text.to_owned())).to_vec();
        let first = load(
            Config::embedded(1000),
            &[0, 1],
            &Given {
                flags,
                ..Given::default()
            },
        )
        .expect("valid");
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), first.to_toml()).expect("write");
        // Other defaults, so that a value missing from the output would show.
        let mut other = Config::embedded(5);
        other.follows_max = 1;
        other.ttl_max *= 2;
        let second = load(other, &[0, 1], &Given::file(file.path())).expect("valid");
        assert_eq!(
            format!("{:?}", first.config),
            format!("{:?}", second.config)
        );
        assert!(
            second
                .origins
                .iter()
                .all(|origin| origin.to_string().starts_with("file "))
        );
    }

    #[test]
    fn every_line_has_its_source() {
        let given = Given {
            flags: vec![("follows_max", "7".to_owned())],
            ..Given::default()
        };
        let shown = load(Config::embedded(1000), &[0, 1], &given)
            .expect("valid")
            .to_toml();
        let line = shown
            .lines()
            .find(|line| line.starts_with("follows_max"))
            .expect("shown");
        assert!(
            line.starts_with("follows_max = 7 ") && line.ends_with("# flag --follows-max"),
            "{line}"
        );
        assert!(shown.contains("# default\n"));
    }
}
