//! The rows of the next table transaction, coalesced by key.
//!
//! Each command's changes are taken in while the transaction before is still under way. Of a row that changes
//! ten times only the last write is kept, so that a batch grows with the rows and not with the commands. A
//! batch without rows may still have to be written: the position moved.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use super::vouch::Place;
use super::{TRANSACTION_COMMANDS_MAX, TRANSACTION_ROWS_MAX};
use crate::blacklist::Changes;
use crate::log::TableWrite;
use crate::record::Position;
use crate::table::{Anchor, Row, RowChange, Table};
use crate::view::View;

/// What commands changed since the last transaction: of each key its last write.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// By start: the row that is put there, or none for a tombstone.
    rows: BTreeMap<IpAddr, Option<Row>>,
    /// Keys that no row can have, to be tombstoned.
    raw_keys: BTreeSet<Vec<u8>>,
    /// When the first command came; none while there is nothing to commit, not even a new position.
    since: Option<Instant>,
    /// Whether the owner was told when to come back for it.
    due_announced: bool,
}

impl Batch {
    /// Takes in what one command changed, whole: a batch may grow beyond its limit, but never ends inside a
    /// command.
    pub(super) fn add(&mut self, changes: &Changes, now: Instant) {
        self.touch(now);
        self.rows.extend(changes.in_safe_order().map(|change| match change {
            RowChange::Put(row) => (row.range.start(), Some(row)),
            RowChange::Tombstone(start) => (start, None),
        }));
    }

    /// Notes that the position moved, with rows or without.
    pub(super) fn touch(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// How many keys will be written, and how many taken away.
    pub(super) fn counts(&self) -> (usize, usize) {
        let put = self.rows.values().flatten().count();
        (put, self.rows.len() - put + self.raw_keys.len())
    }

    /// Whether there is nothing to commit.
    pub(super) const fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// Whether no further command may be added.
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= TRANSACTION_ROWS_MAX
    }

    /// Whether it is time to commit.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.is_full() || self.since.is_some_and(|since| now >= since + TRANSACTION_COMMANDS_MAX)
    }

    /// When it will be time to commit; said once for each batch. Ticks alone come too seldom for it.
    pub(super) fn announce_due(&mut self) -> Option<Instant> {
        let since = self.since.filter(|_| !std::mem::replace(&mut self.due_announced, true));
        since.map(|since| since + TRANSACTION_COMMANDS_MAX)
    }

    /// The records to write, and an empty batch in its place.
    ///
    /// Rows that are put come first, highest start first, then what is gone. That is safe for any change
    /// between two sets of disjoint rows, as it is for one command (see [`Changes::in_safe_order`]): a row
    /// that shrinks or moves up has its successor above it written before, and each row on the way is one
    /// of before or of after, so that nothing is blacklisted which neither of them blacklists.
    pub(super) fn take(&mut self) -> Vec<TableWrite> {
        let Self { rows, raw_keys, .. } = std::mem::take(self);
        let puts = rows.values().rev().flatten().map(|row| RowChange::Put(*row));
        let gone =
            rows.iter().filter(|(_, row)| row.is_none()).map(|(start, _)| RowChange::Tombstone(*start));
        let mut writes: Vec<TableWrite> = puts.chain(gone).map(|change| change.encode()).collect();
        writes.extend(raw_keys.into_iter().map(|key| (key, None)));
        writes
    }
}

/// A table that is to be written anew, until the commands are folded far enough for that: as far as its
/// watermark says, or, if nothing in it is believed, to the end of the log.
///
/// The repair is one transaction, whatever its size: a reader must never see half of it under a watermark.
#[derive(Debug)]
pub(super) struct Repair {
    table: Table,
    /// None until the end of the log is known.
    reach: Option<Position>,
    /// Position and anchor of the table, if it is to be of the log that is there.
    place: Option<Place>,
}

impl Repair {
    /// A repair of what the watermark says: the view must get as far as the table claims to be, because that
    /// is what readers were promised.
    pub(super) const fn to(table: Table, position: Position, anchor: Option<Anchor>) -> Self {
        Self { table, reach: Some(position), place: Some((position, anchor)) }
    }

    /// A repair up to the end of the log, which is asked for behind the fence: no earlier writer has got
    /// further in it.
    pub(super) const fn to_end(table: Table, place: Option<Place>) -> Self {
        Self { table, reach: None, place }
    }

    /// What the log must hold for the table to be of it; none if that does not matter.
    pub(super) const fn place(&self) -> Option<Place> {
        self.place
    }

    /// From now on the table may be of another log.
    pub(super) const fn forget_place(&mut self) {
        self.place = None;
    }

    /// Notes where the log ends; only the first time counts, for a log may grow for ever.
    pub(super) fn note_end(&mut self, end: Position) {
        self.reach.get_or_insert(end);
    }

    /// How far the view must get, as far as that is known.
    pub(super) const fn reach(&self) -> Option<Position> {
        self.reach
    }

    /// Whether the view has got far enough.
    pub(super) fn is_reached(&self, view: &View) -> bool {
        self.reach.is_some_and(|reach| view.position() >= reach)
    }

    /// What turns the table's rows into those of the view, keys that no row can have among it. Rows that
    /// agree are not written again.
    pub(super) fn difference(&self, view: &View, now: Instant) -> Batch {
        let old: BTreeMap<IpAddr, Row> = self.table.rows().map(|row| (row.range.start(), *row)).collect();
        // Every old row is gone until the view says otherwise.
        let mut rows: BTreeMap<IpAddr, Option<Row>> = old.keys().map(|start| (*start, None)).collect();
        for row in view.blacklist().rows() {
            let start = row.range.start();
            match old.get(&start) == Some(&row) {
                true => rows.remove(&start),
                false => rows.insert(start, Some(row)),
            };
        }
        let put_again = |key: &&[u8]| {
            let start = str::from_utf8(key).ok().and_then(|text| text.parse::<IpAddr>().ok());
            // Only the canonical key is the one that is put.
            start.is_some_and(|start| {
                matches!(rows.get(&start), Some(Some(_))) && start.to_string().as_bytes() == *key
            })
        };
        let raw_keys = self.table.undecodable_keys().filter(|key| !put_again(key)).map(<[u8]>::to_vec);
        let raw_keys = raw_keys.collect();
        Batch { rows, raw_keys, since: Some(now), due_announced: false }
    }
}
