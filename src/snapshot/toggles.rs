//! Toggles: the addresses at which the verdict changes, rising. Both families keep these and not ranges.
//!
//! ```text
//! ranges     2–4 and 7–9 of a family 0–9
//!
//! address    0   1   2   3   4   5   6   7   8   9
//! verdict    .   .   #   #   #   .   .   #   #   #
//! toggles            2           5       7               a range up to the last address has no end
//! ```
//!
//! With the verdict at the first address they say all: the verdict at an address depends on whether the
//! number of toggles at or below it is odd. Neighbouring ranges are never kept apart, because there is no
//! toggle between them, and a lookup need not know which of two toggles begins a range and which one ends it.

use super::Verdict;
use crate::address::Number;

/// The verdict at the family's first address, and the toggles above it, of ranges that rise without overlap.
/// Those that touch become one.
pub(super) fn of_ranges<N: Number>(ranges: impl Iterator<Item = (N, N)>) -> (Verdict, Vec<N>) {
    let mut toggles: Vec<N> = Vec::with_capacity(ranges.size_hint().0 * 2);
    let mut first = Verdict::Free;
    for (start, end) in ranges {
        if start == N::FIRST {
            // Nothing is below it that it could differ from.
            first = Verdict::Blacklisted;
        } else if toggles.last() == Some(&start) {
            // The end of the range before is the start of this one.
            toggles.pop();
        } else {
            toggles.push(start);
        }
        toggles.extend(end.next());
    }
    (first, toggles)
}

/// The ranges that toggles tell of, merged and rising. One that begins at the family's first address has
/// that as its first toggle here; one that reaches the last has no second one.
pub(super) fn ranges<N: Number>(mut toggles: impl Iterator<Item = N>) -> impl Iterator<Item = (N, N)> {
    std::iter::from_fn(move || {
        let start = toggles.next()?;
        let end = toggles.next().and_then(N::previous).unwrap_or(N::LAST);
        Some((start, end))
    })
}
