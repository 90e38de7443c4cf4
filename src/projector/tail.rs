//! Does anybody else write to the table?
//!
//! Whoever may write to the topic can add a row, or take one away; our own view has no part in that, and
//! only those notice that begin from the table: they refuse it, and wait. So its one writer looks at where
//! the table ends. It knows how far that can be: to where it has read it, and what it has written since.
//!
//! ```text
//! read up to here │ 3 rows, watermark, mark │ @alive, mark │ ends here at most
//!                   a transaction of ours     another one    a table that is longer is another's work, too
//! ```
//!
//! A transaction may be told of before its mark is there, so that the table may be shorter for a moment,
//! never longer.

use std::time::{Duration, Instant};

use super::{Clocks, Projector, Stage};
use crate::log::{Answer, Question, Request, Topic};
use crate::record::Position;

/// How often it is asked where the table ends.
const INTERVAL: Duration = Duration::from_secs(10);

/// A sign of life and its mark.
const ALIVE_OFFSETS: u64 = 2;

/// Where the table ends, as its writer knows it.
#[derive(Debug)]
pub(super) struct Tail {
    /// How many offsets were written since the table was begun to be read.
    written: u64,
    /// Where it ends at most; none before it was read.
    end_max: Option<Position>,
    due: Instant,
    /// When it was found to be longer, if it was.
    longer: Option<Instant>,
    /// When our last watermark was begun to be written.
    watermark: Option<Instant>,
}

impl Tail {
    /// The end of a table of which nothing is known.
    pub(super) const fn new(now: Instant) -> Self {
        Self { written: 0, end_max: None, due: now, longer: None, watermark: None }
    }

    /// Notes that the table was read up to a position, and so many of our signs of life. Reading a large one
    /// takes so long that there are several: those that were not read stand behind it.
    pub(super) const fn read_up_to(&mut self, position: Position, alives_read: u64) {
        let unread = self.written.saturating_sub(alives_read * ALIVE_OFFSETS);
        self.end_max = Some(Position::new(position.number() + unread));
    }

    /// Notes a transaction of so many records, behind which stands its mark.
    pub(super) fn writes(&mut self, records: usize) {
        let offsets = records as u64 + 1;
        self.written += offsets;
        self.end_max = self.end_max.map(|end| Position::new(end.number() + offsets));
    }

    /// The question, when it is due.
    pub(super) fn ask(&mut self, now: Instant) -> Option<Request> {
        if self.end_max.is_none() || now < self.due {
            return None;
        }
        self.due = now + INTERVAL;
        Some(Request::Ask(Question::Ends(Topic::Table)))
    }

    /// Takes in an answer.
    pub(super) fn answered(&mut self, answer: &Answer, now: Instant) {
        if let Answer::Ends(Topic::Table, ends) = answer
            && self.end_max.is_some_and(|end| ends.high > end)
        {
            self.longer.get_or_insert(now);
        }
    }

    /// Notes that a watermark of ours is written, which was begun then.
    pub(super) const fn has_watermark(&mut self, begun: Instant) {
        self.watermark = Some(begun);
    }

    /// Whether it must be read again. Not before a watermark of ours stands behind what was found: else that
    /// of somebody else would be the one to go by.
    fn must_be_read(&self) -> bool {
        self.longer.is_some_and(|longer| self.watermark.is_some_and(|begun| begun > longer))
    }
}

impl Projector {
    /// Reads the table once more if somebody else wrote to it, and mends it if it has to be; says whether.
    /// Not while a write is under way, nor after the last one.
    pub(super) fn read_what_others_wrote(&mut self, clocks: Clocks) -> bool {
        let goes_on = matches!(&self.stage, Stage::Folding(folding) if folding.farewell().is_none());
        let must = self.tail.must_be_read() && goes_on && !self.writer.is_busy();
        if must {
            self.difficulty = Some("somebody else wrote to the table: reading it again".to_owned());
            self.close_readers();
            self.load(clocks);
        }
        must
    }
}
