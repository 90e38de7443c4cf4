//! Is the log that is there the one that the view was folded from? Asked before anything is folded.
//!
//! Part of both state machines: it only says what to ask, and judges the answers.
//!
//! A reader keeps its offset when a topic is deleted and made anew, or loses its end, and goes on without any
//! error as soon as the other log is long enough. So three things are found out before a record is folded:
//!
//! ```text
//! question    what must hold                               what it means otherwise
//! identity    cluster and topic are the table's            another log
//! ends        position ≤ high                              another log, if three answers and 10 s agree
//!             start ≤ the first record that is needed      a gap
//! record      the one at the anchor's offset is the same   another log
//! ```
//!
//! The last one is what notices a log of the same name and length. It is asked for only once the ends fit,
//! because its absence says something only then. Reading then begins with that very record ([`Seam`]),
//! because a log may be replaced between an answer and the first record. Where nothing was folded yet there is
//! no anchor to ask for, and where no table was read there is no name to compare.
//!
//! The caller sends what [`Check::questions`] returns, asks for the ends itself, and hands every answer to
//! [`Check::answered`], until that says [`Step::Passed`] or why not.

use std::time::{Duration, Instant};

use crate::log::{Answer, Ends, Identity, Question, ReadEvent, Request, Topic};
use crate::record::{Offset, Position, Record};
use crate::table::Anchor;

/// A log that ends before our position is another one, if it still does after so long …
const BEYOND_END_PATIENCE: Duration = Duration::from_secs(10);
/// … in so many answers: the end that a new leader tells may lag.
const BEYOND_END_ANSWERS: u32 = 3;
/// How often the last folded record is compared with the log's while all is well: a reader keeps its offset
/// when a topic is made anew, and goes on as if nothing had happened.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// For how long a check counts, from when its question was sent. What is read later is not folded before
/// another one: a process that was stopped, or had no processor for a while, wakes up to a log that may have
/// been replaced meanwhile, without an error. Longer than the interval and an answer.
pub const TRUST_MAX: Duration = Duration::from_secs(6);

/// Why a state machine can't go on as it was. The text in each is one sentence for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// Try again, from the beginning; time may mend it.
    Again(String),
    /// The log no longer holds the commands that come next. Going on from its start would leave them out, and
    /// nobody would notice; only a newer table mends it, where there is one.
    Gap(String),
    /// The log is not the one that the view was folded from. Offsets mean other commands there, so that
    /// nothing may be folded on top of the view; what is served stays.
    AnotherLog(String),
}

/// What must hold before a record is folded, and what is known of it.
#[derive(Debug)]
pub struct Check {
    position: Position,
    /// The record that was folded last, which a reader begins with …
    anchor: Option<Anchor>,
    /// … and the one that the log is known by, which is asked for.
    known: Option<Anchor>,
    /// The log must still hold everything from here on.
    reach: Position,
    ends_fit: bool,
    /// Where the log begins.
    start: Position,
    /// When the log was first seen to end before our position, and in how many answers since.
    beyond_end: Option<(Instant, u32)>,
    record: Inquiry,
    /// When the record was asked for last.
    asked: Option<Instant>,
    /// Whether the record was found missing once, though the ends fit.
    record_missing: bool,
    identity: Inquiry,
    expected: Option<Identity>,
}

/// Where what is read meets what was folded before.
///
/// A check asks, and later something is read; between the two the log may be replaced. And the record of the
/// anchor may be the same though those behind it are not: between it and the position there were marks and
/// aborted records, which leave nothing to compare. So the reader begins at the anchor, and shows by itself
/// that it reads the log that was folded:
///
/// ```text
/// offset    … 810   811   812   813   814 …
///             ▲     nothing was read  ▲
///             the anchor, met again   the position: from here on records are folded
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seam {
    from: Position,
    /// The record that must come before any that is folded; none once it came, or if there never was one.
    awaited: Option<Anchor>,
    position: Position,
    /// Whether everything before the position was read.
    closed: bool,
}

impl Seam {
    /// Where to begin to read, if not earlier.
    pub const fn from(&self) -> Position {
        self.from
    }

    /// Whether the reader has shown that it reads the log that was folded.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Judges what a reader reports that began at or before [`Seam::from`], in order and before it is folded.
    ///
    /// # Errors
    /// [`Trouble::AnotherLog`] when it reads another log.
    pub fn judge(&mut self, event: &ReadEvent) -> Result<(), Trouble> {
        match event {
            ReadEvent::Records(records) => records.iter().try_for_each(|record| self.record(record)),
            ReadEvent::End(end) if *end >= self.position => self.close(),
            ReadEvent::End(_) | ReadEvent::Failed(_) => Ok(()),
        }
    }

