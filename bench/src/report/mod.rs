//! What a run found, whoever it is shown to: people (`table`), programs (`json`), plotters of HDR
//! histograms (`hdr`), a browser (`html`).
//!
//! Scenarios fill a [`Report`]; nothing here measures. Invariant: the verdict comes first in every
//! form, so that nobody reads figures of a run that lost messages without being told.

mod files;
mod hdr;
mod html;
mod table;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use crate::engine::{Faults, Interval};
use crate::measure::{Machine, median};

pub(crate) use files::Output;
pub(crate) use table::number;

/// What one run of a scenario found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether any message went wrong.
    pub(crate) verdict: Verdict,
    /// Which scenario.
    pub(crate) scenario: &'static str,
    /// What the run was about, in a line.
    pub(crate) headline: Option<String>,
    /// What else the reader of the figures must know.
    pub(crate) warnings: Vec<String>,
    /// What was run, and how: name and value.
    #[serde(serialize_with = "as_map")]
    pub(crate) settings: Vec<(&'static str, String)>,
    /// The command line.
    pub(crate) command: String,
    /// When it began, in ns since 1970.
    pub(crate) began_ns: u64,
    /// Where it was run, and what.
    pub(crate) machine: Machine,
    /// The figures.
    pub(crate) cases: Vec<Case>,
    /// Figures over time.
    pub(crate) series: Vec<Series>,
}

/// Whether any message went wrong.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Verdict {
    /// Messages that were sent.
    pub(crate) messages: u64,
    /// Those of them that the server refused, and said so.
    pub(crate) refused: u64,
    /// Logins that were due, in scenarios that are about them.
    pub(crate) logins: u64,
    /// Those of them that were not taken.
    pub(crate) shut_out: u64,
    /// What went wrong.
    pub(crate) faults: Faults,
    /// Repeats are part of the scenario: a reader that leaves without acknowledging gets them.
    pub(crate) repeats_are_due: bool,
}

/// A part of a scenario that has figures of its own.
#[derive(Debug, Serialize)]
pub(crate) struct Case {
    /// What it is called in print.
    pub(crate) name: String,
    /// Its figures, in order.
    pub(crate) figures: Vec<Figure>,
    /// All rounds together, from due to delivered.
    #[serde(serialize_with = "hdr::serialize")]
    pub(crate) latency_ns: Option<Histogram<u64>>,
    /// All rounds, over time.
    #[serde(skip)]
    pub(crate) intervals: Vec<Interval>,
}

/// One figure, a value for each round.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// What it is.
    pub(crate) name: &'static str,
    /// In what.
    pub(crate) unit: &'static str,
    /// By round; none where it could not be had.
    pub(crate) rounds: Vec<Option<f64>>,
}

/// A figure over time.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    /// What it is.
    pub(crate) name: String,
    /// In what.
    pub(crate) unit: &'static str,
    /// Seconds since the run began, and the value.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Pairs as an object.
