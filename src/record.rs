//! One record of a log, and the places and times it is known by.
//!
//! Offsets and positions are types of their own because confusing the two is the classic mistake of
//! log readers: an [`Offset`] names a record, a [`Position`] names the *next* offset to read, so that
//! everything before it is in.
//!
//! ```text
//! offset        0     1     2     3
//! record     |  A  |  B  |  C  |  D  |
//! position   0     1     2     3     4
//! ```
//!
//! A view at position 3 has A, B and C in and reads D next. Offsets rise, but not always by one: a log like
//! Kafka's keeps offsets for the marks that end transactions, and compaction takes records away. So nothing
//! here may conclude from two offsets how many records lie between them.
//!
//! What the module does not do: it knows no log, and a [`Record`] is bytes. What key and value mean is the
//! business of [`command`](crate::command) and [`table`](crate::table).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// The place of one record in a log.
///
/// ```
/// use portcullis::record::{Offset, Position};
///
/// let offset = Offset::new(812);
/// assert_eq!(offset.position(), Position::new(812)); // it is the next one to read
/// assert_eq!(offset.next(), Position::new(813)); // it is in
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(u64);

impl Offset {
    /// The offset with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number of the offset, as a log counts it (from 0).
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The position that has exactly this record and all before it in: where a reader goes on after it.
    pub const fn next(self) -> Position {
        Position(self.0.saturating_add(1))
    }

