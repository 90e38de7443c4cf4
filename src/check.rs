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
//! because its absence says something only then. Where nothing was folded yet there is no anchor to ask for,
//! and where no table was read there is no name to compare.
//!
//! The caller sends what [`Check::questions`] returns, asks for the ends itself, and hands every answer to
//! [`Check::answered`], until that says [`Step::Passed`] or why not.

use std::time::{Duration, Instant};

use crate::log::{Answer, Ends, Identity, Question, Request, Topic};
use crate::record::{Offset, Position, Record};
use crate::table::Anchor;

/// A log that ends before our position is another one, if it still does after so long …
const BEYOND_END_PATIENCE: Duration = Duration::from_secs(10);
/// … in so many answers: the end that a new leader tells may lag.
const BEYOND_END_ANSWERS: u32 = 3;
/// How often the last folded record is compared with the log's while nothing is read.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(2);

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
    anchor: Option<Anchor>,
    /// The log must still hold everything from here on.
    reach: Position,
    ends_fit: bool,
    /// When the log was first seen to end before our position, and in how many answers since.
    beyond_end: Option<(Instant, u32)>,
    record: Inquiry,
    /// Whether the record was found missing once, though the ends fit.
    record_missing: bool,
    identity: Inquiry,
    expected: Option<Identity>,
}

/// What comes of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Nothing yet.
    Wait,
    /// Send these.
    Ask(Vec<Request>),
    /// The log is the one.
    Passed,
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
            reach,
            ends_fit: false,
            beyond_end: None,
            record_missing: false,
            record: if anchor.is_some() { Inquiry::Due } else { Inquiry::Done },
            identity: if expected.is_some() { Inquiry::Due } else { Inquiry::Done },
            expected,
        }
    }

    /// Whether the log is the one.
    fn passed(&self) -> bool {
        self.ends_fit && self.record == Inquiry::Done && self.identity == Inquiry::Done
    }

    /// The questions that are due. The anchor is asked for only once the ends fit, because a log whose end
    /// lags has no record there yet.
    pub fn questions(&mut self) -> Vec<Request> {
        let mut questions = Vec::new();
        if self.identity.take_due() {
            questions.push(Request::Ask(Question::Identity));
        }
        if let Some(anchor) = self.anchor.filter(|_| self.ends_fit && self.record.take_due()) {
            questions.push(Request::Ask(Question::RecordAt(anchor.offset)));
        }
        questions
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
        let needed = self.anchor.map_or(self.reach, |anchor| self.reach.min(anchor.offset.position()));
        if start > needed {
            return Err(Trouble::Gap(format!(
                "the commands log begins at {start}; {needed} and later are needed"
            )));
        }
        self.ends_fit = true;
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
            _ if self.passed() => Step::Passed,
            Answer::Failed(..) => Step::Wait,
            _ => Step::Ask(self.questions()),
        })
    }

    fn record(&mut self, offset: Offset, record: Option<&Record>) -> Result<(), Trouble> {
        let Some(anchor) = self.anchor.filter(|anchor| anchor.offset == offset) else { return Ok(()) };
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
