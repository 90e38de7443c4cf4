//! The blacklist: disjoint rows that commands split, join and take over.
//!
//! Rows are kept by their starts, in one ordered map for each family. This file decides which row an address
//! belongs to, and says what changed, so that a table can follow.
//!
//! ```text
//! rows                    ├── a, until 50 ───┤      ├─ b, for ever ──┤
//! BLACKLIST, until 100            ├─────────────────── c ────────────────────┤
//! rows                    ├─ a ──┤├────── c ───────┤├─ b, for ever ──┤├─ c ──┤
//! WHITELIST                               ├─────────────────┤
//! rows                    ├─ a ──┤├─ c ──┤                   ├── b ──┤├─ c ──┤
//! ```
//!
//! A ban takes over what is free and what is blacklisted for a shorter time; what is blacklisted at least as
//! long keeps its first cause. So a repeated list changes nothing, and a short ban never shortens a longer
//! one. Two rows with different causes are never joined, though they touch: a row answers *why*.
//!
//! There is no time here. A row whose expiry is over is a row until somebody whitelists its range; who does,
//! and when, is the [`view`](crate::view)'s business.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::{Ends, Number, Range};
use crate::table::{Cause, Fingerprint, Row, RowChange};

/// The rows that one edit took away and the rows that are there instead.
///
/// A row that was cut appears in both: whole in `removed`, its remains in `put`. Folded in order, the changes
/// of all edits add up to the blacklist: that is what lets a table, a fingerprint and a copy of the rows
/// follow without looking at the whole.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// The rows as they were, in no particular order.
    removed: Vec<Row>,
    /// The rows as they are, highest start first.
    put: Vec<Row>,
}

impl Changes {
    /// Rows that are no more, at least not as they were.
    pub fn removed(&self) -> &[Row] {
        &self.removed
    }

    /// Rows that are new, or not as they were; highest start first.
    pub fn put(&self) -> &[Row] {
        &self.put
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.put.is_empty()
    }

    /// The changes in an order that is safe to write one by one: after each of them, every address that
    /// is blacklisted before and after the edit is covered, and no address that is free before and after.
    ///
    /// Rows are put from the highest start down, because the remains that a shrinking row leaves above
    /// itself must be there before it shrinks; what only disappears goes last. Freeing .7 of a /24 writes:
    ///
    /// ```text
    ///                              covered afterwards
    ///                              .0 – .255
    /// 1. put .8 → .255             .0 – .255          the old row still reaches over it
    /// 2. put .0 → .6               .0 – .6, .8 – .255 replaces the old row, which has the same start
    /// ```
    ///
    /// The other way round, .8 – .255 would be free in between.
    pub fn in_safe_order(&self) -> impl Iterator<Item = RowChange> {
        let put_again = |start: &IpAddr| {
            // `put` is sorted by falling start, hence the swapped comparison.
            self.put.binary_search_by(|row| start.cmp(&row.range.start())).is_ok()
        };
        let puts = self.put.iter().copied().map(RowChange::Put);
        let gone = self.removed.iter().map(|row| row.range.start()).filter(move |start| !put_again(start));
        puts.chain(gone.map(RowChange::Tombstone))
    }

    /// The changes with more rows gone, which no row of `put` comes from: those that were over and were
    /// dropped before the edit. A row of `put` may have the start of one of them.
    #[must_use]
    pub(crate) fn and_removed(mut self, rows: impl IntoIterator<Item = Row>) -> Self {
        self.removed.extend(rows);
        self
    }
}

/// The rows of one family: by start, the end and the cause. Disjoint. An edit finds the rows that overlap its
/// range in O(log n), and costs their number.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Family<N>(BTreeMap<N, (N, Cause)>);

impl<N: Number> Default for Family<N> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<N: Number> Family<N> {
    /// The rows that overlap `start..=end`, whole, by rising start.
    fn overlapping(&self, start: N, end: N) -> impl Iterator<Item = (N, N, Cause)> {
        let below = self.0.range(..start).next_back().filter(|(_, (last, _))| *last >= start);
        let within = self.0.range(start..=end);
        below.into_iter().chain(within).map(|(first, (last, cause))| (*first, *last, *cause))
    }