fn as_map<S: Serializer>(
    pairs: &[(&'static str, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

impl Report {
    /// An empty report of a run that begins now.
    pub(crate) fn begin(scenario: &'static str, now_ns: u64) -> Self {
        let mut words = std::env::args();
        let program = words.next().unwrap_or_default();
        let program = program.rsplit('/').next().unwrap_or_default().to_owned();
        Self {
            verdict: Verdict::default(),
            scenario,
            headline: None,
            warnings: Vec::new(),
            settings: Vec::new(),
            command: [program]
                .into_iter()
                .chain(words)
                .collect::<Vec<_>>()
                .join(" "),
            began_ns: now_ns,
            machine: Machine::here(),
            cases: Vec::new(),
            series: Vec::new(),
        }
    }

    /// States how something was run.
    pub(crate) fn setting(&mut self, name: &'static str, value: impl ToString) {
        self.settings.push((name, value.to_string()));
    }

    /// Warns the reader of the figures; once, if rounds differ only in their numbers.
    pub(crate) fn warn(&mut self, warning: impl Into<String>) {
        let warning = warning.into();
        let words = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        if !self.warnings.iter().any(|w| words(w) == words(&warning)) {
            self.warnings.push(warning);
        }
    }

    /// Whether messages went wrong, in one line.
    pub(crate) fn verdict_line(&self) -> String {
        table::verdict(self)
    }

    /// The case of that name, which is made if need be.
    pub(crate) fn case(&mut self, name: &str) -> &mut Case {
        let at = self.cases.iter().position(|case| case.name == name);
        let at = at.unwrap_or_else(|| {
            self.cases.push(Case {
                name: name.to_owned(),
                figures: Vec::new(),
                latency_ns: None,
                intervals: Vec::new(),
            });
            self.cases.len() - 1
        });
        &mut self.cases[at]
    }

    /// The figure of a case: the median of its rounds.
    pub(crate) fn median_of(&self, case: &str, figure: &str) -> Option<f64> {
        let case = self.cases.iter().find(|c| c.name == case)?;
        let figure = case.figures.iter().find(|f| f.name == figure)?;
        figure.median()
    }
}

impl Case {
    /// Adds the value of one more round.
    pub(crate) fn figure(
        &mut self,
        name: &'static str,
        unit: &'static str,
        value: impl Into<Option<f64>>,
    ) -> &mut Self {
        let value = value.into().filter(|value| value.is_finite());
        match self.figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.rounds.push(value),
            None => self.figures.push(Figure {
                name,
                unit,
                rounds: vec![value],
            }),
        }
        self
    }

    /// Adds the latencies of one more round.
    pub(crate) fn latencies(&mut self, latency_ns: &Histogram<u64>) -> &mut Self {
        match &mut self.latency_ns {
            Some(all) => *all += latency_ns,
            None => self.latency_ns = Some(latency_ns.clone()),
        }
        self
    }
}

impl Figure {
    /// The middle of the rounds that have it.
    pub(crate) fn median(&self) -> Option<f64> {
        median(&self.rounds.iter().copied().flatten().collect::<Vec<_>>())
    }

    /// The least and the greatest of the rounds that have it.
    pub(crate) fn spread(&self) -> Option<(f64, f64)> {
        let mut values = self.rounds.iter().copied().flatten();
        let first = values.next()?;
        Some(values.fold((first, first), |(least, most), value| {
            (least.min(value), most.max(value))
        }))
    }
}

impl Verdict {
    /// Adds what one more part of the run sent, and what went wrong with it.
    pub(crate) fn add(&mut self, messages: u64, refused: u64, faults: Faults) {
        self.messages += messages;
        self.refused += refused;
        self.faults += faults;
    }

    /// Adds logins that were due and those that were taken.
    pub(crate) fn add_logins(&mut self, due: u64, taken: u64) {
        self.logins += due;
        self.shut_out += due.saturating_sub(taken);
    }

    /// Whether nothing went wrong.
    pub(crate) fn is_sound(&self) -> bool {
        let mut faults = self.faults;
        if self.repeats_are_due {
            faults.repeated = 0;
        }
        faults.is_none() && self.shut_out == 0
    }

    /// What went wrong, in words; what did not is left out.
    pub(crate) fn faults_in_words(&self) -> String {
        let Faults {
            lost,
            reordered,
            repeated,
            strays,
            ended,
        } = self.faults;
        let repeated = if self.repeats_are_due { 0 } else { repeated };
        let all = [
            (lost, "lost"),
            (reordered, "out of order"),
            (repeated, "repeated"),
            (strays, "astray"),
            (ended, "connections ended"),
            (self.shut_out, "logins not taken"),
        ];
        let words: Vec<_> = all
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_gather_under_the_name_of_their_figure() {
        let mut report = Report::begin("test", 0);
        for value in [3.0, 1.0, 2.0] {
            report.case("a").figure("rate", "msg/s", value);
            report.case("a").figure("calls", "", f64::NAN);
        }
        assert_eq!(report.median_of("a", "rate"), Some(2.0));
        assert_eq!(report.cases[0].figures[0].spread(), Some((1.0, 3.0)));
        assert_eq!(report.median_of("a", "calls"), None);
        assert_eq!(report.median_of("b", "rate"), None);
    }

    #[test]
    fn repeats_count_only_where_they_are_not_due() {
        let mut verdict = Verdict::default();
        let faults = Faults {
            repeated: 2,
            ..Faults::default()
        };
        verdict.add(10, 0, faults);
        assert!(!verdict.is_sound());
        assert_eq!(verdict.faults_in_words(), "2 repeated");
        verdict.repeats_are_due = true;
        assert!(verdict.is_sound());
    }
}
