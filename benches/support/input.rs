//! What the benches run over: lists of ranges, and the addresses that are asked for. The same every time.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use portcullis::address::{Address, Ends, Number, Range};
use portcullis::record::{Offset, Position};
use portcullis::table::{Cause, Row};
use portcullis::view::View;

/// What the benches need of a family beyond its numbers.
pub(super) trait Family: Number + rangemap::StepLite + std::hash::Hash {
    const NAME: &'static str;

    fn random(rng: &mut fastrand::Rng) -> Self;
    fn nth(self, more: u32) -> Self;
    fn address(self) -> Address {
        self.ip().into()
    }
    /// The ends of a range, if it is of this family.
    fn ends(range: Range) -> Option<(Self, Self)>;
}

impl Family for u32 {
    const NAME: &'static str = "IPv4";

    fn random(rng: &mut fastrand::Rng) -> Self {
        rng.u32(..)
    }

    fn nth(self, more: u32) -> Self {
        self.saturating_add(more)
    }

    fn ends(range: Range) -> Option<(Self, Self)> {
        match range.ends() {
            Ends::V4(start, end) => Some((start, end)),
            Ends::V6(..) => None,
        }
    }
}

impl Family for u128 {
    const NAME: &'static str = "IPv6";

    /// As in real lists, the ranges share a few thousand /32s.
    fn random(rng: &mut fastrand::Rng) -> Self {
        (0x2001_0000 + Self::from(rng.u32(..4096))) << 96 | Self::from(rng.u64(..)) << 32
    }

    fn nth(self, more: u32) -> Self {
        self.saturating_add(more.into())
    }

    fn ends(range: Range) -> Option<(Self, Self)> {
        match range.ends() {
            Ends::V4(..) => None,
            Ends::V6(start, end) => Some((start, end)),
        }
    }
}

/// Disjoint ranges of mixed width (single addresses, 256 of them, odd widths), rising and apart.
pub(super) fn mixed<N: Family>(count: usize, random: impl Fn(&mut fastrand::Rng) -> N) -> Vec<(N, N)> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut starts: Vec<N> = std::iter::repeat_with(|| random(&mut rng)).take(count).collect();
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().skip(1).map(|next| next.previous()).chain([None]);
    let widths = [1, 256, 3, 1, 100].into_iter().cycle();
    let range = |((start, limit), width): ((&N, Option<N>), u32)| {
        let end = start.nth(width - 1);
        // The gap before the next range keeps neighbours from being joined.
        (*start, limit.and_then(N::previous).map_or(end, |limit| end.min(limit)).max(*start))
    };
    starts.iter().zip(ends).zip(widths).map(range).collect()
}

/// All addresses of a /8 that are odd: as many ranges as can be in it.
pub(super) fn odd_addresses() -> Vec<(u32, u32)> {
    (0..1 << 23).map(|at| (10 << 24 | at << 1 | 1, 10 << 24 | at << 1 | 1)).collect()
}

/// One range in each /16.
pub(super) fn one_in_each_16() -> Vec<(u32, u32)> {
    (0..1 << 16).map(|high: u32| (high << 16 | 0x1234, high << 16 | 0x1334)).collect()
}

/// The view of these ranges, a row each.
pub(super) fn view<N: Number>(ranges: &[(N, N)]) -> View {
    let cause = |at: u64| Cause { command: Offset::new(at), expires_at: None };
    let rows =
        ranges.iter().zip(0..).map(|((start, end), at)| Row { range: start.range(*end), cause: cause(at) });
    View::from_rows(rows, Position::new(ranges.len() as u64), None, BTreeSet::new())
}

/// Addresses to ask for: half of them begin a range, the other half are random, in no order.
pub(super) fn asked<N: Family>(
    ranges: &[(N, N)],
    count: usize,
    random: impl Fn(&mut fastrand::Rng) -> N,
) -> Vec<N> {
    let mut rng = fastrand::Rng::with_seed(11);
    let member = |rng: &mut fastrand::Rng| ranges.get(rng.usize(..ranges.len().max(1))).map(|range| range.0);
    let one = |at: usize| match at % 2 {
        0 => member(&mut rng).unwrap_or(N::FIRST),
        _ => random(&mut rng),
    };
    (0..count).map(one).collect()
}

/// The ranges of one family in a published list, merged: the first or, of a table with commas, the first two
/// columns of each line.
pub(super) fn list<N: Family>(path: &Path) -> Vec<(N, N)> {
    let text = std::fs::read_to_string(path).expect("a list that can be read");
    let range = |line: &str| {
        let mut columns = line.split([',', '\t', ' ']);
        let (first, second) = (columns.next()?, columns.next().unwrap_or_default());
        format!("{first}-{second}").parse::<Range>().or_else(|_| first.parse()).ok()
    };
    let ranges: HashSet<Range> = text.lines().filter_map(range).collect();
    Range::merged(ranges.into_iter().collect()).into_iter().filter_map(N::ends).collect()
}
