//! Replays the commands log: the view at any position or time, folded from the first record that is there.
//!
//! ```text
//!   start                   position                                      end, as it was at first
//!     │ apply ─► view         │ the view there                              │
//!     next ──────────────────►
//! ```
//!
//! Nothing is served from it and nothing is written: it is for whoever wants to know what the log says, and
//! to compare with. It goes by the rules of every other reader ([`View::apply`]), and ends, so that it needs
//! no state machine: it reads to a position that is known to be there when it begins.
//!
//! A time is not a place in the log, because log times need not rise: it means everything up to the last
//! record whose log time is not later. So the log is read once to find that record, and once to fold.
//!
//! It has no clock. Whoever runs it is told after each report of the reader, and at least five times a
//! second, how far it has got, and may end it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::log::{Answer, Ends, Log, Question, ReadEvent, Topic};
use crate::record::{Offset, Position, Record, Timestamp};
use crate::view::{FutureCommand, RefusedCounts, View};

/// How long a reader waits for news before its owner is asked whether to go on.
const POLL_WAIT: Duration = Duration::from_millis(200);

/// Up to where to fold.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Until {
    /// The end of the log, as it is when the replay begins.
    #[default]
    End,
    /// Everything before this position.
    Position(Position),
    /// Everything up to the last record whose log time is not later.
    Time(Timestamp),
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("end"),
            Self::Position(position) => position.fmt(f),
            Self::Time(time) => time.fmt(f),
        }
    }
}

/// A text that is neither a position nor a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is neither a position like 814 nor a time like 2026-12-01T00:00:00Z")]
pub struct UntilError;

impl FromStr for Until {
    type Err = UntilError;

    /// Digits are a position, all else is a time.
    fn from_str(text: &str) -> Result<Self, UntilError> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let position = || text.parse().map(|number| Self::Position(Position::new(number))).ok();
        let time = || text.parse().map(Self::Time).ok();
        if is_number { position() } else { time() }.ok_or(UntilError)
    }
}

/// What to fold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// Up to where.
    pub until: Until,
    /// The offsets that every reader of this log passes over.
    pub skipped: BTreeSet<Offset>,
    /// Offsets that may be passed over, too, should they hold a command of the future.
    pub skip_offsets: BTreeSet<Offset>,
}

/// How far a replay has got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// How many records were read, of all passes.
    pub records_read: u64,
    /// Everything before it was read in this pass.
    pub position: Position,
    /// Where this pass ends.
    pub end: Position,
}

/// What the log comes to.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Where the log begins: 0, unless commands were taken away. Then they are missing in the view.
    pub began: Position,
    /// The view.
    pub view: View,
    /// The log time of the last record that was folded; none if there was none.
    pub time: Option<Timestamp>,
    /// What was refused on the way.
    pub refused: RefusedCounts,
}

/// Why a log was not replayed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReplayError {
    /// The log does not reach to the position.
    #[error("the commands log ends at position {end}, before {position}")]
    BeyondEnd {
        /// The position that was asked for.
        position: Position,
        /// Where the log ends.
        end: Position,
    },
    /// The log begins later.
    #[error("the commands log begins at position {start}, behind {position}")]
    BeforeStart {
        /// The position that was asked for.
        position: Position,
        /// Where the log begins.
        start: Position,
    },
    /// Every record is later.
    #[error("the commands log holds nothing up to {time}; its first record is of {first}")]
    BeforeFirst {
        /// The time that was asked for.
        time: Timestamp,
        /// The earliest log time.
        first: Timestamp,
    },
    /// There is no record, and so no time.
    #[error("the commands log holds no record, and so nothing up to {0}")]
    NoRecord(Timestamp),
    /// A command of the future stands in the way.
    #[error("{0}")]
    Future(#[from] FutureCommand),
    /// The log can't be asked or read.
    #[error("{0}")]
    Log(String),
    /// Whoever ran it ended it.
    #[error("{0}")]
    GivenUp(String),
}

