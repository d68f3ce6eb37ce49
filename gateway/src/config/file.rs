//! The configuration file: TOML, one key for each setting, no tables.
//!
//! Read with the place of every key, so that an unknown key or a bad value names file and line.
//! A key that is not in the table of settings is an error: a misspelt limit that is silently
//! ignored is found under load.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::SETTINGS;

/// Largest configuration file; a wrong path may name anything.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One key of the file.
pub(super) struct Entry {
    pub key: String,
    /// The value as a flag would give it; arrays are joined with commas.
    pub text: String,
    /// Line in the file, from 1.
    pub line: usize,
}

/// Reads a configuration file.
///
/// # Errors
/// One line that names the file and, where there is one, the line in it.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, String> {
    let shown = path.display();
    let cannot =
        |error: std::io::Error| format!("cannot read the configuration file {shown}: {error}");
    let len = std::fs::metadata(path).map_err(cannot)?.len();
    if len > FILE_BYTES_MAX {
        return Err(format!(
            "{shown} has {len} bytes; is it a configuration file?"
        ));
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    parse(&text).map_err(|(line, problem)| format!("{shown}:{line}: {problem}"))
}

/// The entries of a file's text, or the line and the problem.
fn parse(text: &str) -> Result<Vec<Entry>, (usize, String)> {
    let line_at = |offset: usize| {
        1 + text
            .bytes()
            .take(offset)
            .filter(|byte| *byte == b'\n')
            .count()
    };
    let table = DeTable::parse(text).map_err(|error| {
        (
            error.span().map_or(1, |span| line_at(span.start)),
            error.message().to_owned(),
        )
    })?;
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line_at(key.span().start);
        let name = key.get_ref().as_ref();
        if !SETTINGS.iter().any(|setting| setting.key == name) {
            return Err((line, unknown(name)));
        }
        let text = flat(value.get_ref()).ok_or_else(|| {
            (
                line,
                format!("{name} must be a string, a number or an array of these"),
            )
        })?;
        entries.push(Entry {
            key: name.to_owned(),
            text,
            line,
        });
    }
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn unknown(key: &str) -> String {
    let keys: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    // A dash for an underscore is the likeliest slip: the flags are written with dashes.
    let nearest = keys.iter().find(|known| **known == key.replace('-', "_"));
    match nearest {
        Some(known) => format!("unknown key `{key}`; did you mean `{known}`?"),
        None => format!("unknown key `{key}`; known keys: {}", keys.join(", ")),
    }
}

fn flat(value: &DeValue<'_>) -> Option<String> {
    Some(match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        // The trailing comma keeps a list of one cpu apart from a number of cores.
        DeValue::Array(values) => {
            let mut joined = String::new();
            for value in values.iter() {
                match value.get_ref() {
                    DeValue::Array(_) => return None,
                    scalar => joined.push_str(&flat(scalar)?),
                }
                joined.push(',');
            }
            joined
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(String, String, usize)> {
        let entries = parse(text).unwrap_or_else(|(line, problem)| panic!("{line}: {problem}"));
        entries
            .into_iter()
            .map(|entry| (entry.key, entry.text, entry.line))
            .collect()
    }

    fn error(text: &str) -> (usize, String) {
        parse(text).map(|_| ()).expect_err("must be refused")
    }

    #[test]
    fn keys_come_with_their_lines() {
        let text = "# comment\nlisten = [\"127.0.0.1:1\", \"[::1]:2\"]\n\nmax_connections = 1_000\ncores=[3]\n";
        assert_eq!(
            entries(text),
            [
                ("listen".to_owned(), "127.0.0.1:1,[::1]:2,".to_owned(), 2),
                ("max_connections".to_owned(), "1000".to_owned(), 4),
                ("cores".to_owned(), "3,".to_owned(), 5),
            ]
        );
    }

    #[test]
    fn an_unknown_key_names_itself_and_its_line() {
        let (line, problem) = error("data = \"x\"\nidle_timout = \"5s\"\n");
        assert_eq!(line, 2);
        assert!(
            problem.contains("`idle_timout`") && problem.contains("idle_timeout"),
            "{problem}"
        );
        assert!(
            error("idle-timeout = \"5s\"\n")
                .1
                .contains("did you mean `idle_timeout`?")
        );
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        assert!(
            error("[server]\nlisten = 1\n")
                .1
                .contains("unknown key `server`")
        );
        assert!(error("data = true\n").1.contains("data must be"));
        assert!(error("data = { a = 1 }\n").1.contains("data must be"));
        assert!(error("listen = [[\"a\"]]\n").1.contains("listen must be"));
        assert_eq!(
            error("data = \"a\"\ndata = \"b\"\n").0,
            2,
            "twice the same key"
        );
        assert_eq!(error("data = \"a\"\nlog = \n").0, 2, "no value");
    }
}
