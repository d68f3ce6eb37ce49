//! The code lists and the limits in `SPEC.md` are those of the code: each row, in order, word by
//! word.

use iris_protocol::framed::{self, Answer};
use iris_protocol::{CloseReason, ErrorCode, Name, Outcome, RefusalReason, SEQUENCE_MAX};

mod spec;

/// Code, label and text of every value, as the table's first three cells show them.
macro_rules! rows_of {
    ($list:ident) => {
        $list::ALL
            .iter()
            .map(|value| {
                vec![
                    value.code().to_string(),
                    format!("`{}`", value.label()),
                    value.text().to_owned(),
                ]
            })
            .collect::<Vec<_>>()
    };
}

fn first_three_cells(heading: &str) -> Vec<Vec<String>> {
    spec::table(heading)
        .into_iter()
        .map(|row| {
            assert_eq!(row.len(), 4, "{row:?}");
            assert!(!row[3].is_empty(), "{row:?} does not say what to do");
            row[..3].iter().map(|cell| (*cell).to_owned()).collect()
        })
        .collect()
}

#[test]
fn close_reasons_are_the_enum() {
    assert_eq!(
        first_three_cells("### Close reasons"),
        rows_of!(CloseReason)
    );
}

#[test]
fn refusals_are_the_enum() {
    assert_eq!(first_three_cells("### Refusals"), rows_of!(RefusalReason));
}

#[test]
fn errors_are_the_enum() {
    // The fields of the frame come first, the codes behind them.
    let (_, behind) = spec::TEXT
        .split_once("The request came to nothing; the session lives.\n")
        .expect("the sentence before the codes");
    let rows: Vec<Vec<&str>> = behind
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.split('|').map(str::trim).skip(1).take(3).collect())
        .collect();
    assert_eq!(rows, rows_of!(ErrorCode));
}

#[test]
fn outcomes_are_the_enum() {
    for outcome in [
        Outcome::Delivered,
        Outcome::Stored,
        Outcome::Refused(RefusalReason::BadTarget),
    ] {
        let row = format!("| {} | `{}` |", outcome.to_bytes()[0], outcome.label());
        assert!(spec::TEXT.contains(&row), "{row}");
    }
}

#[test]
fn limits_are_the_constants() {
    let constants = [
        (
            "PAYLOAD_BYTES_DEFAULT",
            u64::from(framed::PAYLOAD_BYTES_DEFAULT),
        ),
        ("PAYLOAD_BYTES_MAX", u64::from(framed::PAYLOAD_BYTES_MAX)),
        ("FRAME_LEN_MAX", framed::FRAME_LEN_MAX as u64),
        ("OPTIONS_LEN_MAX", framed::OPTIONS_LEN_MAX as u64),
        ("OPTIONAL_LEN_MAX", framed::OPTIONAL_LEN_MAX as u64),
        ("CREDENTIAL_LEN_MAX", framed::CREDENTIAL_LEN_MAX as u64),
        ("TEXT_LEN_MAX", framed::TEXT_LEN_MAX as u64),
        ("ANSWERS_MAX", framed::ANSWERS_MAX as u64),
        ("Name::LEN_MAX", Name::LEN_MAX as u64),
        ("SEQUENCE_MAX", SEQUENCE_MAX),
    ];
    let rows = spec::table("## Limits");
    let shown: Vec<(&str, u64)> = rows
        .iter()
        .map(|row| (spec::plain(row[0]), row[1].parse().expect("a number")))
        .collect();
    assert_eq!(shown, constants);
}

#[test]
fn figures_in_the_prose_are_the_constants() {
    let grouped = |number: usize| {
        let digits = number.to_string();
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    };
    for sentence in [
        format!("0 to {}", grouped(framed::CREDENTIAL_LEN_MAX)),
        format!(
            "0 to {}",
            grouped(iris_protocol::classic::PAYLOAD_BYTES_MAX)
        ),
        format!("longer than {} bytes", grouped(framed::FRAME_LEN_MAX)),
        format!(
            "up to {} bytes",
            grouped(framed::PAYLOAD_BYTES_MAX as usize)
        ),
        format!("at most {} bytes", framed::TEXT_LEN_MAX),
        format!("entries of {} bytes each", Answer::LEN),
        format!("1 to {} **bytes**", Name::LEN_MAX),
        "1 to 2^63 - 1".to_owned(),
    ] {
        assert!(spec::TEXT.contains(&sentence), "{sentence}");
    }
    assert_eq!(SEQUENCE_MAX, 2_u64.pow(63) - 1);
}