    /// Frees every address from `start` to `end`. The rows that begin there go in one pass, because to look for
    /// each of a million would cost several times as much.
    fn whitelist(&mut self, start: N, end: N) -> Changes {
        let below = self.overlapping(start, end).next().filter(|(first, ..)| *first < start);
        let below = below.and_then(|(first, ..)| self.0.remove_entry(&first));
        let within = self.0.extract_if(start..=end, |_, _| true);
        let (mut lowest, mut highest) = (None, None);
        let gone = |(first, (last, cause))| {
            lowest = lowest.or(Some((first, cause)));
            highest = Some((last, cause));
            row(first, last, cause)
        };
        let removed = below.into_iter().chain(within).map(gone).collect();
        // Of all rows, only the lowest and the highest can reach out of the range.
        let reaching = highest.zip(end.next()).map(|((last, cause), first)| (first, last, cause));
        let kept_below = lowest.zip(start.previous()).map(|((first, cause), last)| (first, last, cause));
        let mut put = Vec::new();
        for (first, last, cause) in
            reaching.into_iter().chain(kept_below).filter(|(first, last, _)| first <= last)
        {
            self.0.insert(first, (last, cause));
            put.push(row(first, last, cause));
        }
        Changes { removed, put }
    }

    /// Takes over what is free and what is in rows that end earlier.
    ///
    /// Walks the rows from low to high and claims the pieces between those that keep their cause. A piece
    /// reaches over rows that are taken over, so that it becomes one row however many those were.
    fn blacklist(&mut self, start: N, end: N, cause: Cause) -> Changes {
        let mut changes = Changes::default();
        let mut claimed: Vec<(N, N)> = Vec::new();
        let mut claim = |from: Option<N>, to: Option<N>| {
            claimed.extend(from.zip(to).filter(|(from, to)| from <= to));
        };
        // Where the piece begins that is being claimed; none once a kept row reaches the family's end.
        let mut from = Some(start);
        for (first, last, old) in self.overlapping(start, end) {
            if old.until() >= cause.until() {
                claim(from, first.previous());
                from = last.next();
            } else {
                changes.removed.push(row(first, last, old));
                changes.put.extend(remains(first, last, start, end).map(|(a, b)| row(a, b, old)));
            }
        }
        claim(from, Some(end));
        // Only now is the map written to: it cannot change while its rows are being walked.
        for (from, to) in claimed {
            if !changes.removed.is_empty() {
                self.whitelist(from, to);
            }
            self.0.insert(from, (to, cause));
            changes.put.push(row(from, to, cause));
        }
        changes.put.sort_unstable_by_key(|row| std::cmp::Reverse(row.range.start()));
        changes
    }

    fn all(&self) -> impl Iterator<Item = (N, N, Cause)> {
        self.0.iter().map(|(first, (last, cause))| (*first, *last, *cause))
    }

    fn rows(&self, start: N, end: N) -> impl Iterator<Item = Row> {
        self.overlapping(start, end).map(|(first, last, cause)| row(first, last, cause))
    }
}

fn row<N: Number>(first: N, last: N, cause: Cause) -> Row {
    Row { range: first.range(last), cause }
}

/// What is left of `first..=last` when `start..=end` is cut out of it: at most one piece on each side.
fn remains<N: Number>(first: N, last: N, start: N, end: N) -> impl Iterator<Item = (N, N)> {
    let below = start.previous().filter(|below| first <= *below).map(|below| (first, below));
    let above = end.next().filter(|above| *above <= last).map(|above| (above, last));
    below.into_iter().chain(above)
}

