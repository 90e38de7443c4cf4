//! Folding what is read, into a view that catches up or into the one that is served; and stopping at a
//! command of the future.
//!
//! ```text
//! Records ─► candidate?  yes ─► before its position: remember the id;  else: apply      nothing is published
//!                               … but if it is where the log told that it ends: serve it, Publish
//!                        no  ─► Served::fold, 128 at a time ─► draft ─► Publish after each
//! End     ─► candidate?  yes ─► at its position or beyond: serve it, Publish
//!                        no  ─► advance over marks, Publish
//! Failed  ─► check the log again, then read on
//! ```
//!
//! Caught up means the *end* that the reader reports: what stands last in the log may be a mark, which no
//! reader delivers, so that no offset of a record ever gets there. A log that never rests has no such end;
//! there it is the stable end that the log told after the reader was opened.

use std::time::Duration;

use super::{BOOTSTRAP_WAIT_MAX, Candidate, Clocks, Effect, Follower, Source, Stage};
use crate::check::Trouble;
use crate::log::{ReadEvent, Request, Topic};
use crate::record::{Position, Record};
use crate::snapshot::Draft;
use crate::status::{Degraded, Detail, Phase};
use crate::view::{FutureCommand, View};

/// The most records that are folded under the view's mutex at once, and shown by one snapshot: few enough
/// that nobody waits long for the mutex, and enough that publishing costs little beside folding.
const PUBLISH_RECORDS_MAX: usize = 128;

impl Follower {
    /// Takes in what the reader of the commands reports. Reports come from the open session only, and that is
    /// opened once the log was checked.
    pub(super) fn read_commands(&mut self, event: ReadEvent, clocks: Clocks) {
        let Stage::Reading(reading) = &mut self.stage else { return };
        if let Err(trouble) = reading.feed.judge(&event) {
            return self.stumble(trouble, clocks);
        }
        match event {
            ReadEvent::Failed(reason) => {
                self.detail.message = Some(reason);
                self.pause(clocks);
            }
            // They may be another log's: read again once it is known that they are not.
            ReadEvent::Records(_) | ReadEvent::End(_) if !reading.feed.is_trusted(clocks.now) => {
                return self.recheck(clocks);
            }
            ReadEvent::Records(records) => {
                reading.feed.progress(&records, clocks.now);
                let caught_up = reading.candidate.is_none();
                let future =
                    if caught_up { self.fold_served(&records) } else { self.fold_candidate(&records) };
                match future {
                    Some(future) => self.stop_at(&future, clocks),
                    None => self.take_over_in_motion(clocks),
                }
            }
            ReadEvent::End(position) => {
                // The end may lie behind the last record: the feed must know, or it would seem to stand
                // still.
                reading.feed.reached(position);
                // A reader that got there works, though a quiet log gives it nothing: when it fails after days,
                // failures of long ago must not make the next one wait.
                reading.waits.reset();
                // The end of a log whose new leader lags: the ids before the table are not all read yet.
                // It is reported again once there is more, so that the candidate just waits.
                let early = |candidate: &mut Candidate| position >= candidate.view.position();
                let caught_up = reading.candidate.is_none();
                match reading.candidate.take_if(early) {
                    Some(candidate) => self.take_over(candidate, position, clocks),
                    None if caught_up => self.advance(position),
                    None => {}
                }
            }
        }
        self.prove();
    }

    /// Closes the reader that failed. The log is checked again at once if that reader had read anything, else
    /// after a wait, so that a reader that always fails does not become a loop.
    fn pause(&mut self, clocks: Clocks) {
        let Stage::Reading(reading) = &mut self.stage else { return };
        let wait = if reading.feed.suspend() {
            reading.waits.reset();
            Duration::ZERO
        } else {
            reading.waits.wait()
        };
        // The next tick after this asks again; until then the feed is suspended and asks nothing.
        reading.resume_at = Some(clocks.now + wait);
        self.request([Request::Close(Topic::Commands)]);
        if wait.is_zero() {
            self.recheck(clocks);
        }
    }

    /// Folds into the candidate; returns a command of the future, with everything before it folded.
    ///
    /// After a bootstrap from a table, the first records lie before the view's position: their effects are in
    /// its rows, and only their ids are missing.
    fn fold_candidate(&mut self, records: &[Record]) -> Option<FutureCommand> {
        let Stage::Reading(reading) = &mut self.stage else { return None };
        let candidate = reading.candidate.as_mut()?;
        self.detail.records_read += records.len() as u64;
        for record in records {
            if record.offset.position() < candidate.view.position() {
                candidate.view.remember(record);
                continue;
            }
            match candidate.view.apply(record) {
                Err(future) => return Some(future),
                Ok(applied) => {
                    if let Err(refusal) = applied.outcome {
                        candidate.refused.count(refusal);
                    }
                    self.effects
                        .extend(applied.undecodable.map(|why| Effect::Undecodable(record.offset, why)));
                }
            }
        }
        None
    }