    /// The position just before this record: it is the next one to read.
    pub const fn position(self) -> Position {
        Position(self.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The *next* offset to read: everything before it is in.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(u64);

impl Position {
    /// The beginning of every log.
    pub const START: Self = Self(0);

    /// The position before the offset with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number of the next offset to read.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The offset that is read next.
    pub const fn offset(self) -> Offset {
        Offset(self.0)
    }

    /// The position `records` earlier, or the beginning of the log.
    pub const fn back(self, records: u64) -> Self {
        Self(self.0.saturating_sub(records))
    }

    /// How many offsets lie between `earlier` and this position; 0 if `earlier` is not earlier.
    ///
    /// Some of them may hold no record, so this is a lag to show and not a count to rely on.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, as a log stamps its records.
///
/// Any `i64` is a valid timestamp, because foreign producers write what they like. Its text form is
/// strict, because it feeds the fold: exactly `YYYY-MM-DDTHH:MM:SS[.f{1,3}]Z`. Serde uses the text form in
/// both directions. Every time from the year 0000 to [`Timestamp::LATEST`] survives the way there and back.
///
/// ```
/// use portcullis::record::Timestamp;
///
/// let time: Timestamp = "2026-12-01T00:00:00Z".parse()?;
/// assert_eq!(time.millis(), 1_796_083_200_000);
/// assert_eq!(time.to_string(), "2026-12-01T00:00:00.000Z");
///
/// // Two readers must never disagree about a time, so that other spellings are none.
/// assert!("2026-12-01T00:00:00+00:00".parse::<Timestamp>().is_err());
/// assert!("2026-12-01 00:00:00Z".parse::<Timestamp>().is_err());
/// # Ok::<(), portcullis::record::TimestampError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Later than every time that can be written down: "never" as a number.
    pub const MAX: Self = Self(i64::MAX);
    /// The latest time that can be parsed, 9999-12-30T22:00:00Z: the last full second that `jiff` knows. It
    /// leaves room below the year 10000 for the widest time zone.
    pub const LATEST: Self = Self(253_402_207_200_000);

    /// The time this many milliseconds after (or before) 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// The time `duration` later, at most [`Timestamp::MAX`].
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time that passed since `earlier`; zero if `earlier` is not earlier: a wall clock that stepped
    /// back is no error here.
    pub fn since(self, earlier: Self) -> Duration {
        u64::try_from(self.0.saturating_sub(earlier.0)).map_or(Duration::ZERO, Duration::from_millis)
    }
}

/// Whole milliseconds, cut towards 1970; the ends of `i64` for what lies beyond them.
impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Self {
        let millis = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => Self(millis(since)),
            Err(before) => Self(-millis(before.duration())),
        }
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 with three digits of the second and `Z`; a plain number where no such text exists.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

/// A time that is not written exactly as `YYYY-MM-DDTHH:MM:SS[.f{1,3}]Z`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "a time is written exactly as 2026-12-01T00:00:00Z (UTC, up to 3 digits of a second, up to 9999-12-30T22:00:00Z)"
)]
pub struct TimestampError;

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        // jiff accepts more forms than the grammar (lower case, offsets, a comma, 60 seconds), so that
        // the shape is checked here and jiff only judges whether such a day and hour exist.
        let shape = text.as_bytes();
        let digits_and_marks = b"dddd-dd-ddTdd:dd:dd";
        let (head, tail) = shape.split_at_checked(digits_and_marks.len()).ok_or(TimestampError)?;
        let fits = |(byte, mark): (&u8, &u8)| match mark {
            b'd' => byte.is_ascii_digit(),
            _ => byte == mark,
        };
        let head_fits = head.iter().zip(digits_and_marks).all(fits);
        // jiff would take a leap second for the second before it: two spellings of one time.
        let seconds_fit = !head.ends_with(b"60");
        let tail_fits = match tail {
            [b'Z'] => true,
            [b'.', fraction @ .., b'Z'] => {
                (1..=3).contains(&fraction.len()) && fraction.iter().all(u8::is_ascii_digit)
            }
            _ => false,
        };
        if !(head_fits && seconds_fit && tail_fits) {
            return Err(TimestampError);
        }
        let civil: DateTime = text.trim_end_matches('Z').parse().map_err(|_| TimestampError)?;
        let zoned = civil.to_zoned(TimeZone::UTC).map_err(|_| TimestampError)?;
        let time = Self(zoned.timestamp().as_millisecond());
        if time > Self::LATEST { Err(TimestampError) } else { Ok(time) }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One record as a log holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Its place in the log.
    pub offset: Offset,
    /// The time the log stamped it with; for the commands this is the *log time* of the fold. It need not
    /// rise from record to record.
    pub timestamp: Timestamp,
    /// Its key; has no meaning in the commands log, and names the row in the table.
    pub key: Option<Vec<u8>>,
    /// Its value; none is a tombstone in the table, and no command in the commands log. An empty value is
    /// not the same as none.
    pub value: Option<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_one_way_only() {
        for text in [
            "2026-12-01T00:00:00Z",
            "2026-12-01T23:59:59.5Z",
            "2024-02-29T00:00:00.123Z",
            "0000-01-01T00:00:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_ok(), "{text}");
        }
        for text in [
            "",
            "2026-12-01",
            "2026-12-01T00:00:00",
            "2026-12-01t00:00:00Z",
            "2026-12-01T00:00:00z",
            "2026-12-01 00:00:00Z",
            "2026-12-01T00:00:60Z",
            "2026-12-01T24:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-12-01T00:00:00+00:00",
            "2026-12-01T00:00:00.Z",
            "2026-12-01T00:00:00.1234Z",
            "2026-12-01T00:00:00,5Z",
            "+2026-12-01T00:00:00Z",
            "-2026-12-01T00:00:00Z",
            "2026-12-01T00:00:00ZZ",
            "9999-12-30T22:00:00.001Z",
            "9999-12-31T00:00:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_latest_time_is_the_one_of_the_grammar() {
        assert_eq!("9999-12-30T22:00:00Z".parse(), Ok(Timestamp::LATEST));
        assert_eq!(Timestamp::LATEST.to_string(), "9999-12-30T22:00:00.000Z");
    }

    #[test]
    fn a_time_is_shown_with_milliseconds() {
        assert_eq!(Timestamp::from_millis(5).to_string(), "1970-01-01T00:00:00.005Z");
        assert_eq!(Timestamp::from_millis(i64::MIN).to_string(), i64::MIN.to_string());
    }

    #[test]
    fn a_time_before_1970_is_negative() {
        let epoch = std::time::UNIX_EPOCH;
        for (time, millis) in
            [(epoch + Duration::from_millis(5), 5), (epoch, 0), (epoch - Duration::from_millis(5), -5)]
        {
            assert_eq!(Timestamp::from(time), Timestamp::from_millis(millis));
        }
    }

    #[test]
    fn offsets_and_positions_differ_by_the_record_between_them() {
        assert_eq!(Offset::new(4).next(), Position::new(5));
        assert_eq!(Position::new(5).offset(), Offset::new(5));
        assert_eq!(Position::new(5).back(10_000), Position::START);
        assert_eq!(Position::new(7).since(Position::new(5)), 2);
        assert_eq!((Position::new(5).to_string(), Offset::new(5).to_string()), ("5".into(), "5".into()));
        assert_eq!(Position::new(5).since(Position::new(7)), 0);
    }
}