/// The blacklisted ranges of both families, disjoint, each with the command that caused it.
///
/// ```
/// use portcullis::blacklist::Blacklist;
/// use portcullis::record::Offset;
/// use portcullis::table::{Cause, RowChange};
///
/// let mut blacklist = Blacklist::default();
/// let cause = Cause { command: Offset::new(812), expires_at: None };
/// blacklist.blacklist("203.0.113.0/24".parse()?, cause);
/// assert!(blacklist.blacklist("203.0.113.0/30".parse()?, cause).is_empty(), "it is in a row already");
///
/// let changes = blacklist.whitelist("203.0.113.7".parse()?);
/// let written: Vec<String> = changes
///     .in_safe_order()
///     .map(|change| match change {
///         RowChange::Put(row) => row.range.to_string(),
///         RowChange::Tombstone(start) => format!("no {start}"),
///     })
///     .collect();
/// assert_eq!(written, ["203.0.113.8-203.0.113.255", "203.0.113.0-203.0.113.6"]);
/// # Ok::<(), portcullis::address::RangeError>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Blacklist {
    v4: Family<u32>,
    v6: Family<u128>,
    /// The IPv4 addresses in rows: kept as a count, because the fold asks for it with every wide BLACKLIST.
    ipv4_addresses: u64,
    fingerprint: Fingerprint,
}

/// How many rows there are of each family.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RowCounts {
    /// IPv4 rows.
    pub ipv4: u64,
    /// IPv6 rows.
    pub ipv6: u64,
}

impl RowCounts {
    /// The rows of both families.
    pub const fn total(self) -> u64 {
        self.ipv4 + self.ipv6
    }
}

impl Blacklist {
    /// Blacklists the free addresses of `range`, and those whose ban ends before `cause` does. What is
    /// blacklisted at least as long keeps its cause, so that a repeated list changes nothing.
    pub fn blacklist(&mut self, range: Range, cause: Cause) -> Changes {
        let changes = match range.ends() {
            Ends::V4(start, end) => self.v4.blacklist(start, end, cause),
            Ends::V6(start, end) => self.v6.blacklist(start, end, cause),
        };
        self.account(&changes);
        changes
    }

    /// Frees every address of `range`; the remains of a row that is cut keep its cause. A row's own range
    /// removes exactly that row, because rows are disjoint.
    pub fn whitelist(&mut self, range: Range) -> Changes {
        let changes = match range.ends() {
            Ends::V4(start, end) => self.v4.whitelist(start, end),
            Ends::V6(start, end) => self.v6.whitelist(start, end),
        };
        self.account(&changes);
        changes
    }

    /// Keeps count and fingerprint in step, at the cost of the change and not of the list.
    fn account(&mut self, changes: &Changes) {
        for row in &changes.removed {
            self.fingerprint.subtract(row);
            self.ipv4_addresses -= ipv4_addresses(row);
        }
        for row in &changes.put {
            self.fingerprint.add(row);
            self.ipv4_addresses += ipv4_addresses(row);
        }
    }

    /// The rows that overlap `range`, whole and not cut at its ends, by rising start. Finding the first one
    /// is O(log n).
    pub fn overlapping(&self, range: Range) -> impl Iterator<Item = Row> {
        let (v4, v6) = match range.ends() {
            Ends::V4(start, end) => (Some(self.v4.rows(start, end)), None),
            Ends::V6(start, end) => (None, Some(self.v6.rows(start, end))),
        };
        v4.into_iter().flatten().chain(v6.into_iter().flatten())
    }

    /// All rows, IPv4 first, by rising start.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.overlapping(Range::ALL_IPV4).chain(self.overlapping(Range::ALL_IPV6))
    }

    /// All rows of IPv4 by rising start: first and last address, and the cause.
    pub(crate) fn ipv4(&self) -> impl Iterator<Item = (u32, u32, Cause)> {
        self.v4.all()
    }

    /// All rows of IPv6, the same.
    pub(crate) fn ipv6(&self) -> impl Iterator<Item = (u128, u128, Cause)> {
        self.v6.all()
    }

    /// How many rows there are.
    pub fn row_counts(&self) -> RowCounts {
        RowCounts { ipv4: self.v4.0.len() as u64, ipv6: self.v6.0.len() as u64 }
    }

    /// How many IPv4 addresses are in rows, expired ones included; also those of rows elsewhere, where
    /// [`View::count_elsewhere`](crate::view::View::count_elsewhere) was told of them.
    pub const fn ipv4_addresses(&self) -> u64 {
        self.ipv4_addresses
    }

    /// Counts addresses that are in rows which this blacklist does not hold.
    pub(crate) fn count_elsewhere(&mut self, ipv4_addresses: u64) {
        self.ipv4_addresses += ipv4_addresses;
    }

    /// The fingerprint of all rows.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// How many IPv4 addresses a BLACKLIST of `range` would add; 0 for an IPv6 range. Costs the number of
    /// rows that overlap it.
    pub fn ipv4_addresses_free(&self, range: Range) -> u64 {
        let Ends::V4(start, end) = range.ends() else { return 0 };
        let overlap = |(first, last, _)| u64::from(end.min(last) - start.max(first)) + 1;
        let taken: u64 = self.v4.overlapping(start, end).map(overlap).sum();
        u64::from(end - start) + 1 - taken
    }
}

