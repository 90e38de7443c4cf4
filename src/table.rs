//! The table: rows `start → end` with their cause, and the watermark that says what they add up to.
//!
//! The formats here are those of the compacted table topic:
//!
//! ```text
//! key             value
//! 203.0.113.0     {"end":"203.0.113.6","command":812}
//! 203.0.113.8     {"end":"203.0.113.255","command":812,"expires_at":"2026-12-01T00:00:00.000Z"}
//! 203.0.113.7     none: a tombstone, the row with this start is gone
//! @watermark      {"v":1,"fold":1,"position":814,"rows":2,"fingerprint":"…",…}
//! ```
//!
//! A projector writes transactions of row changes, the watermark last. A reader folds all records with
//! [`Table::apply`], last write wins, and asks [`Table::check`] at the end of the partition. A table is
//! trusted only when it ends with a watermark, and the row count and the fingerprint agree with that one,
//! because between two watermarks its rows add up to nothing. Offsets prove none of this: transaction marks
//! and compaction leave gaps among them, at the end as well.
//!
//! The watermark also says of which log the table is a fold: the [`Anchor`] is the last record before the
//! position. Nothing in this module compares it with a log; [`check`](crate::check) does.

mod watermark;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

pub use self::watermark::{Watermark, WatermarkError};
use crate::address::{Ends, Range};
use crate::record::{Offset, Record, Timestamp};

/// The number of the fold's rules; any change to what a command does to a view raises it. A watermark
/// carries it, so that no release builds on rows that were folded by other rules.
pub const FOLD: u64 = 1;
/// The key of the watermark; no row can have it, because no address begins with `@`.
pub const WATERMARK_KEY: &[u8] = b"@watermark";
/// The key of the sign of life that an active projector without anything to commit gives. [`Table::apply`]
/// passes over it: a table may end with it and still be whole.
pub const ALIVE_KEY: &[u8] = b"@alive";

/// Why an address is blacklisted, and until when.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Cause {
    /// The offset of the command that blacklisted it.
    pub command: Offset,
    /// When the ban ends; none is for ever.
    pub expires_at: Option<Timestamp>,
}

impl Cause {
    /// When the ban ends, with [`Timestamp::MAX`] for "never", so that bans compare by their length.
    pub fn until(self) -> Timestamp {
        self.expires_at.unwrap_or(Timestamp::MAX)
    }
}

/// A blacklisted range with its cause.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Row {
    /// The addresses.
    pub range: Range,
    /// Why, and until when.
    pub cause: Cause,
}

/// The value of a row's record. Its start is the key.
#[derive(Serialize, Deserialize)]
struct RowValue {
    end: IpAddr,
    command: Offset,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

impl Row {
    /// Decodes a row of the table topic; none for a key that is not canonical or a value that is no row.
    ///
    /// Only the canonical text of a start is its key (RFC 5952 for IPv6). With two spellings of one start,
    /// compaction would keep both rows, and which one counts would depend on the order of reading.
    pub fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let key = str::from_utf8(key).ok()?;
        let start: IpAddr = key.parse().ok()?;
        let RowValue { end, command, expires_at } = serde_json::from_slice(value).ok()?;
        if start.to_string() != key {
            return None;
        }
        let range = Range::new(start, end).ok()?;
        Some(Self { range, cause: Cause { command, expires_at } })
    }

    /// The row's part of the fingerprint, over a fixed byte form that no text form can change.
    fn hash(&self) -> u128 {
        let (family, start, end) = match self.range.ends() {
            Ends::V4(start, end) => (4, start.into(), end.into()),
            Ends::V6(start, end) => (6, start, end),
        };
        // Family, start, end, command and expiry: fixed widths, so that no two rows have the same bytes.
        let mut bytes = [0_u8; 1 + 16 + 16 + 8 + 8];
        let fields: [&[u8]; 5] = [
            &[family],
            &u128::to_be_bytes(start),
            &u128::to_be_bytes(end),
            &self.cause.command.number().to_be_bytes(),
            &self.cause.until().millis().to_be_bytes(),
        ];
        let mut rest = bytes.as_mut_slice();
        for field in fields {
            let (slot, tail) = rest.split_at_mut(field.len());
            slot.copy_from_slice(field);
            rest = tail;
        }
        xxh3_128(&bytes)
    }
}

/// One change of the table: what a projector writes, and what folded in order makes the same rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RowChange {
    /// The row is there now, in place of the one with the same start if there was one.
    Put(Row),
    /// The row with this start is gone.
    Tombstone(IpAddr),
}

