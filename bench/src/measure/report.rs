//! Figures for people: fixed columns, units in the heading.

use std::fmt::Write as _;

/// The middle of some figures; of an even number the mean of the two. `None` of none.
pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

/// Nanoseconds as microseconds.
pub(crate) fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

/// A line of cells: the first to the left, the others to the right.
pub(crate) fn row<const N: usize>(first: &str, cells: [String; N]) -> String {
    let mut line = format!("{first:<38}");
    for cell in cells {
        let _ = write!(line, " {cell:>13}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }
}
