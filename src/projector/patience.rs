//! Clocks of waiting: for answers, for progress.

use std::time::{Duration, Instant};

use super::{GIVE_UP_PATIENCE, READER_PATIENCE};
use crate::log::{Answer, Question, Request, Topic};

/// How often a log is asked for its ends.
const ENDS_INTERVAL: Duration = Duration::from_secs(1);
/// A client that leaves a question unanswered for so long is replaced.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// The question for a topic's ends, asked over and over, one at a time.
#[derive(Debug)]
pub(super) struct EndsQuestion {
    asked: Option<(Topic, Instant)>,
    /// The next time, for the topic that was asked about last; for the other one it is due at once.
    due: Option<(Topic, Instant)>,
}

impl EndsQuestion {
    pub(super) const fn new() -> Self {
        Self { asked: None, due: None }
    }

    /// The question, when it is due.
    pub(super) fn tick(&mut self, topic: Topic, now: Instant) -> Option<Request> {
        let early = self.due.is_some_and(|(last, due)| last == topic && now < due);
        if self.asked.is_some() || early {
            return None;
        }
        self.asked = Some((topic, now));
        self.due = Some((topic, now + ENDS_INTERVAL));
        Some(Request::Ask(Question::Ends(topic)))
    }

    /// Forgets the question that is under way; the next one keeps its time, so that a reader which is replaced
    /// again and again does not become a loop.
    pub(super) fn forget(&mut self) {
        self.asked = None;
    }

    /// When the question was sent that this answers; none if it is no answer to it.
    pub(super) fn answered(&mut self, answer: &Answer) -> Option<Instant> {
        let (Answer::Ends(topic, _) | Answer::Failed(Question::Ends(topic), _)) = answer else { return None };
        self.asked.take_if(|(asked, _)| asked == topic).map(|(_, since)| since)
    }

    /// Whether the client must be replaced; the question is then due again.
    pub(super) fn is_overdue(&mut self, now: Instant) -> bool {
        self.asked.take_if(|(_, since)| now >= *since + ANSWER_DEADLINE).is_some()
    }
}

/// Watches that an active projector gets on.
#[derive(Debug)]
pub(super) struct Patience {
    since: Instant,
    renewed: bool,
}

/// What standing still calls for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Overdue {
    /// A new reader.
    Reader,
    /// Somebody else.
    Role,
}

impl Patience {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, renewed: false }
    }

    /// Notes that records came, or a proof that there are none to come.
    pub(super) fn progress(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    pub(super) fn tick(&mut self, now: Instant) -> Option<Overdue> {
        if now >= self.since + GIVE_UP_PATIENCE {
            return Some(Overdue::Role);
        }
        let renew = now >= self.since + READER_PATIENCE && !self.renewed;
        self.renewed |= renew;
        renew.then_some(Overdue::Reader)
    }
}
