//! Are the topics set as they must be? A commands topic that forgets, or a table topic that deletes, gives a
//! wrong list without any error. Part of both state machines: it only says what to ask, and judges answers.
//!
//! Which settings are wrong is for the log to say, in words; here it is only kept. What follows from it is
//! for the state machines: found wrong before anything is served, nothing is begun; found later, what works
//! goes on, and says that it is degraded. A question that failed changes neither: to know nothing yet is not
//! the same as to know that all is well, so that nothing is begun on it either.

use std::time::{Duration, Instant};

use crate::log::{Answer, Question, Request};

/// How often settings that are as they must be are looked at again: they change by an operator's hand only.
pub const SETTINGS_INTERVAL: Duration = Duration::from_secs(3_600);
/// How often those are that are not.
pub const REFUSED_INTERVAL: Duration = Duration::from_secs(60);
/// How soon after a question that failed.
const FAILED_INTERVAL: Duration = Duration::from_secs(1);

/// Watches the settings of the topics: [`SettingsWatch::ask`] with every tick, and
/// [`SettingsWatch::answered`] with every answer, whatever it answers.
#[derive(Debug, Default)]
pub struct SettingsWatch {
    known: Known,
    /// Whether a question is asked and not answered; there is one at a time.
    under_way: bool,
    /// When to ask next; at once if never asked.
    due: Option<Instant>,
}

/// What is known of the settings.
#[derive(Debug, Default)]
enum Known {
    #[default]
    Nothing,
    Good,
    /// They must not be so, for this reason.
    Refused(String),
}

impl SettingsWatch {
    /// The question, when it is due.
    pub fn ask(&mut self, now: Instant) -> Option<Request> {
        if self.under_way || self.due.is_some_and(|due| now < due) {
            return None;
        }
        self.under_way = true;
        Some(Request::Ask(Question::TopicSettings))
    }

    /// Takes in an answer, if it is one to this question.
    pub fn answered(&mut self, answer: &Answer, now: Instant) {
        let wait = match answer {
            Answer::TopicSettings(Ok(())) => {
                self.known = Known::Good;
                SETTINGS_INTERVAL
            }
            Answer::TopicSettings(Err(reason)) => {
                self.known = Known::Refused(reason.clone());
                REFUSED_INTERVAL
            }
            Answer::Failed(Question::TopicSettings, _) => match self.known {
                Known::Nothing => FAILED_INTERVAL,
                Known::Good | Known::Refused(_) => REFUSED_INTERVAL,
            },
            _ => return,
        };
        (self.under_way, self.due) = (false, Some(now + wait));
    }

    /// Asks again for what was asked and not answered: the client that would have answered is gone, or what
    /// it says is to be dropped.
    pub fn ask_again(&mut self) {
        if std::mem::take(&mut self.under_way) {
            self.due = None;
        }
    }

    /// Forgets what was found and asks anew, before something is begun that needs it to be true now.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether the settings were found to be as they must be, when they were last looked at.
    pub const fn are_good(&self) -> bool {
        matches!(self.known, Known::Good)
    }

    /// Why the settings must not be as they are; none if they are good or not known.
    pub fn refused(&self) -> Option<&str> {
        match &self.known {
            Known::Refused(reason) => Some(reason),
            Known::Nothing | Known::Good => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_settings_are_looked_at_hourly_and_others_every_minute() {
        let start = Instant::now();
        let mut watch = SettingsWatch::default();
        let mut look = |at: Duration, found: Result<(), String>| {
            let before = at.checked_sub(Duration::from_millis(1)).map(|at| watch.ask(start + at));
            assert!(before.flatten().is_none(), "it is asked before {at:?}");
            assert!(watch.ask(start + at).is_some(), "it is not asked at {at:?}");
            watch.answered(&Answer::TopicSettings(found), start + at);
            (watch.are_good(), watch.refused().map(str::to_owned))
        };
        let refused = || Err("cleanup.policy=delete".to_owned());
        assert_eq!(look(Duration::ZERO, Ok(())), (true, None));
        assert_eq!(look(SETTINGS_INTERVAL, refused()), (false, refused().err()));
        assert_eq!(look(SETTINGS_INTERVAL + REFUSED_INTERVAL, Ok(())), (true, None));
    }

    #[test]
    fn a_question_that_failed_or_was_dropped_is_asked_again_and_changes_nothing() {
        let start = Instant::now();
        let mut watch = SettingsWatch::default();
        assert!(watch.ask(start).is_some());
        assert!(watch.ask(start).is_none(), "one is under way");
        watch.ask_again();
        assert!(watch.ask(start).is_some());
        watch.answered(&Answer::Failed(Question::TopicSettings, "no broker".to_owned()), start);
        assert!((watch.ask(start), watch.are_good(), watch.refused()) == (None, false, None));
        assert!(watch.ask(start + FAILED_INTERVAL).is_some());
        watch.answered(&Answer::TopicSettings(Ok(())), start);
        watch.ask_again();
        assert!(watch.ask(start + FAILED_INTERVAL).is_none(), "nothing was under way");
    }
}
