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
//! The log is checked before the first record and after every failure. What is folded is written only once the
//! log is *vouched* for: before each transaction a record is asked for that the log is known by, and folding
//! waits for the answer. Until the ids are recovered, or the repair is done, the view is not *whole*, and
//! nothing is written but signs of life.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use super::batch::{Batch, Repair};
use super::vouch::{Place, Vouch, Vouched};
use super::{Halt, Reason, identity_of};
use crate::check::{Check, Seam, Step, Trouble};
use crate::command::CommandError;
use crate::ends::EndProof;
use crate::log::{Answer, Identity, ReadEvent, Request, Topic};
use crate::record::{Offset, Position, Record, Timestamp};
use crate::table::{Table, Watermark};
use crate::view::{Applied, DUPLICATE_WINDOW, FutureCommand, View};

/// The view that the table is to hold, and what of it the table does not hold yet.
#[derive(Debug)]
pub(super) struct Folding {
    view: View,
    identity: Identity,
    batch: Batch,
    /// Set until the view has reached what a broken table claims to hold, or the end, for a rebuild.
    repair: Option<Box<Repair>>,
    /// What follows once that is so: the end, for a rebuild.
    after_repair: Option<Farewell>,
    /// How many keys the repair writes and takes away.
    repaired: (usize, usize),
    /// The next offset to read: before the view's position while ids are being recovered.
    next: Position,
    /// What is not folded yet: the rest of one delivery, once the batch is full.
    held: VecDeque<Record>,
    /// The check that is under way; none between two of them.
    check: Option<Check>,
    /// Whether the log was found to be the one.
    checked: bool,
    /// Whether it still is, behind what was folded since.
    vouch: Vouch,
    /// Where the reader of the commands began; none if there is no reader.
    seam: Option<Seam>,
    proof: EndProof,
    /// Since when the view is known to be at the log's end.
    proven: Option<Instant>,
    /// Set once nothing more is to be folded.
    farewell: Option<Farewell>,
}