impl RowChange {
    /// Key and value of the record that writes this change; no value is a tombstone.
    pub fn encode(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        match self {
            Self::Put(Row { range, cause }) => {
                let value =
                    RowValue { end: range.end(), command: cause.command, expires_at: cause.expires_at };
                let value = serde_json::to_vec(&value).expect("a row holds nothing that JSON cannot");
                (range.start().to_string().into_bytes(), Some(value))
            }
            Self::Tombstone(start) => (start.to_string().into_bytes(), None),
        }
    }
}

/// A sum over rows that does not depend on their order. Taking one row in or out costs the same however many
/// there are, so that a view always knows its own.
///
/// It is the wrapping sum of a 128-bit hash of each row. It notices rows that were lost, doubled or garbled
/// by accident; whoever may write the table can forge it.
///
/// ```
/// use portcullis::record::Offset;
/// use portcullis::table::{Cause, Fingerprint, Row};
///
/// let cause = Cause { command: Offset::new(812), expires_at: None };
/// let one = Row { range: "203.0.113.0-203.0.113.6".parse()?, cause };
/// let other = Row { range: "2001:db8::/32".parse()?, cause };
///
/// let mut sum: Fingerprint = [&one, &other].into_iter().collect();
/// assert_eq!(sum, [&other, &one].into_iter().collect());
/// sum.subtract(&one);
/// sum.subtract(&other);
/// assert_eq!(sum.to_string(), "00000000000000000000000000000000"); // no rows
/// # Ok::<(), portcullis::address::RangeError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// Takes a row in. A row that is taken in twice counts twice.
    pub fn add(&mut self, row: &Row) {
        self.0 = self.0.wrapping_add(row.hash());
    }

    /// Takes a row out, which must be in exactly as it is given: nothing here could notice that it is not.
    pub fn subtract(&mut self, row: &Row) {
        self.0 = self.0.wrapping_sub(row.hash());
    }
}

impl<'a> FromIterator<&'a Row> for Fingerprint {
    fn from_iter<I: IntoIterator<Item = &'a Row>>(rows: I) -> Self {
        rows.into_iter().fold(Self::default(), |mut sum, row| {
            sum.add(row);
            sum
        })
    }
}

/// Identifies the last record before a position: it notices a log that is no longer the same one.
///
/// A topic that was deleted and created again, or that lost its end and grew anew, holds other records at the
/// same offsets. A reader that stands at an offset there goes on without any error; only the record itself,
/// read again and compared, tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Anchor {
    /// The record's offset.
    pub offset: Offset,
    /// XXH3-128 over everything that a log keeps of the record.
    pub hash: RecordHash,
}

impl Anchor {
    /// The anchor that is this record, decodable or not.
    pub fn of(record: &Record) -> Self {
        Self { offset: record.offset, hash: RecordHash::of(record) }
    }
}

/// A hash of one record: XXH3-128 over offset, timestamp, and length and bytes of key and value. A length of
/// −1 stands for none, so that none and empty differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecordHash(u128);

impl RecordHash {
    fn of(record: &Record) -> Self {
        let mut hash = Xxh3::new();
        hash.update(&record.offset.number().to_be_bytes());
        hash.update(&record.timestamp.millis().to_be_bytes());
        for part in [&record.key, &record.value] {
            let bytes = part.as_deref();
            let length = bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX));
            hash.update(&length.to_be_bytes());
            hash.update(bytes.unwrap_or_default());
        }
        Self(hash.digest128())
    }
}

