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
//! Nothing may be read before [`Next::Open`], and nothing that was read is folded before it is *vouched* for:
//! a topic can be deleted and made anew within milliseconds, and its reader goes on in the new one without an
//! error. So each time something was read, the record that was folded last is asked for. If it still is the
//! one that it was, all that was read before the question was sent is of the same log.
//!
//! ```text
//! reader      811, 812        813
//! question             ──► 810?       ──► 812?
//! answer                        the same: fold 811, 812   the same: fold 813
//! ```
//!
//! While reading goes on, three things lead back to the check: the log ends before a position that was
//! reached in it, the record that is asked for is no longer there, or the reader stands still although there
//! is more. A record that is *another* one is trouble at once.
//!
//! Part of the follower: it knows positions and anchors, and nothing of views. It opens and closes nothing
//! itself, but says when to.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::check::{CHECK_INTERVAL, Check, Step, Trouble, another_record};
use crate::log::{Answer, Ends, Identity, Question, Request, Topic};
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
/// Its owner calls [`Feed::begin_check`] to begin, then [`Feed::answered`] with each answer,
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
    /// The record that is asked for, and how many reports were held when it was.
    asked: Option<(Anchor, usize)>,
    /// When that question was sent last.
    sent: Option<Instant>,
    stuck: Stuck,
}

/// How far the reading has got.
#[derive(Debug)]
enum State {
    /// Nothing is asked and nothing is read.
    Suspended,
    /// Whether the log is the one is not known yet.
    Checking(Box<Check>),
    /// It is, and is read.
    Reading,
}

/// What to do next.
#[derive(Debug)]
pub enum Next {
    /// Nothing.
    Nothing,
    /// Send these.
    Ask(Vec<Request>),
    /// The log is the one: read it from here.
    Open(Position),
    /// So many of the reports that were held when this was asked for are of the log.
    Release(usize),
    /// Close the reader and check the log again.
    Recheck,
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
            asked: None,
            sent: None,
            stuck: Stuck {
                still: None,
                patience: STUCK_PATIENCE,
                again: Backoff::new(STUCK_AGAIN_FIRST, STUCK_AGAIN_MAX, seed),
            },
        }
    }

    /// Whether it reads a log that is known to be the one.
    pub const fn is_reading(&self) -> bool {
        matches!(self.state, State::Reading)
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
        let mut check = Check::new(position, anchor, self.next, self.expected.clone());
        let questions = check.questions();
        self.state = State::Checking(Box::new(check));
        (self.asked, self.sent) = (None, Some(now));
        self.stuck.still = None;
        questions
    }

    /// Asks whether this record, the last that was folded, still is the one that it was; so many reports are
    /// held until that is known. One question at a time.
    pub fn vouch(&mut self, anchor: Option<Anchor>, held: usize, now: Instant) -> Vec<Request> {
        let Some(anchor) = anchor.filter(|_| self.is_reading() && self.asked.is_none()) else {
            return Vec::new();
        };
        (self.asked, self.sent) = (Some((anchor, held)), Some(now));
        vec![Request::Ask(Question::RecordAt(anchor.offset))]
    }

    /// Notes that records were read; they come in order.
    pub fn progress(&mut self, records: &[Record]) {
        if let Some(last) = records.last() {
            self.reached(last.offset.next());
        }
    }

    /// Notes that everything before a position was read, marks and gaps included.
    pub fn reached(&mut self, position: Position) {
        self.moved |= position > self.next;
        self.next = self.next.max(position);
        self.stuck.still = None;
        self.stuck.patience = STUCK_PATIENCE;
        self.stuck.again.reset();
    }

    /// Asks again for what was asked and not answered.
    pub fn ask_again(&mut self) {
        self.asked = None;
        if let State::Checking(check) = &mut self.state {
            check.ask_again();
        }
    }

    /// Asks what is due of a check.
    pub fn tick(&mut self) -> Vec<Request> {
        match &mut self.state {
            State::Checking(check) => check.questions(),
            State::Suspended | State::Reading => Vec::new(),
        }
    }

    /// Whether it is time to have the log vouched for though nothing was read.
    pub fn is_vouch_due(&self, now: Instant) -> bool {
        self.sent.is_none_or(|sent| now >= sent + CHECK_INTERVAL)
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
            State::Reading => return self.answered_while_reading(answer, position_asked, now),
            State::Checking(check) => check,
        };
        Ok(match check.answered(answer, now)? {
            Step::Wait => Next::Nothing,
            Step::Ask(questions) => Next::Ask(questions),
            Step::Passed => {
                self.state = State::Reading;
                Next::Open(self.next)
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
                let Some((asked, held)) = self.asked.take_if(|(asked, _)| asked.offset == *offset) else {
                    return Ok(Next::Nothing);
                };
                match record {
                    Some(record) if Anchor::of(record) != asked => Err(another_record(asked)),
                    // The log lost its end, or is another one: the full check tells.
                    None if asked.offset.position() >= self.start => Ok(Next::Recheck),
                    // Retention took it. What is behind it was read without a break, so reading goes on.
                    Some(_) | None => Ok(Next::Release(held)),
                }
            }
            Answer::Failed(Question::RecordAt(_), _) => {
                self.asked = None;
                Ok(Next::Nothing)
            }
            _ => Ok(Next::Nothing),
        }
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