/// Told how far a replay has got; an error, in words for people, ends it.
pub type Watch<'a> = &'a mut dyn FnMut(Progress) -> Result<(), String>;

/// Folds the commands of a log. Blocks for as long as that takes, or until `watch` ends it.
///
/// ```
/// use portcullis::log::Topic;
/// use portcullis::log::memory::MemoryLog;
/// use portcullis::record::{Position, Timestamp};
/// use portcullis::replay::{Plan, Until, replay};
///
/// let log = MemoryLog::default();
/// for (second, command) in ["BLACKLIST 192.0.2.0/24", "WHITELIST 192.0.2.0/24"].into_iter().enumerate() {
///     let time = Timestamp::from_millis(second as i64 * 1_000);
///     log.append_record(Topic::Commands, time, None, Some(command.as_bytes()));
/// }
/// let rows = |until| {
///     let replayed = replay(&log, &Plan { until, ..Plan::default() }, &mut |_| Ok(()))?;
///     Ok::<_, portcullis::replay::ReplayError>(replayed.view.blacklist().row_counts().total())
/// };
/// assert_eq!(rows(Until::End)?, 0);
/// assert_eq!(rows(Until::Position(Position::new(1)))?, 1);
/// assert_eq!(rows(Until::Time(Timestamp::from_millis(999)))?, 1);
/// # Ok::<(), portcullis::replay::ReplayError>(())
/// ```
///
/// # Errors
/// When the log does not reach to where it is to be folded, holds a command of the future before it, or can't
/// be read.
pub fn replay(log: &dyn Log, plan: &Plan, watch: Watch<'_>) -> Result<Replayed, ReplayError> {
    let ends = ends(log)?;
    let mut pass = Pass { log, from: ends.start, records_read: 0, watch };
    let position = match plan.until {
        Until::End => ends.stable,
        Until::Position(position) if position > ends.stable => {
            return Err(ReplayError::BeyondEnd { position, end: ends.stable });
        }
        Until::Position(position) if position < ends.start => {
            return Err(ReplayError::BeforeStart { position, start: ends.start });
        }
        Until::Position(position) => position,
        Until::Time(time) => pass.position_at(time, ends.stable)?,
    };
    pass.fold(plan, position)
}

/// Where the commands begin and end.
///
/// # Errors
/// [`ReplayError::Log`] when the log does not say.
pub fn ends(log: &dyn Log) -> Result<Ends, ReplayError> {
    match log.questioner().ask(Question::Ends(Topic::Commands)) {
        Answer::Ends(_, ends) => Ok(ends),
        Answer::Failed(_, reason) => Err(ReplayError::Log(reason)),
        _ => Err(ReplayError::Log("the log did not say where it ends".to_owned())),
    }
}

/// Reads a log from its start, once or twice.
struct Pass<'a> {
    log: &'a dyn Log,
    from: Position,
    records_read: u64,
    watch: Watch<'a>,
}