/// What comes after the last transaction, which releases the role.
#[derive(Clone, Debug)]
pub(super) enum Farewell {
    /// The end: we were told to stop.
    Stop,
    /// The end: the table is written anew.
    Rebuilt,
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
        Self::new(view, identity, next, None)
    }

    /// Begins anew with the first command, in order to repair a table that contradicts its watermark. The log
    /// must still hold all commands, and the watermark's anchor: else the table was made from another one,
    /// and must not be mended from this.
    pub(super) fn repairing(table: Table, watermark: &Watermark) -> Self {
        let view = View::new(watermark.skipped.clone());
        let repair = Repair::to(table, watermark.position, watermark.anchor);
        Self::new(view, identity_of(watermark), Position::START, Some(repair))
    }

    /// Begins anew with the first command of the log with this name, in order to write the table anew. What
    /// the table says is passed over in this log is passed over, because other readers do so.
    pub(super) fn rebuilding(table: Table, identity: Identity) -> Self {
        let ours = |it: &&Watermark| identity_of(it) == identity && !it.skipped.is_empty();
        let believed = table.watermark().and_then(|watermark| watermark.as_ref().ok()).filter(ours);
        let view = View::new(believed.map(|watermark| watermark.skipped.clone()).unwrap_or_default());
        // Another log may have the same name: the anchor tells.
        let place = believed.map(|watermark| (watermark.position, watermark.anchor));
        let folding = Self::new(view, identity, Position::START, Some(Repair::to_end(table, place)));
        Self { after_repair: Some(Farewell::Rebuilt), ..folding }
    }

    fn new(view: View, identity: Identity, next: Position, repair: Option<Repair>) -> Self {
        let mut folding = Self {
            view,
            identity,
            batch: Batch::default(),
            repair: repair.map(Box::new),
            after_repair: None,
            repaired: (0, 0),
            next,
            held: VecDeque::new(),
            check: None,
            checked: false,
            vouch: Vouch::new((Position::START, None)),
            seam: None,
            proof: EndProof::default(),
            proven: None,
            farewell: None,
        };
        // A repair begins before the record that it must find.
        folding.vouch = Vouch::new((folding.view.position(), folding.place().1));
        folding.recheck();
        folding
    }

    /// How far the view is.
    fn folded(&self) -> Place {
        (self.view.position(), self.view.anchor())
    }

    /// Position and anchor that the log must hold: what was folded last, or what the table claims to be made
    /// from, for as long as it is being repaired.
    fn place(&self) -> Place {
        let claimed = self.repair.as_ref().and_then(|repair| repair.place());
        claimed.unwrap_or_else(|| self.folded())
    }

    /// Whether the view has not yet reached what a broken table claims to hold.
    pub(super) const fn is_repairing(&self) -> bool {
        self.repair.is_some()
    }

    /// How far a repair has got, and how far it must get; none if it is done or that is not known.
    pub(super) fn repair_progress(&self) -> Option<(Position, Position)> {
        let reach = self.repair.as_ref().and_then(|repair| repair.reach());
        reach.map(|reach| (self.view.position().min(reach), reach))
    }

    /// How many keys the repair writes, and how many it takes away.
    pub(super) const fn repaired(&self) -> (usize, usize) {
        self.repaired
    }

    /// Whether the view is one to write: not before its ids are recovered, nor half repaired.
    pub(super) fn is_whole(&self) -> bool {
        self.checked && self.next >= self.view.position() && self.repair.is_none()
    }

    /// Whether records must wait: for a transaction to be answered, or for the log to be vouched for before
    /// the next one.
    pub(super) fn is_full(&self) -> bool {
        self.is_filled() || self.vouch.is_asked()
    }

    /// Whether no further command may be added to the next transaction.
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
        self.vouch.holds(self.view.position())
    }

    /// Asks whether the log still is the one, for all that was folded; not while the full check is under way,
    /// which would take the answer for its own.
    pub(super) fn vouch(&mut self, now: Instant) -> Option<Request> {
        let folded = self.folded();
        self.check.is_none().then(|| self.vouch.ask(folded, now)).flatten()
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
        self.vouch.forget();
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

    /// Judges what the reader reports, before anything is made of it.
    ///
    /// # Errors
    /// When it reads another log than the one that was folded.
    pub(super) fn meet(&mut self, event: &ReadEvent) -> Result<(), Trouble> {
        self.seam.as_mut().map_or(Ok(()), |seam| seam.judge(event))
    }

    /// Takes in records that come next; [`Folding::fold`] folds them. Says whether any of them is news.
    pub(super) fn hold(&mut self, records: Vec<Record>) -> bool {
        let news = records.last().is_some_and(|last| last.offset.next() > self.next);
        self.held.extend(records);
        news
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
            // A log that never rests shows its readers no end.
            self.end_repair(now);
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
            self.next = self.next.max(record.offset.next());
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
        self.vouch.folded(self.folded());
        // A repair writes one difference at its end, and none of the changes on its way.
        if self.repair.is_none() {
            self.batch.add(&changes, now);
        }
        Ok(undecodable)
    }

    /// Stops before a command of the future: what stands before it is written and the role released. A repair
    /// that does not get as far as the table claims to be has nothing to write.
    fn stop_at(&mut self, future: &FutureCommand, now: Instant) -> Result<(), Halt> {
        let (offset, rebuilds) = (future.offset, self.after_repair.is_some());
        let verb = if rebuilds { "table rebuild" } else { "project" };
        let halt = Halt {
            reason: Reason::FutureCommand(offset),
            message: format!("{future}: upgrade portcullis, or `{verb} --skip-offset {offset}`"),
        };
        let _news = self.reached(future.offset.position(), now);
        if self.is_repairing() {
            return Err(halt);
        }
        // A rebuild that has got far enough ends with what stands before it.
        if self.farewell.is_none() {
            self.part(Farewell::Halt(halt));
        }
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
        self.end_repair(now);
        self.prove();
        news
    }

    /// Makes what a repair comes to the next transaction, once it has got far enough.
    fn end_repair(&mut self, now: Instant) {
        let Some(repair) = self.repair.take_if(|repair| repair.is_reached(&self.view)) else { return };
        self.batch = repair.difference(&self.view, now);
        self.repaired = self.batch.counts();
        self.after_repair.take().into_iter().for_each(|farewell| self.part(farewell));
    }

    /// Asks once more whether the log is the one, before anything more is read.
    ///
    /// What is held is dropped and read again: it may be of another log.
    pub(super) fn recheck(&mut self) {
        self.held.clear();
        self.proof.forget();
        self.vouch.forget();
        let (position, anchor) = self.place();
        let check = Check::new(position, anchor, self.next, Some(self.identity.clone()));
        self.check = Some(check.known_by(self.vouch.record()));
        self.seam = None;
    }

    /// Asks again for what was asked and not answered.
    pub(super) fn ask_again(&mut self) {
        self.vouch.forget();
        if let Some(check) = &mut self.check {
            check.ask_again();
        }
    }

    /// Asks what is due. While all is well the log is vouched for now and then, too.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Request> {
        if let Some(check) = &mut self.check {
            return check.questions(now);
        }
        let folded = self.folded();
        self.vouch.tick(folded, now).into_iter().collect()
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
            if let Some(repair) = &mut self.repair {
                repair.note_end(ends.stable);
            }
        }
        let next = match self.judge(answer, now) {
            Err(Trouble::AnotherLog(_)) if self.believes_too_much() => self.believe_nothing(now),
            next => next?,
        };
        self.prove();
        Ok(next)
    }

    /// Judges an answer by the check under way, and begins to read once it has passed.
    fn judge(&mut self, answer: &Answer, now: Instant) -> Result<Next, Trouble> {
        let Some(check) = &mut self.check else {
            return Ok(match self.vouch.answered(answer)? {
                Vouched::Fine => Next::Nothing,
                Vouched::Lost => Next::Recheck,
            });
        };
        Ok(match check.answered(answer, now)? {
            Step::Wait => Next::Nothing,
            Step::Ask(questions) => Next::Ask(questions),
            Step::Passed(seam) => {
                (self.check, self.checked) = (None, true);
                self.vouch.checked(now);
                Next::Open(self.next.min(self.seam.insert(seam).from()))
            }
        })
    }

    /// Whether a rebuild passes over what the table named, and has read nothing yet.
    fn believes_too_much(&self) -> bool {
        self.after_repair.is_some() && !self.checked && !self.view.skipped().is_empty()
    }

    /// The table was made from another log, so that what was passed over there means nothing here.
    fn believe_nothing(&mut self, now: Instant) -> Next {
        self.view = View::default();
        self.vouch = Vouch::new((Position::START, None));
        self.repair.iter_mut().for_each(|repair| repair.forget_place());
        self.recheck();
        Next::Ask(self.check.as_mut().map(|check| check.questions(now)).unwrap_or_default())
    }

    /// Only a log that is known to be the one proves anything: another one may happen to be just as long.
    fn prove(&mut self) {
        let shown = self.seam.as_ref().is_some_and(Seam::is_closed);
        let is_known = self.check.is_none() && !self.vouch.is_asked() && shown;
        if is_known && self.is_whole() && self.held.is_empty() {
            self.proven = self.proof.reached(self.view.position()).or(self.proven);
        }
    }
}
