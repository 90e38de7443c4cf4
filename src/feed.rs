//! Reading the commands from a position on: check that the log is the one, read, and notice when it was
//! replaced, or when nothing comes although there is more.
//!
//! ```text
//!                 begin_check                 the log is the one: Next::Open
//!    Suspended ────────────────► Checking ──────────────────────────────────► Reading
//!        ▲                          ▲                                            │
//!        │ suspend: reader failed   └──── begin_check, after Next::Recheck ──────┤
//!        └───────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Nothing may be read before [`Next::Open`]. A topic that is deleted and made anew need not give its reader
//! an error, so that questions go on to be asked, and one that failed counts for as much as an error: nothing
//! more is folded before another check. While reading goes on, four things lead back to the check: the log
//! ends before a position that was reached in it, the record that is watched is no longer there, the reader
//! stands still although there is more, or records come after the last check has lost its worth
//! ([`Feed::is_trusted`]). A watched record that is *another* one is trouble at once.
//!
//! Part of the follower: it knows positions and anchors, and nothing of views. It opens and closes nothing
//! itself, but says when to.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::check::{CHECK_INTERVAL, Check, Seam, Step, TRUST_MAX, Trouble, another_record};
use crate::log::{Answer, Ends, Identity, Question, ReadEvent, Request, Topic};
use crate::record::{Position, Record};
use crate::table::Anchor;
use crate::view::DUPLICATE_WINDOW;

/// A reader that stands still below the log's end for so long is replaced …
const STUCK_PATIENCE: Duration = Duration::from_secs(15);
/// … and its successor after so long, and jitter of up to as much, which doubles from time to time …
const STUCK_AGAIN_FIRST: Duration = Duration::from_secs(30);
/// … up to this.
const STUCK_AGAIN_MAX: Duration = Duration::from_secs(300);

/// The commands from a position on.
///
/// Its owner calls [`Feed::begin_check`] to begin, then [`Feed::answered`] with each answer, [`Feed::judge`],
/// [`Feed::progress`] and [`Feed::reached`] with what the reader reports, [`Feed::tick`] as time passes, and
/// [`Feed::suspend`] when the reader failed.
#[derive(Debug)]
pub struct Feed {
    /// The next offset to read: before the view's position while ids are being recovered.
    next: Position,
    /// What the table says that the log is called.
    expected: Option<Identity>,
    state: State,
    /// Whether anything was read since the reader was opened.
    moved: bool,
    /// Where the log began when it was last asked.
    start: Position,
    anchor: AnchorWatch,
    stuck: Stuck,
}

/// How far the reading has got.
#[derive(Debug)]
enum State {
    /// Nothing is asked and nothing is read.
    Suspended,
    /// Whether the log is the one is not known yet.
    Checking(Box<Check>),
    /// It is, and is read, from the seam on.
    Reading(Seam),
}

/// What to do next.
#[derive(Debug)]
pub enum Next {
    /// Nothing.
    Nothing,
    /// Send these.
    Ask(Vec<Request>),
    /// The log is the one: read it from here, which may be before what is to be folded next.
    Open(Position),
    /// Close the reader and check the log again.
    Recheck,
}

/// The check of a folded record that goes on while following.
///
/// Asked for is the record that was the last one when the check before was *sent*, not the newest: if the
/// log was replaced without an error, the newest may already be the other log's, and would be found there.
///
/// ```text
/// folded     … 810 … │ … 840 …│ … 870 …
/// asked for          810      840          and 870 is watched once 840 was found to be the same
/// ```
#[derive(Debug, Default)]
struct AnchorWatch {
    /// The record to ask for next; none as long as nothing was folded.
    watched: Option<Anchor>,
    /// What is asked for, and the record to watch once that is found.
    asked: Option<(Anchor, Option<Anchor>)>,
    /// When the question was sent whose answer showed that the log is the one; none since one had no answer.
    checked: Option<Instant>,
    /// When the last question was sent.
    sent: Option<Instant>,
}

/// Notices a reader that stands still although there is more to read.
///
/// A client may stop fetching without an error. Being behind is no fault as long as the position moves, and
/// a single answer may have crossed records that are on their way: hence the two answers and the patience.
#[derive(Debug)]
struct Stuck {
    /// Since when it stands still, and in how many answers; none while it gets on.
    still: Option<(Instant, u32)>,
    /// How long it may stand. Grows with each reader that did not help, so that a log which is at fault
    /// itself is not besieged with new ones.
    patience: Duration,
    again: Backoff,
}