impl Pass<'_> {
    /// The position behind the last record that is not later.
    fn position_at(&mut self, time: Timestamp, end: Position) -> Result<Position, ReplayError> {
        let (mut first, mut position) = (None::<Timestamp>, None);
        self.read(end, &mut |record| {
            first = Some(first.map_or(record.timestamp, |first| first.min(record.timestamp)));
            if record.timestamp <= time {
                position = Some(record.offset.next());
            }
            Ok(())
        })?;
        position.ok_or(match first {
            Some(first) => ReplayError::BeforeFirst { time, first },
            None => ReplayError::NoRecord(time),
        })
    }

    /// Folds up to a position that is in the log.
    fn fold(&mut self, plan: &Plan, position: Position) -> Result<Replayed, ReplayError> {
        let mut view = View::new(plan.skipped.clone());
        let (mut time, mut refused) = (None, RefusedCounts::default());
        self.read(position, &mut |record| {
            let applied = match view.apply(record) {
                Err(future) if plan.skip_offsets.contains(&future.offset) => {
                    view.skip(future.offset);
                    view.apply(record)?
                }
                applied => applied?,
            };
            applied.outcome.err().into_iter().for_each(|refusal| refused.count(refusal));
            time = Some(record.timestamp);
            Ok(())
        })?;
        view.advance_to(position);
        Ok(Replayed { began: self.from, view, time, refused })
    }

    /// Hands on every record before a position that is in the log.
    fn read(
        &mut self,
        end: Position,
        take: &mut dyn FnMut(&Record) -> Result<(), ReplayError>,
    ) -> Result<(), ReplayError> {
        let mut position = self.from;
        if position >= end {
            return Ok(());
        }
        let mut reader =
            self.log.open(Topic::Commands, position).map_err(|error| ReplayError::Log(error.0))?;
        while position < end {
            match reader.poll(POLL_WAIT) {
                Some(ReadEvent::Records(records)) => {
                    for record in records.iter().take_while(|record| record.offset.position() < end) {
                        take(record)?;
                        self.records_read += 1;
                    }
                    position = records.last().map_or(position, |last| last.offset.next());
                }
                // Behind the last record there may be offsets that hold none.
                Some(ReadEvent::End(reached)) => position = position.max(reached),
                Some(ReadEvent::Failed(reason)) => return Err(ReplayError::Log(reason)),
                None => {}
            }
            let progress = Progress { records_read: self.records_read, position: position.min(end), end };
            (self.watch)(progress).map_err(ReplayError::GivenUp)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::memory::{Ending, MemoryLog};
    use crate::view::Refusal;

    fn log_of(commands: &[(i64, &str)]) -> MemoryLog {
        let log = MemoryLog::default();
        for (millis, value) in commands {
            let time = Timestamp::from_millis(*millis);
            log.append_record(Topic::Commands, time, None, Some(value.as_bytes()));
        }
        log
    }

    fn run(log: &MemoryLog, plan: &Plan) -> Result<Replayed, ReplayError> {
        replay(log, plan, &mut |_| Ok(()))
    }

    fn until(log: &MemoryLog, until: Until) -> Result<(u64, u64), ReplayError> {
        let replayed = run(log, &Plan { until, ..Plan::default() })?;
        let rows = replayed.view.blacklist().row_counts().total();
        Ok((replayed.view.position().number(), rows))
    }

    fn time(millis: i64) -> Until {
        Until::Time(Timestamp::from_millis(millis))
    }

    #[test]
    fn a_time_means_the_last_record_that_is_not_later_though_a_clock_stepped_back() {
        let log = log_of(&[
            (10, "BLACKLIST 192.0.2.1"),
            (50, "BLACKLIST 192.0.2.3"),
            (20, "BLACKLIST 192.0.2.5"),
            (60, "BLACKLIST 192.0.2.7"),
        ]);
        assert_eq!(until(&log, time(10)), Ok((1, 1)));
        assert_eq!(until(&log, time(49)), Ok((3, 3)), "the second one is before the third");
        assert_eq!(until(&log, time(60)), Ok((4, 4)));
        assert_eq!(until(&log, time(i64::MAX)), Ok((4, 4)));
        let early =
            ReplayError::BeforeFirst { time: Timestamp::from_millis(9), first: Timestamp::from_millis(10) };
        assert_eq!(until(&log, time(9)), Err(early));
        let empty = until(&MemoryLog::default(), time(9));
        assert_eq!(empty, Err(ReplayError::NoRecord(Timestamp::from_millis(9))));
    }

    #[test]
    fn a_position_is_refused_where_there_is_no_log() {
        let log = log_of(&[(0, "BLACKLIST 192.0.2.1"), (1, "BLACKLIST 192.0.2.3"), (2, "no command")]);
        let at = |position| until(&log, Until::Position(Position::new(position)));
        assert_eq!((at(0), at(1), at(3)), (Ok((0, 0)), Ok((1, 1)), Ok((3, 2))));
        let beyond = ReplayError::BeyondEnd { position: Position::new(4), end: Position::new(3) };
        assert_eq!(at(4), Err(beyond));
        log.delete_before(Topic::Commands, Position::new(2));
        let before = ReplayError::BeforeStart { position: Position::new(1), start: Position::new(2) };
        assert_eq!(at(1), Err(before));
        let replayed = run(&log, &Plan::default()).expect("the rest is there");
        assert_eq!((replayed.began, replayed.refused.undecodable), (Position::new(2), 1));
        assert_eq!(replayed.time, Some(Timestamp::from_millis(2)));
    }

    #[test]
    fn offsets_without_a_record_are_part_of_the_position() {
        let log = log_of(&[(0, "BLACKLIST 192.0.2.1")]);
        let aborted = log.begin();
        let write = (Vec::new(), Some(b"WHITELIST 192.0.2.1".to_vec()));
        log.append_to(aborted, Topic::Commands, Timestamp::from_millis(1), write);
        log.end(aborted, Topic::Commands, Ending::Abort);
        let Ok((position, rows)) = until(&log, Until::End) else { panic!("it can be read") };
        assert!(position > 1 && rows == 1, "{position}, {rows}");
        assert_eq!(until(&log, Until::Position(Position::new(2))), Ok((2, 1)));
    }

    #[test]
    fn a_command_of_the_future_ends_it_unless_it_is_passed_over() {
        let log = log_of(&[(0, r#"{"v":2}"#), (1, "BLACKLIST 192.0.2.1")]);
        let future = run(&log, &Plan::default()).expect_err("of a later release");
        assert!(
            matches!(&future, ReplayError::Future(future) if future.offset == Offset::new(0)),
            "{future}"
        );
        let offsets = BTreeSet::from([Offset::new(0), Offset::new(1)]);
        let allowed = Plan { skip_offsets: offsets.clone(), ..Plan::default() };
        let allowed = run(&log, &allowed).expect("it is passed over");
        assert_eq!(allowed.view.skipped(), &BTreeSet::from([Offset::new(0)]), "only what stops the fold");
        assert_eq!(allowed.view.blacklist().row_counts().total(), 1);
        let skipped = run(&log, &Plan { skipped: offsets, ..Plan::default() }).expect("all are passed over");
        assert_eq!(skipped.view.blacklist().row_counts().total(), 0);
        let mut counts = RefusedCounts::default();
        [Refusal::Undecodable; 2].into_iter().for_each(|refusal| counts.count(refusal));
        assert_eq!(skipped.refused, counts);
    }

    #[test]
    fn whoever_runs_it_hears_how_far_it_is_and_may_end_it() {
        let log = log_of(&[(0, "BLACKLIST 192.0.2.1"), (1, "BLACKLIST 192.0.2.3")]);
        let mut heard = Vec::new();
        let ended = replay(&log, &Plan::default(), &mut |progress| {
            heard.push(progress);
            Err("enough".to_owned())
        });
        assert_eq!(ended.expect_err("it was ended"), ReplayError::GivenUp("enough".to_owned()));
        let end = Position::new(2);
        assert_eq!(heard, [Progress { records_read: 2, position: end, end }]);
    }

    #[test]
    fn until_is_a_position_or_a_time() {
        assert_eq!("814".parse(), Ok(Until::Position(Position::new(814))));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(time(1_000)));
        for text in ["", "+1", "-1", "1e3", "tomorrow", "99999999999999999999", "end"] {
            assert_eq!(text.parse::<Until>(), Err(UntilError), "{text}");
        }
        for text in ["814", "1970-01-01T00:00:01.000Z"] {
            assert_eq!(text.parse::<Until>().map(|until| until.to_string()), Ok(text.to_owned()));
        }
    }
}
