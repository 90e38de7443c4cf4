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

use std::ops::Range;

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

/// What an edit does to the toggles of some addresses that lie side by side.
pub(super) struct Splice<N> {
    /// The verdict at the first of these addresses, afterwards.
    pub(super) first: Verdict,
    /// Which toggles go: by their numbers, from 0.
    pub(super) gone: Range<usize>,
    /// What is put in their place, rising.
    pub(super) put: [Option<N>; 2],
}

/// Sets what lies in both reaches: takes out the toggles from its start to right behind its end, and puts one
/// back at either border where the verdict still changes. Those two are all that can be needed. `up_to` tells
/// how many toggles lie at or below an address.
pub(super) fn splice<N: Number>(
    first: Verdict,
    reach: (N, N),
    edit: (N, N),
    verdict: Verdict,
    up_to: impl Fn(N) -> usize,
) -> Splice<N> {
    let (start, end) = (edit.0.max(reach.0), edit.1.min(reach.1));
    // The border to what lies below holds no toggle: its last and our first verdict say it all.
    let before = start.previous().filter(|_| start != reach.0);
    let below = before.map_or(0, &up_to);
    // A toggle right behind the end is taken along: whether it stays depends on the new verdict.
    let behind = end.next().filter(|behind| *behind <= reach.1);
    let taken = up_to(behind.unwrap_or(end));
    // Put where the verdicts right below and right above what is set are others than the new one.
    let opening = (before.is_some() && first.after(below) != verdict).then_some(start);
    let closing = behind.filter(|_| first.after(taken) != verdict);
    let first = if before.is_some() { first } else { verdict };
    Splice { first, gone: below..taken, put: [opening, closing] }
}
