//! Folding the commands behind the table's watermark, from a log that is known to be the one.
//!
//! ```text
//! p − 10,000             p, the table's position                            end
//!     │ remember the ids │ apply ─► view                                     │
//!     │                  │      └─► changes ─► batch ─► transaction          │
//!     next ──────────────────────────────────────────────────────────────►
//!
//! repair: from 0, apply ─► view, no batch, up to p ─► difference to the table ─► batch
//! ```
//!
//! The log is checked before the first record, after every failure, and every few seconds meanwhile; while a
//! check made by the way is under way, folding goes on. What is folded is written only once the log is
//! *vouched* for: a topic can be made anew without an error, and its reader goes on in the new one. So before
//! each transaction a record is asked for that is known to be the log's, and folding waits for the answer.
//! Until the ids are recovered, or the repair is done, the view is not *whole*, and nothing is written but
//! signs of life.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use super::batch::{Batch, Repair};
use super::{Halt, Reason, identity_of};
use crate::check::{CHECK_INTERVAL, Check, Step, Trouble, another_record};
use crate::command::CommandError;
use crate::ends::EndProof;
use crate::log::{Answer, Identity, Question, Request, Topic};
use crate::record::{Offset, Position, Record, Timestamp};
use crate::table::{Anchor, Table, Watermark};
use crate::view::{Applied, DUPLICATE_WINDOW, FutureCommand, View};

/// The view that the table is to hold, and what of it the table does not hold yet.
#[derive(Debug)]
pub(super) struct Folding {
    view: View,
    identity: Identity,
    batch: Batch,
    /// Set until the view has reached what a broken table claims to hold.
    repair: Option<Box<Repair>>,
    /// The next offset to read: before the view's position while ids are being recovered.
    next: Position,
    /// What is not folded yet: the rest of one delivery, once the batch is full.
    held: VecDeque<Record>,
    /// The check that is under way; none between two of them.
    check: Option<Check>,
    /// How far the view was when that check began.
    checking: Place,
    /// How far the view is known to be of the log, and by which record.
    vouched: Place,
    /// What is asked for before a transaction, and how far the view was then.
    vouching: Option<(Anchor, Place)>,
    vouch_failed: bool,
    /// When the log was last found to be the one; none before the first time.
    checked: Option<Instant>,
    /// Whether a reader of the commands is open.
    reading: bool,
    proof: EndProof,
    /// Since when the view is known to be at the log's end.
    proven: Option<Instant>,
    /// Set once nothing more is to be folded.
    farewell: Option<Farewell>,
}

/// How far a view is, and the last record in it.
type Place = (Position, Option<Anchor>);

/// What comes after the last transaction, which releases the role.
#[derive(Clone, Debug)]
pub(super) enum Farewell {
    /// The end: we were told to stop.
    Stop,
    /// A wait: the next command must not be folded.
    Halt(Halt),
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next {
    Nothing,
    /// Send these.
    Ask(Vec<Request>),
    /// The log is the one: read it from here.
    Open(Position),
    /// Close the reader and check the log again.
    Recheck,
}

impl Folding {
    /// Goes on from the view that a whole table holds, once its ids are recovered. `identity` is the log that
    /// the table was made from.
    pub(super) fn continuing(view: View, identity: Identity) -> Self {
        let next = view.position().back(DUPLICATE_WINDOW);
        let check = Check::new(view.position(), view.anchor(), next, Some(identity.clone()));
        let place = (view.position(), view.anchor());
        Self::new(view, identity, next, check, place)
    }

    /// Begins anew with the first command, in order to repair a table that contradicts its watermark. The log
    /// must still hold all commands, and the watermark's anchor: else the table was made from another one,
    /// and must not be mended from this.
    pub(super) fn repairing(table: Table, watermark: &Watermark) -> Self {
        let view = View::new(watermark.skipped.clone());
        let identity = identity_of(watermark);
        let Watermark { position, anchor, .. } = *watermark;
        let check = Check::new(position, anchor, Position::START, Some(identity.clone()));
        let repair = Some(Box::new(Repair::new(table, position)));
        Self { repair, ..Self::new(view, identity, Position::START, check, (Position::START, anchor)) }
    }

    fn new(view: View, identity: Identity, next: Position, check: Check, place: Place) -> Self {
        Self {
            view,
            identity,
            batch: Batch::default(),
            repair: None,
            next,
            held: VecDeque::new(),
            check: Some(check),
            checking: place,
            vouched: place,
            vouching: None,
            vouch_failed: false,
            checked: None,
            reading: false,
            proof: EndProof::default(),
            proven: None,
            farewell: None,
        }
    }

    /// Whether the view has not yet reached what a broken table claims to hold.
    pub(super) const fn is_repairing(&self) -> bool {
        self.repair.is_some()
    }

    /// Whether the view is one to write: not before its ids are recovered, nor half repaired.
    pub(super) fn is_whole(&self) -> bool {
        self.checked.is_some() && self.next >= self.view.position() && self.repair.is_none()
    }