    fn record(&mut self, record: &Record) -> Result<(), Trouble> {
        match self.awaited {
            _ if record.offset.position() >= self.position => return self.close(),
            Some(anchor) if record.offset < anchor.offset => {}
            Some(anchor) if Anchor::of(record) == anchor => self.awaited = None,
            Some(anchor) => return Err(another_record(anchor)),
            None => {
                return Err(Trouble::AnotherLog(format!(
                    "the commands log has a record at offset {}, where there was none to fold: it is another log",
                    record.offset
                )));
            }
        }
        Ok(())
    }

    /// Everything before the position was read.
    fn close(&mut self) -> Result<(), Trouble> {
        self.closed = true;
        self.awaited.map_or(Ok(()), |anchor| Err(another_record(anchor)))
    }
}

/// What comes of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Nothing yet.
    Wait,
    /// Send these.
    Ask(Vec<Request>),
    /// The log is the one; whoever opens a reader now begins at this seam.
    Passed(Seam),
}

/// One thing to find out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Inquiry {
    Due,
    Asked,
    Done,
}

impl Inquiry {
    /// Whether it is to be asked now; it then is under way.
    fn take_due(&mut self) -> bool {
        let due = *self == Self::Due;
        if due {
            *self = Self::Asked;
        }
        due
    }

    fn ask_again(&mut self) {
        if *self == Self::Asked {
            *self = Self::Due;
        }
    }
}

impl Check {
    /// A check that has asked nothing yet, for the view at `position` whose last record is `anchor`. The log
    /// must still hold everything from `reach` on, and be called as `expected` where that is known.
    pub fn new(
        position: Position,
        anchor: Option<Anchor>,
        reach: Position,
        expected: Option<Identity>,
    ) -> Self {
        Self {
            position,
            anchor,
            known: anchor,
            reach,
            ends_fit: false,
            start: Position::START,
            beyond_end: None,
            record_missing: false,
            asked: None,
            record: if anchor.is_some() { Inquiry::Due } else { Inquiry::Done },
            identity: if expected.is_some() { Inquiry::Due } else { Inquiry::Done },
            expected,
        }
    }

    /// The same, asking for an earlier record than the one that was folded last: that one may be of another
    /// log already, if it was read after the last check.
    #[must_use]
    pub fn known_by(mut self, known: Option<Anchor>) -> Self {
        self.known = known.or(self.anchor);
        self
    }

    fn seam(&self) -> Seam {
        // Without an anchor, everything before the position is to be marks and aborted records.
        let from = self.anchor.map_or(self.start, |anchor| anchor.offset.position());
        Seam { from, awaited: self.anchor, position: self.position, closed: false }
    }

    /// Whether the log is the one.
    fn passed(&self) -> bool {
        self.ends_fit && self.record == Inquiry::Done && self.identity == Inquiry::Done
    }

    /// The questions that are due. The anchor is asked for only once the ends fit, because a log whose end
    /// lags has no record there yet.
    pub fn questions(&mut self, now: Instant) -> Vec<Request> {
        let mut questions = Vec::new();
        if self.identity.take_due() {
            questions.push(Request::Ask(Question::Identity));
        }
        if let Some(anchor) = self.known.filter(|_| self.ends_fit && self.record.take_due()) {
            self.asked = Some(now);
            questions.push(Request::Ask(Question::RecordAt(anchor.offset)));
        }
        questions
    }

    /// When the record was asked for that showed which log it is; none if there was none to ask for, so that
    /// any log is the one.
    pub const fn asked(&self) -> Option<Instant> {
        self.asked
    }

    /// Asks again for what was asked and not answered, because the client that would have answered is gone.
    pub fn ask_again(&mut self) {
        self.record.ask_again();
        self.identity.ask_again();
    }