impl Feed {
    /// From the log's first record.
    pub fn from_start(seed: u64) -> Self {
        Self::new(Position::START, None, seed)
    }

    /// From a table's watermark at `position`, after recovering the ids before it: the first records that
    /// come are in the view already and are only remembered. `expected` is what the watermark says of the
    /// log.
    pub fn from_table(position: Position, expected: Identity, seed: u64) -> Self {
        Self::new(position.back(DUPLICATE_WINDOW), Some(expected), seed)
    }

    fn new(next: Position, expected: Option<Identity>, seed: u64) -> Self {
        Self {
            next,
            expected,
            state: State::Suspended,
            moved: false,
            start: Position::START,
            anchor: AnchorWatch::default(),
            stuck: Stuck {
                still: None,
                patience: STUCK_PATIENCE,
                again: Backoff::new(STUCK_AGAIN_FIRST, STUCK_AGAIN_MAX, seed),
            },
        }
    }

    /// Whether what it reads has shown to be the log that was folded.
    pub const fn is_reading(&self) -> bool {
        matches!(self.state, State::Reading(seam) if seam.is_closed())
    }

    /// Stops asking, after the reader failed; says whether that reader had read anything. One that had not
    /// is worth a wait before the next.
    pub fn suspend(&mut self) -> bool {
        self.state = State::Suspended;
        std::mem::take(&mut self.moved)
    }

    /// Begins to ask whether the log is the one, for the view with this position and anchor. Until it is
    /// known, nothing may be read.
    pub fn begin_check(&mut self, position: Position, anchor: Option<Anchor>, now: Instant) -> Vec<Request> {
        // What was read since the last check may be of another log already: so the record before it is asked for.
        let watched = self.anchor.watched.or(anchor);
        let check = Check::new(position, anchor, self.next, self.expected.clone());
        let mut check = check.known_by(watched);
        let questions = check.questions(now);
        self.state = State::Checking(Box::new(check));
        self.anchor = AnchorWatch { watched, ..AnchorWatch::default() };
        self.stuck.still = None;
        questions
    }

    /// The newest record that is known to be of the log, and all before it. None if nothing is known, or if a
    /// check is under way.
    pub fn known(&self) -> Option<Anchor> {
        self.anchor.watched.filter(|_| self.is_reading())
    }

    /// Whether what is read now may be folded: the log was the one a short while ago.
    pub fn is_trusted(&self, now: Instant) -> bool {
        self.anchor.watched.is_none() || self.anchor.checked.is_some_and(|checked| now < checked + TRUST_MAX)
    }

    /// Judges what the reader reports, before anything is made of it.
    ///
    /// # Errors
    /// [`Trouble::AnotherLog`] when it reads another log than the one that was folded.
    pub fn judge(&mut self, event: &ReadEvent) -> Result<(), Trouble> {
        match &mut self.state {
            State::Reading(seam) => seam.judge(event),
            State::Suspended | State::Checking(_) => Ok(()),
        }
    }

    /// Notes that records were read; they come in order.
    pub fn progress(&mut self, records: &[Record], now: Instant) {
        if let Some(last) = records.last() {
            self.reached(last.offset.next());
        }
        // Of an empty log nothing is known: its first record shows which log it is.
        if self.anchor.watched.is_none() {
            (self.anchor.watched, self.anchor.checked) = (records.first().map(Anchor::of), Some(now));
        }
    }

    /// Notes that everything before a position was read, marks and gaps included.
    pub fn reached(&mut self, position: Position) {
        // A reader begins with a record that was read before: that is no progress.
        if position <= self.next {
            return;
        }
        (self.moved, self.next) = (true, position);
        self.stuck.still = None;
        self.stuck.patience = STUCK_PATIENCE;
        self.stuck.again.reset();
    }

    /// Asks again for what was asked and not answered.
    pub fn ask_again(&mut self) {
        self.anchor.ask_again();
        if let State::Checking(check) = &mut self.state {
            check.ask_again();
        }
    }

    /// Asks what is due; `anchor` is the last record that was folded.
    pub fn tick(&mut self, anchor: Option<Anchor>, now: Instant) -> Vec<Request> {
        match &mut self.state {
            State::Suspended => Vec::new(),
            State::Checking(check) => check.questions(now),
            State::Reading(_) => self.anchor.tick(anchor, now),
        }
    }

