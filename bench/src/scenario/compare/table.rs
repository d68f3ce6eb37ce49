//! The figures of one load: a row for each server, the medians of its rounds, and how they stand to
//! the gateway's. As Markdown, which people can read as it is.

use std::fmt::Write as _;

use super::contender::Contender;
use super::program::Program;
use crate::measure::median;
use crate::report::{Verdict, number};

/// A figure that is taken in each round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    /// What it is.
    pub(super) name: &'static str,
    /// In what.
    pub(super) unit: &'static str,
    /// Whether its ratio to the gateway's stands beside it.
    pub(super) ratio: bool,
}

/// The rounds of one server.
#[derive(Debug)]
struct Row {
    name: &'static str,
    program: Program,
    /// By round, then by column; `None` where the server has no such figure.
    rounds: Vec<Vec<Option<f64>>>,
    verdict: Verdict,
}

/// All rounds of one load.
#[derive(Debug)]
pub(super) struct Table {
    title: &'static str,
    columns: &'static [Column],
    /// The row that ratios are to.
    base: &'static str,
    rows: Vec<Row>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(title: &'static str, columns: &'static [Column], base: &'static str) -> Self {
        Self {
            title,
            columns,
            base,
            rows: Vec::new(),
        }
    }

    /// What it is called in print.
    pub(super) fn title(&self) -> &'static str {
        self.title
    }

    /// Its figures.
    pub(super) fn columns(&self) -> &'static [Column] {
        self.columns
    }

    /// Its rows, in order.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&'static str, Program)> {
        self.rows.iter().map(|row| (row.name, row.program))
    }

    /// The medians of a column, by row.
    pub(super) fn medians(&self, column: usize) -> impl Iterator<Item = Option<f64>> {
        self.rows.iter().map(move |row| row.median(column))
    }

    /// Adds one more round of a server.
    pub(super) fn round(
        &mut self,
        contender: &Contender,
        figures: Vec<Option<f64>>,
        verdict: &Verdict,
    ) {
        let name = contender.name;
        let at = self.rows.iter().position(|row| row.name == name);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row {
                name,
                program: contender.program,
                rounds: Vec::new(),
                verdict: Verdict::default(),
            });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.rounds.push(figures);
        row.verdict
            .add(verdict.messages, verdict.refused, verdict.faults);
    }

    /// The table as text, with its title, and every round below it.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![self.heading()];
        lines.extend(self.rows.iter().map(|row| self.line(row)));
        let widths: Vec<_> = (0..lines[0].len())
            .map(|at| lines.iter().map(|line| line[at].len()).max().unwrap_or(0))
            .collect();
        let rule = widths.iter().enumerate().map(|(at, width)| match at {
            0 => "-".repeat(*width),
            _ => format!("{}:", "-".repeat(width - 1)),
        });
        lines.insert(1, rule.collect());
        let mut text = format!("{}\n\n", self.title);
        for line in lines {
            for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let _ = match at {
                    0 => write!(text, "| {cell:<width$} |"),
                    _ => write!(text, " {cell:>width$} |"),
                };
            }
            text.push('\n');
        }
        text.push('\n');
        for row in &self.rows {
            for (at, column) in self.columns.iter().enumerate() {
                let rounds = row.rounds.iter().map(|round| show(round[at]));
                let rounds = rounds.collect::<Vec<_>>().join("  ");
                let begin = if at == 0 { row.name } else { "" };
                let separator = if at == 0 { ":" } else { ";" };
                let _ = write!(text, "{begin}{separator} {} {rounds}", column.name);
            }
            text.push('\n');
        }
        text
    }

    fn heading(&self) -> Vec<String> {
        let mut cells = vec![String::new()];
        for column in self.columns {
            cells.push(format!("{}, {}", column.name, column.unit));
            if column.ratio {
                cells.push("ratio".to_owned());
            }
        }
        cells.push("went wrong".to_owned());
        cells
    }

    fn line(&self, row: &Row) -> Vec<String> {
        let base = self.rows.iter().find(|row| row.name == self.base);
        let mut cells = vec![row.name.to_owned()];
        for (at, column) in self.columns.iter().enumerate() {
            let value = row.median(at);
            cells.push(show(value));
            if column.ratio {
                let base = base.and_then(|base| base.median(at));
                let pair = value.zip(base.filter(|base| *base != 0.0));
                let ratio = pair.map(|(value, base)| value / base);
                cells.push(ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")));
            }
        }
        cells.push(wrong(&row.verdict));
        cells
    }
}

impl Row {
    fn median(&self, column: usize) -> Option<f64> {
        let figures = self.rounds.iter().filter_map(|round| *round.get(column)?);
        median(&figures.collect::<Vec<_>>())
    }
}

/// What went wrong, in words, refusals included.
pub(super) fn wrong(verdict: &Verdict) -> String {
    let mut words = verdict.faults_in_words();
    if verdict.refused > 0 {
        let separator = if words.is_empty() { "" } else { ", " };
        let _ = write!(words, "{separator}{} refused", verdict.refused);
    }
    if words.is_empty() {
        return "nothing".to_owned();
    }
    format!("{words}, of {}", number(verdict.messages as f64))
}

fn show(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::engine::Faults;
    use crate::scenario::compare::contender::RAW_LOG;

    const fn column(name: &'static str, unit: &'static str, ratio: bool) -> Column {
        Column { name, unit, ratio }
    }

    const COLUMNS: [Column; 2] = [column("rate", "msg/s", true), column("p50", "us", false)];

    /// A table of two servers, of which the second lost messages.
    pub(in crate::scenario::compare) fn example() -> Table {
        let mut table = Table::new("A load", &COLUMNS, "Iris");
        let mut wrong = Verdict::default();
        let faults = Faults {
            lost: 2,
            ..Faults::default()
        };
        wrong.add(400, 1, faults);
        let contender = |name, program| Contender {
            name,
            program,
            ..RAW_LOG
        };
        let iris = contender("Iris", Program::Iris);
        let other = contender("other", Program::Nats);
        for rate in [900.0, 1_000.0, 1_300.0] {
            table.round(&iris, vec![Some(rate), Some(1.25)], &Verdict::default());
            table.round(&other, vec![Some(rate * 2.0), None], &wrong);
        }
        table
    }

    #[test]
    fn medians_and_ratios_stand_beside_what_went_wrong() {
        let table = example();
        let text = table.text();
        let lines: Vec<_> = text.lines().collect();
        let expected = [
            "A load",
            "",
            "|       | rate, msg/s | ratio | p50, us |                  went wrong |",
            "| ----- | ----------: | ----: | ------: | --------------------------: |",
            "| Iris  |       1,000 |  1.00 |    1.25 |                     nothing |",
            "| other |       2,000 |  2.00 |       - | 6 lost, 3 refused, of 1,200 |",
            "",
            "Iris: rate 900  1,000  1,300; p50 1.25  1.25  1.25",
            "other: rate 1,800  2,000  2,600; p50 -  -  -",
        ];
        assert_eq!(lines, expected);
    }
}
