//! Binary search by position, for queues that lie in rings.

use std::ops::Range;

/// The first position of `range` that `is_before` does not hold for, or its end; it holds for
/// none behind the first that it does not hold for.
#[inline]
pub(super) fn partition_point(range: Range<usize>, is_before: impl Fn(usize) -> bool) -> usize {
    let Range {
        start: mut low,
        end: mut high,
    } = range;
    while low < high {
        let middle = low.midpoint(high);
        if is_before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
