//! Reads blocks and tables out of `SPEC.md`, so that the text is what the code is held to.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;

/// The specification, as it is published.
pub const TEXT: &str = include_str!("../../SPEC.md");

/// The fenced blocks of one language, by the name behind it: ```` ```hex classic.login ````.
pub fn blocks(language: &str) -> BTreeMap<&'static str, String> {
    let mut blocks = BTreeMap::new();
    let mut lines = TEXT.lines();
    while let Some(line) = lines.next() {
        let Some((found, name)) = line.strip_prefix("```").and_then(|at| at.split_once(' ')) else {
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if found == language {
            let before = blocks.insert(name, block.join("\n"));
            assert!(before.is_none(), "two blocks are named {name}");
        }
    }
    blocks
}

/// The bytes of every `hex` block; what stands behind a `;` is for people.
pub fn golden_bytes() -> BTreeMap<&'static str, Vec<u8>> {
    let bytes = |block: String| -> Vec<u8> {
        block
            .lines()
            .flat_map(|line| line.split(';').next().unwrap_or("").split_whitespace())
            .map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits"))
            .collect()
    };
    blocks("hex")
        .into_iter()
        .map(|(name, block)| (name, bytes(block)))
        .collect()
}

/// The rows of the first table behind a heading, cells trimmed, header and rule left out.
pub fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, behind) = TEXT
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("no heading {heading}"));
    behind
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let line = line.trim_matches('|');
            line.split('|').map(|cell| cell.trim()).collect()
        })
        .collect()
}

/// A cell without its back quotes.
pub fn plain(cell: &str) -> &str {
    cell.trim_matches('`')
}
