//! The report for people: the verdict, one table for each case, what to mind, where it was run.

use std::fmt::Write as _;

use super::{Case, Report};

/// Columns of values.
const VALUE_WIDTH: usize = 13;

/// The whole report as text.
pub(super) fn text(report: &Report) -> String {
    let mut text = verdict(report);
    text.push('\n');
    if let Some(headline) = &report.headline {
        let _ = writeln!(text, "{headline}");
    }
    for case in &report.cases {
        text.push('\n');
        table(&mut text, case);
    }
    if !report.warnings.is_empty() {
        text.push('\n');
        for warning in &report.warnings {
            let _ = writeln!(text, "Mind: {warning}");
        }
    }
    text.push('\n');
    for (name, value) in &report.settings {
        let _ = writeln!(text, "{name}: {value}");
    }
    let _ = writeln!(text, "{}\n$ {}", report.machine, report.command);
    text
}

/// The first line: whether the figures are worth anything.
pub(super) fn verdict(report: &Report) -> String {
    let verdict = &report.verdict;
    let mut parts = Vec::new();
    if verdict.messages > 0 || verdict.logins == 0 {
        let fine = "messages none was lost, none out of order";
        parts.push((verdict.messages, fine, "messages"));
    }
    if verdict.logins > 0 {
        parts.push((verdict.logins, "logins all were taken", "logins"));
    }
    let sound = verdict.is_sound();
    let parts = parts.iter().map(|(count, fine, what)| {
        let count = number(*count as f64);
        format!("of {count} {}", if sound { fine } else { what })
    });
    let parts = parts.collect::<Vec<_>>().join(", ");
    let mut line = if sound {
        format!("{}: sound: {parts}", report.scenario)
    } else {
        let faults = verdict.faults_in_words();
        format!("{}: WRONG: {parts}: {faults}", report.scenario)
    };
    if verdict.refused > 0 {
        let _ = write!(line, "; {} refused", number(verdict.refused as f64));
    }
    if verdict.repeats_are_due && verdict.faults.repeated > 0 {
        let repeated = number(verdict.faults.repeated as f64);
        let _ = write!(line, "; {repeated} came again, as they may");
    }
    line
}

fn table(text: &mut String, case: &Case) {
    let names = case.figures.iter().map(|figure| figure.name.len());
    let name_width = names.max().unwrap_or(0).max(case.name.len()).max(28);
    let units = case.figures.iter().map(|figure| figure.unit.len());
    let unit_width = units.max().unwrap_or(0);
    let rounds = case.figures.iter().map(|figure| figure.rounds.len()).max();
    let rounds = rounds.unwrap_or(0);
    let _ = write!(text, "{:<name_width$} {:unit_width$}", case.name, "");
    if rounds > 1 {
        let _ = writeln!(
            text,
            " {:>VALUE_WIDTH$} {:>VALUE_WIDTH$} {:>VALUE_WIDTH$}",
            format!("median of {rounds}"),
            "least",
            "most"
        );
    } else {
        text.push('\n');
    }
    for figure in &case.figures {
        let (name, unit) = (figure.name, figure.unit);
        let value = figure.median().map_or_else(|| "n/a".to_owned(), number);
        let _ = write!(
            text,
            "  {name:<width$} {unit:<unit_width$} {value:>VALUE_WIDTH$}",
            width = name_width - 2
        );
        if let (Some((least, most)), 2..) = (figure.spread(), figure.rounds.len()) {
            let (least, most) = (number(least), number(most));
            let _ = write!(text, " {least:>VALUE_WIDTH$} {most:>VALUE_WIDTH$}");
        }
        text.push('\n');
    }
}

/// A number with as many digits as mean something, in groups of three.
pub(crate) fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude < 10.0 && magnitude.fract() != 0.0 {
        return format!("{value:.2}");
    }
    if magnitude < 100.0 && magnitude.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{magnitude:.0}");
    let mut grouped = String::new();
    if value < 0.0 {
        grouped.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Faults;

    #[test]
    fn numbers_are_short_and_in_groups() {
        let shown = [
            (0.0, "0"),
            (0.856, "0.86"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1_234_567.0, "1,234,567"),
            (-1_000.0, "-1,000"),
        ];
        for (value, text) in shown {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn the_first_line_says_what_went_wrong() {
        let mut report = Report::begin("mesh", 0);
        report.verdict.add(1_000, 0, Faults::default());
        report.case("a case").figure("rate", "msg/s", 5.0);
        report.case("a case").figure("rate", "msg/s", 7.0);
        report.case("a case").figure("calls", "", None);
        let sound = text(&report);
        assert!(
            sound.starts_with("mesh: sound: of 1,000 messages"),
            "{sound}"
        );
        assert!(sound.contains("median of 2"), "{sound}");
        assert!(sound.contains("n/a"), "{sound}");
        let lost = Faults {
            lost: 3,
            ..Faults::default()
        };
        report.verdict.add(0, 2, lost);
        let wrong = text(&report);
        let first = wrong.lines().next();
        let expected = "mesh: WRONG: of 1,000 messages: 3 lost; 2 refused";
        assert_eq!(first, Some(expected));
    }
}
