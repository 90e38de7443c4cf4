//! One partition of a [`MemoryLog`](super::MemoryLog): slots by offset, and which of them a reader sees.
//!
//! ```text
//! offset     0      1      2      3      4      5
//! slot       plain  T1     plain  mark   T2     plain
//!                   ▲             of T1  ▲             ▲
//!                   visible once         stable        high
//!                   T1 is committed      while T2 is open
//! ```
//!
//! Whether a transactional slot is visible is looked up with every read, in the endings that the log keeps
//! for both topics: a commit then makes all of its records visible in the same moment.

use std::collections::{BTreeMap, HashMap};

use crate::log::{Ends, LogError, READ_RECORDS_MAX};
use crate::record::{Offset, Position, Record};

/// Which transactions ended, and how; one that is not among them is open.
pub(super) type Endings = HashMap<TransactionId, Ending>;

/// One transaction; names it for as long as the log lives.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TransactionId(u64);

impl TransactionId {
    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// Its records become visible.
    Commit,
    /// They never do.
    Abort,
}

/// What one offset of a partition holds.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// A record that is visible as soon as it is written.
    Plain(Record),
    /// A record that is visible once its transaction is committed.
    Transactional(TransactionId, Record),
    /// The mark that ends a transaction; no reader sees it.
    Control,
}

/// Slots by offset. A missing offset below `high` is one that compaction or retention took.
#[derive(Clone, Debug, Default)]
pub(super) struct Partition {
    slots: BTreeMap<Offset, Slot>,
    /// The first offset of each open transaction.
    open: BTreeMap<TransactionId, Offset>,
    start: Position,
    high: Position,
}

/// Whether a compaction keeps tombstones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tombstones {
    /// They are younger than the topic's `delete.retention.ms`.
    Kept,
    /// They are older.
    Dropped,
}

/// What a reader gets at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// Committed records, in order, at most [`READ_RECORDS_MAX`].
    pub records: Vec<Record>,
    /// Where the reader goes on: behind the last record, and behind marks and aborted records.
    pub position: Position,
    /// Whether there is nothing more to get.
    pub at_end: bool,
}

impl Partition {
    /// Appends the slot that `slot` makes for the next offset.
    pub(super) fn push(&mut self, slot: impl FnOnce(Offset) -> Slot) -> Offset {
        let offset = self.high.offset();
        let slot = slot(offset);
        if let Slot::Transactional(id, _) = slot {
            self.open.entry(id).or_insert(offset);
        }
        self.slots.insert(offset, slot);
        self.high = offset.next();
        offset
    }

    /// Writes the mark that ends a transaction.
    pub(super) fn end(&mut self, id: TransactionId) {
        self.open.remove(&id);
        self.push(|_| Slot::Control);
    }

    /// The last stable offset: the first one of the oldest open transaction, or the end.
    fn stable(&self) -> Position {
        self.open.values().min().map_or(self.high, |offset| offset.position().min(self.high))
    }

    /// What a reader of committed records sees of a slot.
    fn visible<'a>(slot: &'a Slot, endings: &Endings) -> Option<&'a Record> {
        match slot {
            Slot::Plain(record) => Some(record),
            Slot::Transactional(id, record) => (endings.get(id) == Some(&Ending::Commit)).then_some(record),
            Slot::Control => None,
        }
    }

    /// What is visible from a position up to the stable end, at most one delivery of it.
    pub(super) fn read(&self, from: Position, endings: &Endings) -> Result<Delivery, LogError> {
        if from < self.start || from > self.high {
            return Err(LogError(format!("offset {from} is out of range: {} to {}", self.start, self.high)));
        }
        let stable = self.stable();
        let mut records = Vec::new();
        // A reader may be opened behind the first record of an open transaction, and a range of slots must
        // not end before it starts.
        for (offset, slot) in self.slots.range(from.offset()..stable.offset().max(from.offset())) {
            if records.len() == READ_RECORDS_MAX {
                return Ok(Delivery { records, position: offset.position(), at_end: false });
            }
            records.extend(Self::visible(slot, endings).cloned());
        }
        Ok(Delivery { records, position: stable.max(from), at_end: true })
    }

    /// Keeps the newest record of each key, as a cleaner does: it never takes what a transaction still holds
    /// open, nor the very last slot, so that the end never moves back.
    pub(super) fn compact(&mut self, endings: &Endings, tombstones: Tombstones) {
        let stable = self.stable().offset();
        let mut newest: HashMap<Vec<u8>, Offset> = HashMap::new();
        for (offset, slot) in self.slots.range(..stable) {
            if let Some(record) = Self::visible(slot, endings) {
                newest.insert(record.key.clone().unwrap_or_default(), *offset);
            }
        }
        let last = self.slots.keys().next_back().copied();
        self.slots.retain(|offset, slot| {
            let newest = Self::visible(slot, endings).is_some_and(|record| {
                let key = record.key.as_deref().unwrap_or_default();
                newest.get(key) == Some(offset) && (tombstones == Tombstones::Kept || record.value.is_some())
            });
            *offset >= stable || newest || Some(*offset) == last
        });
    }

    pub(super) fn ends(&self) -> Ends {
        Ends { start: self.start, high: self.high, stable: self.stable() }
    }

    pub(super) fn record_at(&self, offset: Offset, endings: &Endings) -> Option<&Record> {
        self.slots.get(&offset).and_then(|slot| Self::visible(slot, endings))
    }

    pub(super) fn open_transactions(&self) -> Vec<TransactionId> {
        self.open.keys().copied().collect()
    }

    /// Deletes what lies before a position, at most everything; the start never moves back.
    pub(super) fn delete_before(&mut self, position: Position) {
        self.start = position.min(self.high).max(self.start);
        self.slots = self.slots.split_off(&self.start.offset());
    }

    /// Deletes what lies at a position and behind it; what is appended next takes those offsets again.
    pub(super) fn truncate(&mut self, position: Position) {
        self.high = position.min(self.high);
        self.slots.split_off(&position.offset());
    }
}
