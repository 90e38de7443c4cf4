//! Watching the table of another projector, for as long as that gives signs of life.
//!
//! A role changes hands in two ways: the one that has it *releases* it with its last watermark, or it falls
//! silent. (Who lost it in an outage of the log takes it up again at once, unless somebody else has.) Silence
//! is measured by our own monotonic clock, and only while the log answers us: if we are the one that is cut
//! off, the other is not dead. (If a new projector took over at once, one that crashes again and again would
//! fence the healthy one for ever.)
//!
//! ```text
//! the log answers      ✓   ✓   ✓   ✗   ✗   ✗   ✓   ✓   ✓   ✓   ✓
//! the table changed    ✓                                   ✓
//! silence counts from  ▲                       ▲           ▲
//! ```

use std::time::{Duration, Instant};

use super::{Halt, Reason, identity_of};
use crate::check::same_log;
use crate::log::{Answer, Identity, Question, ReadEvent, Request, Topic};
use crate::record::{Offset, Position, Record};
use crate::table::{TableError, WATERMARK_KEY, Watermark, WatermarkError};
use crate::topic_settings::SettingsWatch;

/// Answers that are further apart are an outage of our own, and no sign of the other's death.
const ANSWER_GAP_MAX: Duration = Duration::from_secs(5);
/// A reader that has not come to the table's end for so long is replaced.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(30);

/// What a standby knows of the table.
#[derive(Debug)]
pub(super) struct Standby {
    /// The newest watermark and where it stands; the error, if this release can't build on it.
    newest: Option<(Offset, Result<Watermark, WatermarkError>)>,
    /// Whether the newest watermark is the newest record of all.
    newest_is_last: bool,
    /// A release at or before this offset was taken up already.
    claimed: Option<Offset>,
    /// The watermark that we left when the log was away.
    left: Option<Watermark>,
    /// Whether the reader was at the table's end once; it stays so, as new records are told of by themselves.
    came_to_end: bool,
    /// What the log is called, to be compared with what the watermark says.
    identity: Option<Identity>,
    identity_asked: bool,
    silence: Silence,
    /// When the reader last reported anything.
    heard: Instant,
}

/// What to do about the role.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Not enough is known yet.
    Unknown,
    /// The other one lives.
    Wait,
    /// It is gone.
    TakeOver,
    /// This table is not to be written to.
    Halt(Halt),
}

impl Standby {
    /// A standby that has read nothing. `claimed` is the watermark that was the newest when this projector
    /// last claimed the role.
    pub(super) fn new(
        takeover_after: Duration,
        claimed: Option<Offset>,
        left: Option<Watermark>,
        now: Instant,
    ) -> Self {
        Self {
            newest: None,
            newest_is_last: false,
            claimed,
            left,
            came_to_end: false,
            identity: None,
            identity_asked: false,
            silence: Silence::new(takeover_after, now),
            heard: now,
        }
    }

    /// The newest watermark, if it can be read.
    pub(super) fn watermark(&self) -> Option<&Watermark> {
        self.newest.as_ref().and_then(|(_, watermark)| watermark.as_ref().ok())
    }

    /// Where the newest watermark stands.
    pub(super) fn watermark_offset(&self) -> Option<Offset> {
        self.newest.as_ref().map(|(offset, _)| *offset)
    }

    /// Takes in what the table's reader reports, but for its failure.
    pub(super) fn read(&mut self, event: &ReadEvent, now: Instant) {
        self.heard = now;
        match event {
            ReadEvent::Records(records) => {
                self.silence.broken(now);
                records.iter().for_each(|record| self.note(record));
            }
            ReadEvent::End(_) => self.came_to_end = true,
            ReadEvent::Failed(_) => self.silence.unheard(),
        }
    }

    /// Notes a record of the table. Rows are not kept: they are read once the role is ours.
    fn note(&mut self, record: &Record) {
        self.newest_is_last = record.key.as_deref() == Some(WATERMARK_KEY);
        if self.newest_is_last {
            self.newest = Some((record.offset, Watermark::decode(record.value.as_deref())));
        }
    }