    /// Whether records must wait: for a transaction to be answered, or for the log to be vouched for.
    pub(super) fn is_full(&self) -> bool {
        self.is_filled() || self.vouching.is_some()
    }

    /// Whether a transaction is full and another one under way.
    pub(super) fn is_filled(&self) -> bool {
        self.batch.is_full()
    }

    /// Whether records wait here that could be folded now.
    pub(super) fn has_work(&self) -> bool {
        !self.held.is_empty() && !self.is_full()
    }

    /// Whether it is time for a transaction, the last one was begun at `written`: there are commands to
    /// commit, or there are provably none and it is time to say so. Without that proof a quiet projector says
    /// nothing, so that one that is cut off from the commands does not look alive.
    pub(super) fn is_due(&self, written: Instant, now: Instant) -> bool {
        let quiet = self.batch.is_empty() && now >= written + super::WATERMARK_INTERVAL;
        let fresh = self.proven.is_some_and(|proven| proven >= written);
        self.is_whole() && (self.farewell.is_some() || self.batch.is_due(now) || quiet && fresh)
    }

    /// Whether all of the view is known to be of the log.
    pub(super) fn is_vouched(&self) -> bool {
        self.vouched.1.is_none() || self.vouched.0 >= self.view.position()
    }

    /// Asks whether the log still is the one, for all that was folded.
    pub(super) fn vouch(&mut self) -> Option<Request> {
        let anchor = self.vouched.1.filter(|_| self.vouching.is_none())?;
        self.vouching = Some((anchor, self.place()));
        Some(Request::Ask(Question::RecordAt(anchor.offset)))
    }

    fn place(&self) -> Place {
        (self.view.position(), self.view.anchor())
    }

    /// Notes that the view up to there is of the log.
    fn known(&mut self, place: Place) {
        if place.0 >= self.vouched.0 && place.1.is_some() {
            self.vouched = place;
        }
    }

    /// Takes in the answer to what was asked before a transaction.
    fn judge_vouched(&mut self, answer: &Answer) -> Result<Next, Trouble> {
        match answer {
            // Asked again with the next tick, so that a question that always fails does not become a loop.
            Answer::Failed(Question::RecordAt(_), _) => self.vouch_failed = true,
            Answer::RecordAt(offset, record) => {
                let asked = self.vouching.take_if(|(anchor, _)| anchor.offset == *offset);
                let Some((anchor, place)) = asked else { return Ok(Next::Nothing) };
                match record {
                    Some(record) if Anchor::of(record) == anchor => self.known(place),
                    Some(_) => return Err(another_record(anchor)),
                    // Retention took it, or the log lost it: the full check tells.
                    None => return Ok(Next::Recheck),
                }
            }
            _ => {}
        }
        Ok(Next::Nothing)
    }

    /// What is to be written next.
    pub(super) const fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// Since when the view is known to be at the log's end; none before the first proof.
    pub(super) const fn proven(&self) -> Option<Instant> {
        self.proven
    }

    /// What comes after the last transaction; none while there is more to fold.
    pub(super) const fn farewell(&self) -> Option<&Farewell> {
        self.farewell.as_ref()
    }

    /// Ends the fold; one more transaction follows.
    pub(super) fn part(&mut self, farewell: Farewell) {
        self.held.clear();
        self.vouching = None;
        self.farewell = Some(farewell);
    }

    /// What the table holds once the batch is in it.
    pub(super) fn watermark(&self, projector: &str, written_at: Timestamp) -> Watermark {
        let blacklist = self.view.blacklist();
        Watermark {
            position: self.view.position(),
            anchor: self.view.anchor(),
            rows: blacklist.row_counts().total(),
            fingerprint: blacklist.fingerprint(),
            skipped: self.view.skipped().clone(),
            cluster_id: self.identity.cluster_id.clone(),
            commands_topic: self.identity.commands_topic.clone(),
            projector: projector.to_owned(),
            released: self.farewell.is_some(),
            written_at,
        }
    }

    /// Takes in records that come next; [`Folding::fold`] folds them.
    pub(super) fn hold(&mut self, records: Vec<Record>) {
        self.held.extend(records);
    }

    /// Folds what is held, up to a full batch or a command that must not be folded; returns what is no
    /// command.
    ///
    /// # Errors
    /// When a repair can't get as far as it must.
    pub(super) fn fold(
        &mut self,
        skip: &BTreeSet<Offset>,
        now: Instant,
    ) -> Result<Vec<(Offset, CommandError)>, Halt> {
        let mut undecodable = Vec::new();
        while !self.is_full()
            && let Some(record) = self.held.pop_front()
        {
            match self.fold_record(&record, skip, now) {
                Ok(why) => undecodable.extend(why.map(|why| (record.offset, why))),
                Err(future) => self.stop_at(&future, now)?,
            }
        }
        self.prove();
        Ok(undecodable)
    }

