//! Asking, while the log is read, whether it still is the one.
//!
//! A topic can be deleted and made anew within milliseconds, and its reader goes on in the new one without an
//! error. What a projector wrote of that would stay, and look right to everybody who comes later. So before
//! each transaction the record is asked for that the log is known by, and folding waits for the answer:
//!
//! ```text
//! folded    810 │ 811 812 │ 813 …
//! asked for         810?      812?
//! answer       the same: write    the same: write, and 813 is what the log is known by
//! ```
//!
//! Asked for is never a record that was folded since the last answer, for that may be the other log's own.

use std::time::Instant;

use crate::check::{CHECK_INTERVAL, Trouble, another_record};
use crate::log::{Answer, Question, Request};
use crate::record::Position;
use crate::table::Anchor;

/// How far a view is, and the last record in it.
pub(super) type Place = (Position, Option<Anchor>);

/// How far the view is known to be of the log.
#[derive(Debug)]
pub(super) struct Vouch {
    /// As far as this, and by this record.
    known: Place,
    asked: Option<Asked>,
    /// When the log was last asked; none before it was found to be the one for the first time.
    sent: Option<Instant>,
}

/// The question under way.
#[derive(Debug)]
struct Asked {
    record: Anchor,
    /// How far the view was when it was asked.
    place: Place,
    /// Whether there was no answer; then it is asked again with the next tick, and not at once, so that a
    /// question that always fails does not become a loop.
    failed: bool,
}

/// What comes of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Vouched {
    /// Nothing, or what was to be known.
    Fine,
    /// The record is gone: retention took it, or the log lost it. The full check tells.
    Lost,
}

impl Vouch {
    /// Nothing is asked yet.
    pub(super) const fn new(known: Place) -> Self {
        Self { known, asked: None, sent: None }
    }

    /// The record that the log is known by; none if nothing is known, so that any log is the one.
    pub(super) const fn record(&self) -> Option<Anchor> {
        self.known.1
    }

    /// Whether a view up to there is known to be of the log.
    pub(super) fn holds(&self, position: Position) -> bool {
        self.known.1.is_none() || self.known.0 >= position
    }

    /// Whether an answer is awaited.
    pub(super) const fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Notes that a record was folded. Of a log of which nothing is known, the first one shows which it is.
    pub(super) fn folded(&mut self, place: Place) {
        if self.known.1.is_none() {
            self.known = place;
        }
    }

    /// Notes that the full check has passed, which is as good as an answer, but for what was folded since.
    pub(super) const fn checked(&mut self, now: Instant) {
        self.sent = Some(now);
    }

    /// Gives up the question under way.
    pub(super) fn forget(&mut self) {
        self.asked = None;
    }

    /// Asks for all that is in a view by now; one question at a time.
    pub(super) fn ask(&mut self, place: Place, now: Instant) -> Option<Request> {
        let record = self.known.1.filter(|_| self.asked.is_none())?;
        self.asked = Some(Asked { record, place, failed: false });
        self.sent = Some(now);
        Some(Request::Ask(Question::RecordAt(record.offset)))
    }

    /// Asks again what failed, and every now and then though nothing is to be written.
    pub(super) fn tick(&mut self, place: Place, now: Instant) -> Option<Request> {
        if let Some(Asked { record, failed, .. }) = &mut self.asked {
            return std::mem::take(failed).then_some(Request::Ask(Question::RecordAt(record.offset)));
        }
        let due = self.sent.is_some_and(|sent| now >= sent + CHECK_INTERVAL);
        if due { self.ask(place, now) } else { None }
    }

    /// Takes in an answer.
    ///
    /// # Errors
    /// [`Trouble::AnotherLog`] if the log has another record there.
    pub(super) fn answered(&mut self, answer: &Answer) -> Result<Vouched, Trouble> {
        let ours = |asked: &mut Asked| answer.question() == Question::RecordAt(asked.record.offset);
        let Some(asked) = self.asked.take_if(ours) else { return Ok(Vouched::Fine) };
        match answer {
            Answer::RecordAt(_, Some(record)) if Anchor::of(record) == asked.record => {
                self.known = asked.place;
                Ok(Vouched::Fine)
            }
            Answer::RecordAt(_, Some(_)) => Err(another_record(asked.record)),
            Answer::RecordAt(_, None) => Ok(Vouched::Lost),
            _ => {
                self.asked = Some(Asked { failed: true, ..asked });
                Ok(Vouched::Fine)
            }
        }
    }
}
