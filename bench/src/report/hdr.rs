//! Latencies in the formats of HdrHistogram, which its plotters and analysers read.
//!
//! - `.hgrm`: a table of percentiles, as `outputPercentileDistribution` of the Java original
//!   writes it, in milliseconds.
//! - `.hlog`: a log of intervals, format version 1.3: each line the begin (seconds since
//!   `StartTime`), the length, the maximum in milliseconds, and the histogram of nanoseconds,
//!   compressed and in base64. Cases are told apart by tag.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};
use serde::{Serialize, Serializer};

use super::Report;

/// Nanoseconds in the unit that is printed.
const NS_IN_MS: f64 = 1e6;
/// Lines for each halving of what is left to 100 %.
const TICKS_PER_HALF: u32 = 5;

/// Writes the percentiles of all cases together.
pub(super) fn write_hgrm(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let mut all = crate::engine::histogram();
    for case in &report.cases {
        if let Some(latency_ns) = &case.latency_ns {
            all += latency_ns;
        }
    }
    write_percentiles(out, &all)
}

fn write_percentiles(out: &mut impl Write, all: &Histogram<u64>) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut count = 0;
    for step in all.iter_quantiles(TICKS_PER_HALF) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / NS_IN_MS;
        let quantile = step.quantile_iterated_to();
        write!(out, "{value:12.3} {quantile:2.12} {count:10}")?;
        // The last line has no way to say how much of nothing is left.
        if quantile < 1.0 {
            write!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        all.mean() / NS_IN_MS,
        all.stdev() / NS_IN_MS
    )?;
    writeln!(
        out,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        all.max() as f64 / NS_IN_MS,
        all.len()
    )?;
    writeln!(
        out,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        all.buckets(),
        all.distinct_values() / (usize::from(all.buckets()) + 1) * 2
    )
}

/// Writes every interval of every case.
pub(super) fn write_hlog(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(
        out,
        "#[Logged with iris-bench {}]\n#[Histogram log format version 1.3]",
        env!("CARGO_PKG_VERSION")
    )?;
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .with_start_time(UNIX_EPOCH + Duration::from_nanos(report.began_ns))
        .with_max_value_divisor(NS_IN_MS)
        .begin_log_with(out, &mut serializer)?;
    for case in &report.cases {
        let tag = tag_of(&case.name);
        for interval in &case.intervals {
            let from = Duration::from_nanos(interval.from_ns.saturating_sub(report.began_ns));
            let length = Duration::from_nanos(interval.to_ns - interval.from_ns);
            log.write_histogram(&interval.latency_ns, from, length, Tag::new(&tag))
                .map_err(|error| match error {
                    IntervalLogWriterError::IoError(error) => error,
                    error => io::Error::other(error.to_string()),
                })?;
        }
    }
    Ok(())
}

/// A tag holds no commas, blanks and line ends.
fn tag_of(name: &str) -> String {
    let tag = name.replace(|c: char| c == ',' || c.is_whitespace(), "-");
    tag.replace("--", "-")
}

/// A histogram as percentiles, for programs.
#[derive(Serialize)]
struct Percentiles {
    count: u64,
    mean: f64,
    max: u64,
    /// Quantile and value.
    quantiles: Vec<(f64, u64)>,
}

/// Serializes a histogram of nanoseconds as its percentiles.
pub(super) fn serialize<S: Serializer>(
    latency_ns: &Option<Histogram<u64>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let percentiles = latency_ns.as_ref().map(|all| Percentiles {
        count: all.len(),
        mean: all.mean(),
        max: all.max(),
        quantiles: all
            .iter_quantiles(TICKS_PER_HALF)
            .map(|step| (step.quantile_iterated_to(), step.value_iterated_to()))
            .collect(),
    });
    percentiles.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::engine::{Interval, histogram};

    fn report() -> Report {
        let mut latency_ns = histogram();
        for ms in 1..=1000 {
            latency_ns.record(ms * 1_000_000).expect("in bounds");
        }
        let mut report = Report::begin("test", 5_000_000_000);
        let case = report.case("open loop, fast");
        case.latencies(&latency_ns);
        case.intervals.push(Interval {
            from_ns: 6_500_000_000,
            to_ns: 6_600_000_000,
            delivered: 1000,
            latency_ns,
        });
        report
    }

    #[test]
    fn percentiles_have_the_columns_of_the_original() {
        let mut bytes = Vec::new();
        write_hgrm(&mut bytes, &report()).expect("memory");
        let text = String::from_utf8(bytes).expect("text");
        let mut lines = text.lines();
        assert_eq!(
            lines
                .next()
                .map(str::split_ascii_whitespace)
                .map(Iterator::collect),
            Some(vec![
                "Value",
                "Percentile",
                "TotalCount",
                "1/(1-Percentile)"
            ])
        );
        assert_eq!(lines.next(), Some(""));
        let rows: Vec<Vec<f64>> = lines
            .by_ref()
            .take_while(|line| !line.starts_with('#'))
            .map(|line| {
                let words = line.split_ascii_whitespace();
                words.map(|word| word.parse().expect(line)).collect()
            })
            .collect();
        let half = rows.iter().find(|row| row[1] == 0.5).expect("the median");
        assert!(
            (half[0] - 500.0).abs() < 1.0 && half[2] == 500.0,
            "{half:?}"
        );
        assert_eq!(half[3], 2.0);
        let last = rows.last().expect("rows");
        assert_eq!((last.len(), last[1], last[2]), (3, 1.0, 1000.0));
        assert!(text.contains("Total count    =         1000]"), "{text}");
        assert!(text.contains("SubBuckets     =         2048]"), "{text}");
    }

    #[test]
    fn the_log_reads_back_as_it_was_written() {
        let mut bytes = Vec::new();
        write_hlog(&mut bytes, &report()).expect("memory");
        let (mut intervals, mut start) = (0, None);
        for entry in IntervalLogIterator::new(&bytes) {
            match entry.expect("sound") {
                LogEntry::StartTime(at) => start = Some(at),
                LogEntry::BaseTime(_) => {}
                LogEntry::Interval(interval) => {
                    intervals += 1;
                    let tag = interval.tag().expect("a tag");
                    assert_eq!(tag.as_str(), "open-loop-fast");
                    assert_eq!(interval.start_timestamp(), Duration::from_millis(1500));
                    let encoded = BASE64_STANDARD
                        .decode(interval.encoded_histogram())
                        .expect("base64");
                    let read: Histogram<u64> = Deserializer::new()
                        .deserialize(&mut encoded.as_slice())
                        .expect("a histogram");
                    assert_eq!(read.len(), 1000);
                    let half = read.value_at_quantile(0.5);
                    assert!((499_000_000..=501_000_000).contains(&half));
                }
            }
        }
        assert_eq!((intervals, start), (1, Some(Duration::from_secs(5))));
    }
}
