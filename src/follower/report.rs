//! What a follower says of itself: how far it has got, since when it is known to be at the end of the log,
//! and what stands in its way.

use std::time::Instant;

use super::{Effect, Follower, Stage};
use crate::log::Ends;
use crate::status::{Alarm, Degraded, Detail, Phase};
use crate::view::View;

impl Follower {
    /// Notes where the log ends, and an open transaction that hides its end. Any other reason to be degraded
    /// says more than that one, and is left alone.
    pub(super) fn note_ends(&mut self, ends: Ends, now: Instant) {
        self.status.set_log_end(ends.high);
        let hidden = self.ends.is_hidden(now);
        match self.detail.degraded {
            None if hidden => self.detail.degraded = Some(Degraded::OpenTransaction),
            Some(Degraded::OpenTransaction) if !hidden => self.detail.degraded = None,
            _ => {}
        }
    }

    /// Notes the time since which the served view is known to be at the end of the log. Only a view whose
    /// log was checked proves anything: a recreated topic may happen to be just as long.
    pub(super) fn prove(&mut self) {
        if let Stage::Reading(reading) = &self.stage
            && reading.candidate.is_none()
            && reading.feed.is_reading()
            && let Some(proven) = self.ends.reached(self.served.with_view(View::position))
        {
            self.effects.push(Effect::Proven(proven));
            self.detail.message = None;
        }
    }

    /// Writes the status anew if it changed. The phase of an alarm, refused settings and unanswered questions
    /// are put over a copy, so that what they hide is back as soon as they end.
    pub(super) fn report(&mut self) {
        let totals = self.served.totals();
        self.detail.position = totals.position;
        self.detail.rows = totals.rows;
        self.detail.fingerprint = totals.fingerprint;
        self.detail.refused = totals.refused;
        if let Stage::Loading(loading) = &self.stage {
            self.detail.records_read = loading.records_read();
        }
        let mut shown = self.detail.clone();
        // Why the phase is what it is says more than what could not be found out since.
        if shown.message.is_none() {
            shown.message = self.unanswered.reason().map(str::to_owned);
        }
        if let Some(reason) = self.settings_watch.refused() {
            show_refused_settings(&mut shown, reason);
        }
        if shown.alarm.is_some() {
            shown.phase = Phase::Alarm;
        }
        if *self.status.detail() != shown {
            self.status.set_detail(shown);
        }
    }
}

/// Says that the topics are not set as they must be, unless there is worse to say.
fn show_refused_settings(detail: &mut Detail, reason: &str) {
    match (detail.alarm, detail.degraded) {
        (None, _) if !detail.ready => detail.alarm = Some(Alarm::TopicSettings),
        (None, None) => detail.degraded = Some(Degraded::TopicSettings),
        _ => return,
    }
    detail.message = Some(reason.to_owned());
}