    /// Folds one record, or remembers its id if the table has it in; returns what is wrong with it.
    fn fold_record(
        &mut self,
        record: &Record,
        skip: &BTreeSet<Offset>,
        now: Instant,
    ) -> Result<Option<CommandError>, FutureCommand> {
        if record.offset.position() < self.view.position() {
            self.view.remember(record);
            self.next = record.offset.next();
            return Ok(None);
        }
        let Applied { changes, undecodable, .. } = match self.view.apply(record) {
            // Only what stops the fold is passed over: other readers have folded everything else.
            Err(future) if skip.contains(&future.offset) => {
                self.view.skip(future.offset);
                self.view.apply(record)?
            }
            applied => applied?,
        };
        self.next = record.offset.next();
        // The first record of all shows which log it is.
        if self.vouched.1.is_none() {
            self.vouched = self.place();
        }
        // A repair writes one difference at its end, and none of the changes on its way.
        if self.repair.is_none() {
            self.batch.add(&changes, now);
        }
        Ok(undecodable)
    }

    /// Stops before a command of the future: what stands before it is written and the role released. A repair
    /// that does not get as far as the table claims to be has nothing to write.
    fn stop_at(&mut self, future: &FutureCommand, now: Instant) -> Result<(), Halt> {
        let halt = Halt {
            reason: Reason::FutureCommand(future.offset),
            message: format!("{future}: upgrade portcullis, or `project --skip-offset {}`", future.offset),
        };
        let _news = self.reached(future.offset.position(), now);
        if self.is_repairing() {
            return Err(halt);
        }
        self.part(Farewell::Halt(halt));
        Ok(())
    }

    /// Notes that every record before a position was folded; says whether that is news.
    pub(super) fn reached(&mut self, position: Position, now: Instant) -> bool {
        let news = position > self.next;
        self.next = self.next.max(position);
        if position > self.view.position() {
            self.view.advance_to(position);
            if self.repair.is_none() {
                self.batch.touch(now);
            }
        }
        if let Some(repair) = self.repair.take_if(|repair| repair.is_reached(&self.view)) {
            self.batch = repair.difference(&self.view, now);
        }
        self.prove();
        news
    }

    /// Asks once more whether the log is the one, before anything more is read.
    ///
    /// What is held is dropped and read again: it may be of another log. A check that nothing was read under
    /// goes on, so that a log whose end lags is judged over the whole time and not from each failure anew.
    pub(super) fn recheck(&mut self) {
        self.held.clear();
        self.proof.forget();
        self.vouching = None;
        self.checking = self.place();
        let (position, anchor) = (self.view.position(), self.vouched.1);
        self.check = Some(Check::new(position, anchor, self.next, Some(self.identity.clone())));
        self.reading = false;
    }

    /// Asks again for what was asked and not answered.
    pub(super) fn ask_again(&mut self) {
        self.vouching = None;
        if let Some(check) = &mut self.check {
            check.ask_again();
        }
    }

    /// Asks what is due. While all is well the log is checked too: a reader keeps its offset when a topic is
    /// made anew, and goes on as if nothing had happened.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Request> {
        if std::mem::take(&mut self.vouch_failed) {
            self.vouching = None;
        }
        if self.check.is_none() && self.checked.is_some_and(|checked| now >= checked + CHECK_INTERVAL) {
            self.checking = self.place();
            let (position, anchor) = (self.view.position(), self.vouched.1);
            self.check = Some(Check::new(position, anchor, position, None));
        }
        self.check.as_mut().map(|check| check.questions()).unwrap_or_default()
    }

    /// Takes in an answer; `asked` is when the question for the ends was sent, if it is one to that.
    ///
    /// # Errors
    /// When the log is not the one, or no longer holds what is needed.
    pub(super) fn answered(
        &mut self,
        answer: &Answer,
        asked: Option<Instant>,
        now: Instant,
    ) -> Result<Next, Trouble> {
        if let (Answer::Ends(Topic::Commands, ends), Some(asked)) = (answer, asked) {
            self.proof.answered(asked, *ends);
        }
        let vouched = self.judge_vouched(answer)?;
        let next = self.judge(answer, now)?;
        self.prove();
        Ok(if matches!(vouched, Next::Recheck) { vouched } else { next })
    }

    /// Judges an answer by the check under way, and begins to read once it has passed.
    fn judge(&mut self, answer: &Answer, now: Instant) -> Result<Next, Trouble> {
        let Some(check) = &mut self.check else { return Ok(Next::Nothing) };
        Ok(match check.answered(answer, now)? {
            Step::Wait => Next::Nothing,
            Step::Ask(questions) => Next::Ask(questions),
            Step::Passed => {
                (self.check, self.checked) = (None, Some(now));
                self.known(self.checking);
                let opened = std::mem::replace(&mut self.reading, true);
                if opened { Next::Nothing } else { Next::Open(self.next) }
            }
        })
    }

    /// Only a log that is known to be the one proves anything: another one may happen to be just as long.
    fn prove(&mut self) {
        if self.check.is_none() && self.is_whole() && self.held.is_empty() {
            self.proven = self.proof.reached(self.view.position()).or(self.proven);
        }
    }
}