    /// Takes in an answer.
    pub(super) fn answered(&mut self, answer: &Answer, now: Instant) {
        match answer {
            Answer::Ends(Topic::Table, ends) => self.silence.answered(ends.high, now),
            Answer::Failed(Question::Ends(Topic::Table), _) => self.silence.unheard(),
            Answer::Identity(identity) => self.identity = Some(identity.clone()),
            Answer::Failed(Question::Identity, _) => self.identity_asked = false,
            _ => {}
        }
    }

    /// The questions that are due beside the one for the ends.
    pub(super) fn questions(&mut self) -> Option<Request> {
        let asked = std::mem::replace(&mut self.identity_asked, true);
        (!asked).then_some(Request::Ask(Question::Identity))
    }

    /// Asks again for what was asked and not answered.
    pub(super) fn ask_again(&mut self) {
        self.identity_asked = self.identity.is_some();
    }

    /// Whether the reader never gets to the end.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        !self.came_to_end && now >= self.heard + PROGRESS_DEADLINE
    }

    /// What to do about the role. Judged at the end of the table only: before it, the newest watermark is not
    /// known. A table that is not ours to write is worse than a role that is taken, and comes first.
    pub(super) fn verdict(&self, settings: &SettingsWatch, now: Instant) -> Verdict {
        if !self.came_to_end {
            return Verdict::Unknown;
        }
        let (offset, watermark) = match &self.newest {
            None => return Verdict::Halt(Halt::of_table(&TableError::NoWatermark)),
            Some((_, Err(error))) => return Verdict::Halt(Halt::of_table(&(*error).into())),
            Some((offset, Ok(watermark))) => (offset, watermark),
        };
        let Some(identity) = &self.identity else { return Verdict::Unknown };
        if let Err(trouble) = same_log(&identity_of(watermark), identity) {
            return Verdict::Halt(trouble.into());
        }
        if let Some(message) = settings.refused() {
            return Verdict::Halt(Halt { reason: Reason::TopicSettings, message: message.to_owned() });
        }
        if !settings.are_good() {
            return Verdict::Unknown;
        }
        // A release that somebody has acted on since is none any more. What we left ourselves is one, too:
        // the log was away for everybody, and nobody has taken the role meanwhile.
        let fresh = self.newest_is_last && self.claimed.is_none_or(|claimed| claimed < *offset);
        let free = watermark.released || self.left.as_ref() == Some(watermark);
        let gone = free && fresh || self.silence.is_over(now);
        if gone { Verdict::TakeOver } else { Verdict::Wait }
    }
}

/// The time for which the log answered and the table did not change.
///
/// The high watermark counts as a sign of life, too: it moves with transactions that are not committed yet.
#[derive(Debug)]
struct Silence {
    limit: Duration,
    /// The last sign of life, or since when the log answers.
    since: Instant,
    /// The table's high watermark in the last answer.
    high: Option<Position>,
    /// When the log last answered; none after it failed to.
    answered: Option<Instant>,
}

impl Silence {
    const fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, since: now, high: None, answered: None }
    }

    fn answered(&mut self, high: Position, now: Instant) {
        let listening = self.answered.is_some_and(|answered| now <= answered + ANSWER_GAP_MAX);
        if !listening || self.high != Some(high) {
            self.since = now;
        }
        (self.high, self.answered) = (Some(high), Some(now));
    }

    /// The table changed.
    fn broken(&mut self, now: Instant) {
        self.since = now;
    }

    /// The log could not be read or asked: the silence begins anew with its next answer.
    fn unheard(&mut self) {
        self.answered = None;
    }

    /// Whether it lasted for long enough, and the log still answers.
    fn is_over(&self, now: Instant) -> bool {
        let listening = self.answered.is_some_and(|answered| now <= answered + ANSWER_GAP_MAX);
        listening && now >= self.since + self.limit
    }
}
