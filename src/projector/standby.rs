//! Watching the table of another projector, for as long as that gives signs of life.

use std::time::{Duration, Instant};

use super::{Halt, Reason, identity_of};
use crate::check::Check;
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
    newest: Option<(Offset, Result<Watermark, WatermarkError>)>,
    /// Whether the newest watermark is the newest record of all.
    newest_is_last: bool,
    /// A release at or before this offset was taken up already.
    claimed: Option<Offset>,
    came_to_end: bool,
    identity: Option<Identity>,
    identity_asked: bool,
    silence: Silence,
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
    pub(super) fn new(takeover_after: Duration, claimed: Option<Offset>, now: Instant) -> Self {
        Self {
            newest: None,
            newest_is_last: false,
            claimed,
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

    fn note(&mut self, record: &Record) {
        self.newest_is_last = record.key.as_deref() == Some(WATERMARK_KEY);
        if self.newest_is_last {
            self.newest = Some((record.offset, Watermark::decode(record.value.as_deref())));
        }
    }

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

    /// Judged at the end of the table only: before it, the newest watermark is not known.
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
        let mut check = Check::new(Position::START, None, Position::START, Some(identity_of(watermark)));
        if let Err(trouble) = check.answered(&Answer::Identity(identity.clone())) {
            return Verdict::Halt(trouble.into());
        }
        if let Some(message) = settings.refused() {
            return Verdict::Halt(Halt { reason: Reason::TopicSettings, message: message.to_owned() });
        }
        if !settings.are_good() {
            return Verdict::Unknown;
        }
        // A release that somebody has acted on since is none any more.
        let fresh = self.newest_is_last && self.claimed.is_none_or(|claimed| claimed < *offset);
        let gone = watermark.released && fresh || self.silence.is_over(now);
        if gone { Verdict::TakeOver } else { Verdict::Wait }
    }
}

/// The time for which the log answered and the table did not change.
#[derive(Debug)]
struct Silence {
    limit: Duration,
    since: Instant,
    high: Option<Position>,
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

    fn broken(&mut self, now: Instant) {
        self.since = now;
    }

    fn unheard(&mut self) {
        self.answered = None;
    }

    fn is_over(&self, now: Instant) -> bool {
        let listening = self.answered.is_some_and(|answered| now <= answered + ANSWER_GAP_MAX);
        listening && now >= self.since + self.limit
    }
}