/// Gives a 128-bit type its one text form: 32 lower-case hex digits.
macro_rules! hex_text {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl FromStr for $type {
            type Err = HexError;

            fn from_str(text: &str) -> Result<Self, HexError> {
                let digits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                let bits = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
                bits.map(Self).ok_or(HexError)
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_text!(Fingerprint);
hex_text!(RecordHash);

/// A text that is not 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not 32 lower-case hex digits")]
pub struct HexError;

/// The fold of a table's records, last write wins.
///
/// Nothing of it may be served before [`Table::check`] agrees: most states between two watermarks are the
/// view at no position at all. A table that was never begun fails that check; it is not an empty blacklist.
///
/// ```
/// use portcullis::record::{Offset, Position, Record, Timestamp};
/// use portcullis::table::{Cause, Fingerprint, Row, RowChange, Table, TableError, WATERMARK_KEY, Watermark};
///
/// let cause = Cause { command: Offset::new(0), expires_at: None };
/// let row = Row { range: "203.0.113.0/24".parse()?, cause };
/// let watermark = Watermark {
///     position: Position::new(1),
///     anchor: None,
///     rows: 1,
///     fingerprint: Fingerprint::from_iter([&row]),
///     skipped: Default::default(),
///     cluster_id: "cluster".to_owned(),
///     commands_topic: "commands".to_owned(),
///     projector: "doc".to_owned(),
///     released: true,
///     written_at: Timestamp::from_millis(0),
/// };
/// let record = |offset, (key, value)| Record {
///     offset: Offset::new(offset),
///     timestamp: Timestamp::from_millis(0),
///     key: Some(key),
///     value,
/// };
///
/// let mut table = Table::default();
/// assert_eq!(table.check(), Err(TableError::NoWatermark));
/// table.apply(&record(0, RowChange::Put(row).encode()));
/// table.apply(&record(1, (WATERMARK_KEY.to_vec(), Some(watermark.encode()))));
/// assert_eq!(table.check(), Ok(&watermark));
///
/// table.apply(&record(2, RowChange::Tombstone(row.range.start()).encode()));
/// assert_eq!(table.check(), Err(TableError::Unfinished));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Table {
    rows: BTreeMap<IpAddr, Row>,
    /// The raw keys of what is left out of `rows`, so that a repair can tombstone them.
    undecodable_keys: BTreeSet<Vec<u8>>,
    /// The newest watermark, even one that cannot be built on: an older one must not be taken in its place.
    watermark: Option<Result<Watermark, WatermarkError>>,
    /// Whether no row was changed since the newest watermark.
    ends_with_watermark: bool,
}

impl Table {
    /// Folds one record of the table topic; O(log n). Keys that begin with `@`, but for the watermark's, are
    /// passed over: later releases may give them a meaning.
    pub fn apply(&mut self, record: &Record) {
        let key = record.key.as_deref().unwrap_or_default();
        if key == WATERMARK_KEY {
            self.watermark = Some(Watermark::decode(record.value.as_deref()));
            self.ends_with_watermark = true;
        } else if !key.starts_with(b"@") {
            self.ends_with_watermark = false;
            self.apply_row(key, record.value.as_deref());
        }
    }

    fn apply_row(&mut self, key: &[u8], value: Option<&[u8]>) {
        if let Some(row) = value.and_then(|value| Row::decode(key, value)) {
            self.undecodable_keys.remove(key);
            self.rows.insert(row.range.start(), row);
            return;
        }
        // The newest write of a key wins, also one that is no row: the row before it must not live on.
        let canonical = |text: &&str| text.parse().is_ok_and(|start: IpAddr| start.to_string() == *text);
        if let Some(text) = str::from_utf8(key).ok().filter(canonical) {
            let start = text.parse().expect("a canonical key is an address");
            self.rows.remove(&start);
        }
        match value {
            Some(_) => self.undecodable_keys.insert(key.to_vec()),
            None => self.undecodable_keys.remove(key),
        };
    }

    /// The newest watermark, whether or not the rows agree with it; none before the first.
    pub fn watermark(&self) -> Option<&Result<Watermark, WatermarkError>> {
        self.watermark.as_ref()
    }

    /// The rows, by start address, whether or not they agree with the watermark.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// The raw keys whose newest value is no row: left out here, tombstoned by a repair.
    pub fn undecodable_keys(&self) -> impl Iterator<Item = &[u8]> {
        self.undecodable_keys.iter().map(Vec::as_slice)
    }

    /// The watermark, if the table is whole at the end of its partition: the last record was the
    /// watermark, and the rows agree with it.
    ///
    /// Whether the end was reached is the caller's to know. Costs a hash of every row.
    ///
    /// # Errors
    /// What is missing, or does not agree.
    pub fn check(&self) -> Result<&Watermark, TableError> {
        let watermark = match &self.watermark {
            None => return Err(TableError::NoWatermark),
            Some(Err(error)) => return Err((*error).into()),
            Some(Ok(watermark)) => watermark,
        };
        if !self.ends_with_watermark {
            return Err(TableError::Unfinished);
        }
        let rows = u64::try_from(self.rows.len()).unwrap_or(u64::MAX);
        let fingerprint = self.rows.values().collect::<Fingerprint>();
        if (rows, fingerprint) != (watermark.rows, watermark.fingerprint) {
            return Err(TableError::Mismatch {
                rows,
                rows_expected: watermark.rows,
                undecodable: self.undecodable_keys.len(),
            });
        }
        Ok(watermark)
    }
}

/// Why a table is not the view at any position.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TableError {
    /// There is no watermark: the table was never begun.
    #[error("the table has no watermark: it was never begun (`portcullis topics create`)")]
    NoWatermark,
    /// The watermark can't be built on.
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    /// Rows follow the last watermark.
    #[error("the table ends in the middle of a change")]
    Unfinished,
    /// The rows contradict the watermark.
    #[error(
        "the table contradicts its watermark: {rows} rows of {rows_expected}, or others; {undecodable} undecodable"
    )]
    Mismatch {
        /// The rows that were read.
        rows: u64,
        /// The rows that the watermark speaks of.
        rows_expected: u64,
        /// The keys that were left out.
        undecodable: usize,
    },
}

#[cfg(test)]
mod tests;