    /// Takes in an answer; `position_asked` is the position of the served view when the question for the ends
    /// was sent.
    ///
    /// # Errors
    /// [`Trouble::AnotherLog`] when the log is not the one, [`Trouble::Gap`] when it does not reach back far
    /// enough. Neither is mended by asking again.
    pub fn answered(
        &mut self,
        answer: &Answer,
        position_asked: Position,
        now: Instant,
    ) -> Result<Next, Trouble> {
        if let Answer::Ends(Topic::Commands, ends) = answer {
            self.start = ends.start;
        }
        let check = match &mut self.state {
            State::Suspended => return Ok(Next::Nothing),
            State::Reading(_) => return self.answered_while_reading(answer, position_asked, now),
            State::Checking(check) => check,
        };
        Ok(match check.answered(answer, now)? {
            Step::Wait => Next::Nothing,
            Step::Ask(questions) => Next::Ask(questions),
            Step::Passed(seam) => {
                self.anchor.checked = Some(check.asked().unwrap_or(now));
                self.state = State::Reading(seam);
                Next::Open(self.next.min(seam.from()))
            }
        })
    }

    /// What an answer says of a log that is being read already.
    fn answered_while_reading(
        &mut self,
        answer: &Answer,
        position_asked: Position,
        now: Instant,
    ) -> Result<Next, Trouble> {
        match answer {
            Answer::Ends(Topic::Commands, ends) => {
                let truncated = ends.high < position_asked;
                let recheck = truncated || self.stuck.answered(self.next, *ends, now);
                Ok(if recheck { Next::Recheck } else { Next::Nothing })
            }
            Answer::RecordAt(offset, record) => {
                let Some((asked, next)) = self.anchor.asked.take_if(|(asked, _)| asked.offset == *offset)
                else {
                    return Ok(Next::Nothing);
                };
                match record {
                    Some(record) if Anchor::of(record) != asked => return Err(another_record(asked)),
                    // The log lost its end, or is another one: the full check tells.
                    None if asked.offset.position() >= self.start => return Ok(Next::Recheck),
                    // Retention took it. What is behind it was read without a break, so reading goes on.
                    Some(_) | None => self.anchor.is_the_one(next),
                }
                Ok(Next::Nothing)
            }
            Answer::Failed(question @ (Question::RecordAt(_) | Question::Ends(Topic::Commands)), _) => {
                // The topic may be gone, and the next one there be another. A reader hears nothing of that.
                self.anchor.checked = None;
                if matches!(question, Question::RecordAt(_)) {
                    self.anchor.ask_again();
                }
                Ok(Next::Nothing)
            }
            _ => Ok(Next::Nothing),
        }
    }
}

impl AnchorWatch {
    /// The question for the watched record, when it is due; `anchor` is the newest record that was folded.
    fn tick(&mut self, anchor: Option<Anchor>, now: Instant) -> Vec<Request> {
        let Some(watched) = self.watched else { return Vec::new() };
        let due = self.asked.is_none() && self.sent.is_none_or(|sent| now >= sent + CHECK_INTERVAL);
        if !due {
            return Vec::new();
        }
        (self.asked, self.sent) = (Some((watched, anchor)), Some(now));
        vec![Request::Ask(Question::RecordAt(watched.offset))]
    }

    /// Notes that the log still is the one, and the record to watch from now on. That does not make up for a
    /// question that had no answer: the record is older than what was folded last, and from behind it on the
    /// log may be another one.
    fn is_the_one(&mut self, next: Option<Anchor>) {
        self.watched = next;
        self.checked = self.checked.and(self.sent);
    }

    /// Asks for the same record again with the next question: it must not get away because one answer failed,
    /// or because the client that would have answered is gone.
    fn ask_again(&mut self) {
        self.asked = None;
    }
}

impl Stuck {
    /// Whether the reader has stood still for too long, in two answers, below where it could get to.
    fn answered(&mut self, next: Position, ends: Ends, now: Instant) -> bool {
        if next >= ends.stable {
            self.still = None;
            return false;
        }
        let (since, answers) = self.still.map_or((now, 1), |(since, answers)| (since, answers + 1));
        self.still = Some((since, answers));
        let stuck = answers >= 2 && now >= since + self.patience;
        if stuck {
            self.patience = STUCK_AGAIN_FIRST + self.again.wait();
        }
        stuck
    }
}
