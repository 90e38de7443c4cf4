//! How a projector comes by its role, and how it loses it.
//!
//! | what happened | what follows |
//! |---|---|
//! | the table is released, or silent for too long | `fence`: claim the role |
//! | the fence is done | `load`: a sign of life, then read the table |
//! | another one fenced us | `stand_by`: it is welcome to the role |
//! | the outcome of a write is not known | `claim_again`, a few times, then `stand_by` |
//! | nothing came of the log for too long | `stand_by`: somebody else may hear more |
//! | the table must not be written | `halt`, and a look at it from the beginning later |
//! | told to stop | `stop`: the last transaction releases the role, if there is one to write |
//!
//! A [rebuild](super::rebuild) claims the role without standing by, and ends where others stand by or wait.
//!
//! Whoever claims the role or gives it up ends the lease first: no answer to a write of before can then be
//! taken for one of after.

use super::alive::Alive;
use super::folding::{Farewell, Folding};
use super::loading::Loading;
use super::standby::{Standby, Verdict};
use super::tail::Tail;
use super::writer::Operation;
use super::{
    CLAIMS_MAX, Clocks, Effect, HALT_WAIT, Halt, Projector, Reason, Role, Stage, TAKEOVER_JITTER_MAX,
    UNBEGUN_WAIT,
};
use crate::log::{Request, Topic, WriteError};
use crate::record::Position;
use crate::table::Watermark;

impl Projector {
    /// Watches the table, from its beginning: the newest watermark may be anywhere.
    ///
    /// The silence to wait for is drawn anew each time, so that of two standbys one is first.
    pub(super) fn stand_by(&mut self, clocks: Clocks) {
        if self.is_told_to_stop() {
            return self.finish();
        }
        if self.is_rebuild() {
            return self.give_up();
        }
        self.writer.drop_lease();
        self.request([Request::Close(Topic::Commands)]);
        if self.status.role == Role::Active {
            self.status.role = Role::Standby;
        }
        let jitter = self.settings.takeover_after.mul_f64(TAKEOVER_JITTER_MAX * self.random.f64());
        let takeover_after = self.settings.takeover_after + jitter;
        let (claimed, left) = (self.claimed, self.written.clone());
        self.stage = Stage::Standby(Box::new(Standby::new(takeover_after, claimed, left, clocks.now)));
        // They are judged before each takeover, as they were found since, at most an hour ago.
        self.settings_watch.forget();
        self.unanswered.forget();
        self.open(Topic::Table, Position::START);
        self.ask(clocks.now);
    }

    /// Tries to read the table again later.
    pub(super) fn wait(&mut self, clocks: Clocks) {
        self.request([Request::Close(Topic::Table)]);
        self.stage = Stage::Waiting(clocks.now + self.read_waits.wait());
    }

    /// Takes over, if the other one is gone. Asked after each report and each answer: either may tell.
    pub(super) fn judge(&mut self, clocks: Clocks) {
        let Stage::Standby(standby) = &self.stage else { return };
        if let Some(watermark) = standby.watermark() {
            self.status.note(watermark);
        }
        match standby.verdict(&self.settings_watch, clocks.now) {
            Verdict::Unknown => return,
            Verdict::Wait => {
                self.status.role = Role::Standby;
                self.difficulty = None;
            }
            Verdict::TakeOver => {
                // One release is one invitation: should this claim fail, the same watermark gives no second.
                self.claimed = standby.watermark_offset();
                self.status.role = Role::Standby;
                self.difficulty = None;
                self.fence(clocks);
            }
            Verdict::Halt(halt) => self.halt(halt, clocks),
        }
        self.status.looked = true;
        self.read_waits.reset();
    }

    /// Fences all others. What they left is read after that, never before: until then it may change.
    pub(super) fn fence(&mut self, clocks: Clocks) {
        self.writer.drop_lease();
        self.request([Request::Close(Topic::Table)]);
        let lease = self.writer.begin(Operation::Fence, clocks.now);
        self.effects.push(Effect::Fence(lease));
        self.stage = Stage::Claiming(None);
    }

    /// An operation is done.
    pub(super) fn done(&mut self, operation: Operation, clocks: Clocks) {
        match operation {
            Operation::Fence => self.load(clocks),
            Operation::Alive => {
                self.holds_role();
                self.write(clocks);
            }
            Operation::Watermark(watermark) => {
                self.holds_role();
                self.status.note(&watermark);
                self.note_rebuilt();
                self.written = Some(Watermark::clone(&watermark));
                self.tail.has_watermark(self.writer.written());
                if watermark.released { self.leave(clocks) } else { self.fold(clocks) }
            }
        }
    }

    /// A write came through: we are the writer beyond doubt, and earlier failures count no more. Not said
    /// before, because until then the table invites others.
    fn holds_role(&mut self) {
        self.status.role = Role::Active;
        self.claims = 0;
        self.claim_waits.reset();
        self.write_failure = None;
    }

    /// We are the writer now: says so, and reads the table. The sign of life is one that nobody has written
    /// before, so that reading it proves that the table was read beyond the fence.
    pub(super) fn load(&mut self, clocks: Clocks) {
        self.alive = Alive::new(&self.settings.projector, self.random.u64(..));
        self.stage = Stage::Loading(Box::new(Loading::new(self.alive.clone(), self.made_from())));
        self.patience.progress(clocks.now);
        self.tail = Tail::new(clocks.now);
        self.commit_alive(clocks);
        self.open(Topic::Table, Position::START);
    }