fn ipv4_addresses(row: &Row) -> u64 {
    match row.range.ends() {
        Ends::V4(start, end) => u64::from(end - start) + 1,
        Ends::V6(..) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Offset, Timestamp};

    fn range(text: &str) -> Range {
        text.parse().expect(text)
    }

    fn cause(command: u64, expires_at: Option<i64>) -> Cause {
        Cause { command: Offset::new(command), expires_at: expires_at.map(Timestamp::from_millis) }
    }

    fn shown(blacklist: &Blacklist) -> Vec<String> {
        blacklist.rows().map(|row| format!("{} by {}", row.range, row.cause.command)).collect()
    }

    fn written(changes: &Changes) -> Vec<String> {
        let show = |change| match change {
            RowChange::Put(row) => format!("{} by {}", row.range, row.cause.command),
            RowChange::Tombstone(start) => format!("no {start}"),
        };
        changes.in_safe_order().map(show).collect()
    }

    #[test]
    fn a_row_is_split_around_a_freed_address() {
        let mut blacklist = Blacklist::default();
        blacklist.blacklist(range("203.0.113.0/24"), cause(0, None));
        let changes = blacklist.whitelist(range("203.0.113.7"));
        assert_eq!(written(&changes), ["203.0.113.8-203.0.113.255 by 0", "203.0.113.0-203.0.113.6 by 0"]);
        assert_eq!(shown(&blacklist), ["203.0.113.0-203.0.113.6 by 0", "203.0.113.8-203.0.113.255 by 0"]);
        assert_eq!(blacklist.ipv4_addresses(), 255);
    }

    #[test]
    fn a_repeated_or_shorter_ban_changes_nothing() {
        let mut blacklist = Blacklist::default();
        blacklist.blacklist(range("203.0.113.0/24"), cause(0, Some(100)));
        for again in [cause(1, Some(100)), cause(2, Some(50))] {
            assert!(blacklist.blacklist(range("203.0.113.4/30"), again).is_empty());
        }
    }

    #[test]
    fn a_longer_ban_takes_over_and_joins_what_it_takes() {
        let mut blacklist = Blacklist::default();
        blacklist.blacklist(range("10.0.0.5"), cause(0, Some(50)));
        blacklist.blacklist(range("10.0.0.9"), cause(1, None));
        blacklist.blacklist(range("10.0.0.12-10.0.0.20"), cause(2, Some(50)));
        let changes = blacklist.blacklist(range("10.0.0.0-10.0.0.15"), cause(3, Some(100)));
        assert_eq!(
            written(&changes),
            [
                "10.0.0.16-10.0.0.20 by 2",
                "10.0.0.10-10.0.0.15 by 3",
                "10.0.0.0-10.0.0.8 by 3",
                "no 10.0.0.5",
                "no 10.0.0.12"
            ]
        );
    }

    #[test]
    fn rows_end_with_their_family() {
        let mut blacklist = Blacklist::default();
        for (first, last) in [
            (Range::ALL_IPV4, "255.255.255.255"),
            (Range::ALL_IPV6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            blacklist.blacklist(range(last), cause(0, None));
            blacklist.blacklist(first, cause(1, None));
            let changes = blacklist.whitelist(range(last));
            assert_eq!(written(&changes), [format!("no {last}")]);
        }
        assert_eq!(blacklist.row_counts(), RowCounts { ipv4: 1, ipv6: 1 });
        assert_eq!(blacklist.ipv4_addresses_free(Range::ALL_IPV4), 1);
    }
}