    /// Folds into the view that is served and publishes after each part; returns a command of the future,
    /// with everything before it folded and published.
    fn fold_served(&mut self, records: &[Record]) -> Option<FutureCommand> {
        let draft = self.draft.as_mut()?;
        // What the reader began with is in already.
        let position = self.served.with_view(View::position);
        let folded = records.partition_point(|record| record.offset.position() < position);
        for records in records.get(folded..)?.chunks(PUBLISH_RECORDS_MAX) {
            let folded = self.served.fold(records, draft);
            self.effects.push(Effect::Publish(draft.snapshot(self.served.with_view(View::position))));
            let tell = folded.undecodable.into_iter().map(|(offset, why)| Effect::Undecodable(offset, why));
            self.effects.extend(tell);
            if folded.future.is_some() {
                return folded.future;
            }
        }
        None
    }

    /// Moves the served position to the end of the log, over marks and aborted records. It is published,
    /// because who waits for a position would otherwise wait for the next command.
    fn advance(&mut self, position: Position) {
        let Some(draft) = &self.draft else { return };
        if self.served.with_view(View::position) < position {
            self.served.advance_to(position);
            self.effects.push(Effect::Publish(draft.snapshot(position)));
        }
    }

    /// Serves a view that holds all that was in the log when it was begun to be read. A log that never rests
    /// shows its readers no end.
    fn take_over_in_motion(&mut self, clocks: Clocks) {
        let Stage::Reading(reading) = &mut self.stage else { return };
        let is_shown = reading.feed.is_reading();
        let caught_up = |it: &mut Candidate| is_shown && self.ends.is_caught_up(it.view.position());
        if let Some(candidate) = reading.candidate.take_if(caught_up) {
            let position = candidate.view.position();
            self.take_over(candidate, position, clocks);
        }
    }

    /// Serves a view that has caught up, unless that would take what is served back.
    fn take_over(&mut self, mut candidate: Candidate, end: Position, clocks: Clocks) {
        candidate.view.advance_to(end);
        let served = self.draft.is_some().then(|| self.served.with_view(View::position));
        // An older view would free what was blacklisted since, for as long as it takes to fold it again.
        let behind = served.is_some_and(|served| candidate.view.position() < served);
        if behind && self.detail.alarm.is_none() {
            let reason = format!(
                "the table leads to position {} only, before the one that is served",
                candidate.view.position()
            );
            return self.stumble(Trouble::Again(reason), clocks);
        }
        if let Some(trouble) = self.doubt(&candidate) {
            return self.stumble(trouble, clocks);
        }
        self.serve(candidate, clocks);
        self.detail.phase = Phase::Following;
        self.backoff.reset();
    }

    /// Why a candidate is not to be served though it got far enough: it comes of a new table on another log,
    /// and would free everything, though it says nothing of what was lost, however long that log has become.
    fn doubt(&self, candidate: &Candidate) -> Option<Trouble> {
        let reason = "the table holds nothing yet that would show which log it belongs to";
        let doubtful = self.detail.alarm.is_some() && self.draft.is_some() && !candidate.anchored;
        doubtful.then(|| Trouble::AnotherLog(reason.to_owned()))
    }

    /// Makes a candidate the view that is served. All reasons to be degraded or in alarm were of the way to
    /// it, and end here.
    fn serve(&mut self, candidate: Candidate, clocks: Clocks) {
        let draft = Draft::new(&candidate.view, clocks.wall);
        self.effects.push(Effect::Publish(draft.snapshot(candidate.view.position())));
        self.draft = Some(draft);
        self.served.replace(candidate.view, candidate.refused);
        self.detail = Detail { ready: true, records_read: self.detail.records_read, ..Detail::default() };
    }

    /// Stops folding at a command of the future, and keeps serving what is before it. A candidate that stops
    /// there is served as well, if it is ahead of what is: it is as far as this release can get.
    fn stop_at(&mut self, future: &FutureCommand, clocks: Clocks) {
        let candidate = match &mut self.stage {
            Stage::Reading(reading) => reading.candidate.take(),
            _ => None,
        };
        let served = self.draft.is_some().then(|| self.served.with_view(View::position));
        if let Some(candidate) =
            candidate.filter(|it| served.is_none_or(|served| it.view.position() > served))
        {
            if let Some(trouble) = self.doubt(&candidate) {
                return self.stumble(trouble, clocks);
            }
            self.serve(candidate, clocks);
        }
        self.detail.phase = Phase::Following;
        self.detail.degraded = Some(Degraded::FutureCommand(future.offset));
        let offset = future.offset;
        let pass_over = match self.settings.source {
            Source::Table => format!("`portcullis project --skip-offset {offset}`"),
            Source::Commands => format!("skip_offsets = [{offset}] in [log]"),
        };
        self.detail.message = Some(format!("{future}: upgrade portcullis, or pass over it by {pass_over}"));
        // The reader may have delivered more already; with its session it counts for nothing.
        self.request([Request::Close(Topic::Commands)]);
        self.session = self.session.next();
        // With a table, an operator can lead around the command; without one, only a restart does.
        let again = clocks.now + BOOTSTRAP_WAIT_MAX.div_f64(2.0) + self.backoff.wait();
        self.stage = Stage::Waiting((self.settings.source == Source::Table).then_some(again));
    }
}
