//! A page in Prometheus' text format (version 0.0.4): families with HELP and TYPE, then samples.
//!
//! Pure: it only builds a string. Label values come from closed lists and numbers, never from
//! clients, so the page's size is bounded by the number of cores.

use std::fmt::{Display, Write};

use super::core::{Kind, SCALARS};
use super::latency::BUCKETS;
use super::{CoreMetrics, Latency};
use iris_protocol::{CloseReason, RefusalReason};

/// A page under construction.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// An empty page.
    pub fn new() -> Page {
        Page::default()
    }

    /// The page's text.
    pub fn into_text(self) -> String {
        self.text
    }

    /// A counter without labels; by convention `name` ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, "", value);
    }

    /// A gauge without labels; `name` ends in its unit.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, "", value);
    }

    /// Begins a family: its lines must follow at once.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }

    /// One line of a family; `labels` without the braces, or empty.
    pub fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.text, "{name} {value}"),
            labels => writeln!(self.text, "{name}{{{labels}}} {value}"),
        };
    }

    /// The lines of one histogram of a family begun with the kind `histogram`.
    pub fn histogram(&mut self, name: &str, labels: &str, latency: &Latency) {
        self.buckets(
            name,
            labels,
            latency.cumulative(),
            latency.count(),
            latency.sum_seconds(),
        );
    }

    /// The same from counts at the ends of [`BUCKETS`].
    pub(super) fn buckets(
        &mut self,
        name: &str,
        labels: &str,
        counts: [u64; BUCKETS.len()],
        count: u64,
        sum: f64,
    ) {
        let comma = if labels.is_empty() { "" } else { "," };
        let bucket = format!("{name}_bucket");
        for ((_, end), count) in BUCKETS.iter().zip(counts) {
            self.sample(&bucket, &format!("{labels}{comma}le=\"{end}\""), count);
        }
        self.sample(&bucket, &format!("{labels}{comma}le=\"+Inf\""), count);
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, count);
    }

    /// Every family of every core.
    pub fn cores(&mut self, cores: &[CoreMetrics]) {
        let mut family = "";
        for scalar in SCALARS {
            if scalar.name == family {
                continue;
            }
            family = scalar.name;
            let kind = if scalar.kind == Kind::Counter {
                "counter"
            } else {
                "gauge"
            };
            self.family(family, kind, scalar.help);
            for member in SCALARS.iter().filter(|member| member.name == family) {
                let comma = if member.label.is_empty() { "" } else { "," };
                for (core, metrics) in cores.iter().enumerate() {
                    let labels = format!("core=\"{core}\"{comma}{}", member.label);
                    self.sample(family, &labels, (member.value)(metrics));
                }
            }
        }
        self.reasons("iris_closed_total", "Ended connections", cores, |metrics| {
            CloseReason::ALL
                .iter()
                .map(|reason| reason.label())
                .zip(metrics.closed)
                .collect()
        });
        self.reasons(
            "iris_messages_refused_total",
            "Refused sends",
            cores,
            |metrics| {
                RefusalReason::ALL
                    .iter()
                    .map(|reason| reason.label())
                    .zip(metrics.refused)
                    .collect()
            },
        );
        self.latencies(
            "iris_turn_seconds",
            "Time a turn of the core took",
            cores,
            |metrics| &metrics.turn_time,
        );
    }

    fn reasons(
        &mut self,
        name: &str,
        help: &str,
        cores: &[CoreMetrics],
        of: fn(&CoreMetrics) -> Vec<(&'static str, u64)>,
    ) {
        self.family(name, "counter", help);
        for (core, metrics) in cores.iter().enumerate() {
            // Zeroes too: a series that appears with its first event cannot be alerted on.
            for (reason, count) in of(metrics) {
                self.sample(name, &format!("core=\"{core}\",reason=\"{reason}\""), count);
            }
        }
    }

    fn latencies(
        &mut self,
        name: &str,
        help: &str,
        cores: &[CoreMetrics],
        of: fn(&CoreMetrics) -> &Latency,
    ) {
        self.family(name, "histogram", help);
        for (core, metrics) in cores.iter().enumerate() {
            self.histogram(name, &format!("core=\"{core}\""), of(metrics));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Duration;

    fn page() -> String {
        let mut first = CoreMetrics {
            connections: 3,
            received_framed: 5,
            ..CoreMetrics::default()
        };
        first.closed[CloseReason::IdleTimeout.index()] = 2;
        first.refused[RefusalReason::InboxFull.index()] = 4;
        first.turn_time.record(Duration::from_millis(2));
        let mut page = Page::new();
        page.cores(&[first, CoreMetrics::default()]);
        page.into_text()
    }

    #[test]
    fn values_stand_under_their_names_and_labels() {
        let page = page();
        for line in [
            "iris_connections{core=\"0\"} 3",
            "iris_connections{core=\"1\"} 0",
            "iris_messages_received_total{core=\"0\",protocol=\"framed\"} 5",
            "iris_closed_total{core=\"0\",reason=\"idle-timeout\"} 2",
            "iris_closed_total{core=\"1\",reason=\"idle-timeout\"} 0",
            "iris_messages_refused_total{core=\"0\",reason=\"inbox-full\"} 4",
            "iris_turn_seconds_bucket{core=\"0\",le=\"0.001\"} 0",
            "iris_turn_seconds_bucket{core=\"0\",le=\"0.0025\"} 1",
            "iris_turn_seconds_bucket{core=\"0\",le=\"+Inf\"} 1",
            "iris_turn_seconds_sum{core=\"0\"} 0.002",
            "iris_turn_seconds_count{core=\"1\"} 0",
        ] {
            assert!(
                page.lines().any(|have| have == line),
                "{line} is not in\n{page}"
            );
        }
    }

    /// The rules of the text format that a scraper rejects a page for.
    #[test]
    fn the_page_is_well_formed() {
        let page = page();
        let mut families = HashSet::new();
        let mut samples = HashSet::new();
        let mut family = "";
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap_or_default();
                assert!(families.insert(family), "{family} twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert_eq!(rest.split(' ').next(), Some(family));
            } else {
                let (series, value) = line.rsplit_once(' ').expect("series and value");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(samples.insert(series), "{series} twice");
                let name = series.split('{').next().unwrap_or_default();
                assert!(
                    name.starts_with(family),
                    "{line} is not of the family {family}"
                );
            }
        }
        assert!(page.ends_with('\n') && families.len() > 20);
    }
}