    /// Judges where the commands log begins and ends. Ends that lie before our position are no answer yet: it
    /// takes more of them before they are an error.
    ///
    /// # Errors
    /// [`Trouble::Gap`] if the log begins behind what is needed, the anchor's record included;
    /// [`Trouble::AnotherLog`] if it ends before our position and goes on doing so.
    fn ends(&mut self, ends: Ends, now: Instant) -> Result<(), Trouble> {
        let (position, start, high) = (self.position, ends.start, ends.high);
        if position > high {
            let (since, answers) = self.beyond_end.get_or_insert((now, 0));
            *answers += 1;
            if *answers >= BEYOND_END_ANSWERS && now >= *since + BEYOND_END_PATIENCE {
                return Err(Trouble::AnotherLog(format!(
                    "the commands log ends at {high}, before position {position} that was reached in it: it is another log, or it lost its end"
                )));
            }
            return Ok(());
        }
        // Retention may take a record that was folded seconds ago. What was folded last is as good then: another
        // log still has its first records.
        if self.known.is_some_and(|known| known.offset.position() < start) {
            self.known = self.anchor;
            // An answer that is under way is to the question for the other one.
            self.record.ask_again();
        }
        let needed = self.known.map_or(self.reach, |known| self.reach.min(known.offset.position()));
        if start > needed {
            return Err(Trouble::Gap(format!(
                "the commands log begins at {start}; {needed} and later are needed"
            )));
        }
        (self.ends_fit, self.start) = (true, start);
        Ok(())
    }

    /// Judges an answer, and says what to do next; answers to questions of others are passed over. What failed
    /// is asked again with the next [`questions`](Self::questions), not at once.
    ///
    /// # Errors
    /// [`Trouble::Gap`] and [`Trouble::AnotherLog`] for ends as said above; [`Trouble::AnotherLog`] if the name
    /// or the record is another one, or if the record is missing twice although the ends fit.
    pub fn answered(&mut self, answer: &Answer, now: Instant) -> Result<Step, Trouble> {
        match answer {
            Answer::Ends(Topic::Commands, ends) => self.ends(*ends, now)?,
            Answer::RecordAt(offset, record) => self.record(*offset, record.as_ref())?,
            Answer::Identity(found) => {
                if let Some(expected) = &self.expected {
                    same_log(expected, found)?;
                }
                self.identity = Inquiry::Done;
            }
            Answer::Failed(Question::RecordAt(_), _) => self.record.ask_again(),
            Answer::Failed(Question::Identity, _) => self.identity.ask_again(),
            Answer::Ends(..) | Answer::TopicSettings(_) | Answer::Failed(..) => {}
        }
        Ok(match answer {
            _ if self.passed() => Step::Passed(self.seam()),
            Answer::Failed(..) => Step::Wait,
            _ => Step::Ask(self.questions(now)),
        })
    }

    fn record(&mut self, offset: Offset, record: Option<&Record>) -> Result<(), Trouble> {
        let Some(anchor) = self.known.filter(|known| known.offset == offset) else { return Ok(()) };
        match record {
            // Retention may have taken it since the ends were asked for: they are asked for again.
            None if !self.record_missing => {
                (self.record_missing, self.ends_fit, self.record) = (true, false, Inquiry::Due);
            }
            Some(record) if Anchor::of(record) == anchor => self.record = Inquiry::Done,
            // Another record, or none for a second time between ends that fit.
            _ => return Err(another_record(anchor)),
        }
        Ok(())
    }
}

/// Whether a table was made from the log that is there.
///
/// # Errors
/// [`Trouble::AnotherLog`] if it was not.
pub fn same_log(made_from: &Identity, there: &Identity) -> Result<(), Trouble> {
    if made_from == there {
        return Ok(());
    }
    Err(Trouble::AnotherLog(format!(
        "the table was made from topic {} of cluster {}; this is {} of {}",
        made_from.commands_topic, made_from.cluster_id, there.commands_topic, there.cluster_id
    )))
}

/// The trouble that the record at the anchor's offset is not the one it was.
pub fn another_record(anchor: Anchor) -> Trouble {
    Trouble::AnotherLog(format!(
        "the record at offset {} of the commands log is not the one that was folded: it is another log",
        anchor.offset
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Timestamp;

    #[test]
    fn the_log_must_hold_the_record_of_the_anchor_and_all_that_will_be_read() {
        let record = |offset| Record {
            offset: Offset::new(offset),
            timestamp: Timestamp::from_millis(0),
            key: None,
            value: None,
        };
        let begins_at = |start, anchor, reach| {
            let mut check =
                Check::new(Position::new(20), Some(Anchor::of(&record(anchor))), Position::new(reach), None);
            let ends =
                Ends { start: Position::new(start), high: Position::new(30), stable: Position::new(30) };
            check.ends(ends, Instant::now())
        };
        // Between the anchor and the position there may be nothing but what leaves no record.
        assert_eq!(begins_at(5, 5, 10), Ok(()));
        assert!(matches!(begins_at(6, 5, 10), Err(Trouble::Gap(_))));
        assert_eq!(begins_at(10, 19, 10), Ok(()));
        assert!(matches!(begins_at(11, 19, 10), Err(Trouble::Gap(_))));
    }
}
