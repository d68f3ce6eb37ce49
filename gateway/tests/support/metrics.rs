//! A scrape of `/metrics`, summed over the cores.

use std::collections::BTreeMap;

/// What the gateway counted.
#[derive(Debug)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads a page in Prometheus' text format.
    pub fn parse(page: &str) -> Metrics {
        let mut sums = BTreeMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect("series and value");
            let value: f64 = value.parse().expect("a number");
            let series = match series.split_once('{') {
                None => series.to_owned(),
                Some((name, labels)) => {
                    let others: Vec<&str> = labels
                        .trim_end_matches('}')
                        .split(',')
                        .filter(|label| !label.starts_with("core="))
                        .collect();
                    if others.is_empty() {
                        name.to_owned()
                    } else {
                        format!("{name}{{{}}}", others.join(","))
                    }
                }
            };
            *sums.entry(series).or_default() += value;
        }
        Metrics(sums)
    }

    /// The sum of a series over all cores, `core` left out of its labels.
    pub fn sum(&self, series: &str) -> u64 {
        let value = self.0.get(series);
        *value.unwrap_or_else(|| panic!("no {series}")) as u64
    }

    /// How many connections ended for this reason.
    pub fn closed(&self, reason: &str) -> u64 {
        self.sum(&format!("iris_closed_total{{reason=\"{reason}\"}}"))
    }

    /// How many sends were refused for this reason.
    pub fn refused(&self, reason: &str) -> u64 {
        self.sum(&format!(
            "iris_messages_refused_total{{reason=\"{reason}\"}}"
        ))
    }

    /// Connections that ended, for whatever reason.
    pub fn closed_in_all(&self) -> u64 {
        self.sum_of_all("iris_closed_total{")
    }

    /// Sends that were refused, for whatever reason.
    pub fn refused_in_all(&self) -> u64 {
        self.sum_of_all("iris_messages_refused_total{")
    }

    fn sum_of_all(&self, start: &str) -> u64 {
        let series = self.0.iter().filter(|(name, _)| name.starts_with(start));
        series.map(|(_, value)| *value as u64).sum()
    }

    /// What there is to see, without the histograms.
    pub fn not_zero(&self) -> Vec<String> {
        self.0
            .iter()
            .filter(|(series, value)| **value != 0.0 && !series.contains("_bucket"))
            .map(|(series, value)| format!("{series} {value}"))
            .collect()
    }
}