    /// Goes on from what the table holds, once the log is known to be the one it was made from.
    pub(super) fn begin_to_fold(&mut self, folding: Folding, clocks: Clocks) {
        if folding.is_repairing() {
            self.difficulty = Some("the table contradicts its watermark: repairing it".to_owned());
        }
        self.request([Request::Close(Topic::Table)]);
        self.stage = Stage::Folding(Box::new(folding));
        self.ask(clocks.now);
    }

    /// A write failed, or may have. In the second case all that is known of the table is in doubt.
    ///
    /// A projector that was told to stop stops: whether its last transaction is in, the next one reads.
    pub(super) fn lost(&mut self, error: WriteError, clocks: Clocks) {
        match &error {
            WriteError::Unknown(reason) => self.write_failure = Some(reason.clone()),
            WriteError::Fenced => {
                self.difficulty = Some(error.to_string());
                self.written = None;
            }
        }
        match error {
            _ if self.is_told_to_stop() => self.finish(),
            WriteError::Unknown(_) if self.claims < CLAIMS_MAX => self.claim_again(clocks),
            WriteError::Unknown(_) | WriteError::Fenced => {
                self.claims = 0;
                self.stand_by(clocks);
            }
        }
    }

    /// Whether only its last transaction is waited for: whatever comes of that, it ends.
    fn is_told_to_stop(&self) -> bool {
        matches!(&self.stage, Stage::Folding(folding) if matches!(folding.farewell(), Some(Farewell::Stop)))
    }

    /// Claims the role once more, soon: we had it a moment ago, and a standby would wait much longer. Not
    /// for ever, because what keeps us from writing may not keep others.
    fn claim_again(&mut self, clocks: Clocks) {
        self.claims += 1;
        self.writer.drop_lease();
        self.close_readers();
        // Until the new fence is done, another one may be the writer.
        self.status.role = Role::Standby;
        self.stage = Stage::Claiming(Some(clocks.now + self.claim_waits.wait()));
    }

    /// Writes nothing for a while, and says why.
    pub(super) fn halt(&mut self, halt: Halt, clocks: Clocks) {
        if self.is_told_to_stop() {
            return self.finish();
        }
        let repairing = matches!(&self.stage, Stage::Folding(folding) if folding.is_repairing());
        // A table that is broken and cannot be folded anew needs an operator, who is to be told both.
        self.status.role = Role::Stopped(match halt.reason {
            Reason::Gap if repairing => Reason::Unrepairable,
            reason => reason,
        });
        self.difficulty = Some(halt.message);
        self.written = None;
        self.writer.drop_lease();
        self.close_readers();
        if self.is_rebuild() {
            return self.end(self.status.role);
        }
        let wait = if halt.reason == Reason::NoWatermark { UNBEGUN_WAIT } else { HALT_WAIT };
        self.stage = Stage::Waiting(clocks.now + wait);
    }

    /// Stops for good, after what is pending is written. The watermark of that transaction says *released*,
    /// so that a standby takes over at once. A view that is not whole has nothing to write.
    pub(super) fn stop(&mut self, clocks: Clocks) {
        match &mut self.stage {
            Stage::Folding(folding) if folding.is_whole() => {
                // What is held is dropped and the readers closed: the last transaction holds what is folded.
                folding.part(Farewell::Stop);
                self.close_readers();
                self.write(clocks);
            }
            _ => self.finish(),
        }
    }

    /// The table was released.
    fn leave(&mut self, clocks: Clocks) {
        let Stage::Folding(folding) = &self.stage else { return };
        match folding.farewell().cloned() {
            Some(Farewell::Halt(halt)) => self.halt(halt, clocks),
            _ => self.finish(),
        }
    }

    /// The end that was asked for.
    fn finish(&mut self) {
        self.end(Role::Stopped(Reason::Stop));
    }

    /// The end: no event is taken in any more.
    pub(super) fn end(&mut self, role: Role) {
        self.status.role = role;
        self.writer.drop_lease();
        self.close_readers();
        self.stage = Stage::Stopped;
        self.effects.push(Effect::Stopped);
    }

    /// Begins to read again where it stands, with a new reader.
    pub(super) fn read_anew(&mut self, clocks: Clocks) {
        match &mut self.stage {
            // A new reader of the table begins at its first offset, and so does what is made of it.
            Stage::Loading(loading) => {
                loading.restart();
                self.open(Topic::Table, Position::START);
            }
            Stage::Folding(folding) => {
                folding.recheck();
                self.close_readers();
                self.write(clocks);
            }
            _ => {}
        }
    }

    /// Opens a reader, in a session of its own.
    pub(super) fn open(&mut self, topic: Topic, from: Position) {
        self.session = self.session.next();
        self.request([Request::Read(topic, self.session, from)]);
    }

    /// Ends the session: no reader is open, and neither old reports nor old answers count.
    pub(super) fn close_readers(&mut self) {
        self.session = self.session.next();
        self.request([Request::Close(Topic::Table), Request::Close(Topic::Commands), Request::DropAnswers]);
        self.ends.forget();
        self.settings_watch.ask_again();
    }

    pub(super) fn request(&mut self, requests: impl IntoIterator<Item = Request>) {
        self.effects.extend(requests.into_iter().map(Effect::Log));
    }
}
