//! What the writer of the table was asked to do, and for which claim of its role.
//!
//! Nothing is written here: this is the state machine's own note of what it asked for. A producer that is
//! given up may still answer, minutes later; the [`Lease`] tells such an answer from one that counts. With at
//! most one operation under way, a lease is enough to say which one an answer is to.

use std::time::{Duration, Instant};

use super::{Clocks, Effect, Projector, Stage, WATERMARK_INTERVAL};
use crate::log::TableWrite;
use crate::table::{WATERMARK_KEY, Watermark};

/// A write without an answer for so long is lost: longer than any producer may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(120);

/// Names one claim of the writer's role, so that what an earlier producer still had to say is recognised.
/// Comes with [`Effect::Fence`] and [`Effect::Commit`], and goes
/// back with their answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lease(u64);

/// What is under way.
#[derive(Debug)]
pub(super) enum Operation {
    /// All other writers are being fenced.
    Fence,
    /// A sign of life is being committed.
    Alive,
    /// Rows are being committed with this watermark, which says what the table holds once that is done.
    Watermark(Box<Watermark>),
}

/// The writer as its asker sees it: at most one operation at a time.
#[derive(Debug)]
pub(super) struct Writer {
    lease: Lease,
    under_way: Option<(Operation, Instant)>,
    /// When the last operation began.
    written: Instant,
}

impl Writer {
    /// A writer that was asked for nothing.
    pub(super) fn new(now: Instant) -> Self {
        Self { lease: Lease::default(), under_way: None, written: now }
    }

    /// Whether an operation is under way, so that no other may begin.
    pub(super) const fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// When the last operation began; from then on the next sign of life is counted.
    pub(super) const fn written(&self) -> Instant {
        self.written
    }

    /// Ends the lease: no answer to it counts any more.
    pub(super) fn drop_lease(&mut self) {
        self.lease = Lease(self.lease.0 + 1);
        self.under_way = None;
    }

    /// Begins an operation.
    pub(super) fn begin(&mut self, operation: Operation, now: Instant) -> Lease {
        self.written = now;
        self.under_way = Some((operation, now));
        self.lease
    }

    /// What this answer is to; none if it comes too late to matter.
    pub(super) fn answered(&mut self, lease: Lease) -> Option<Operation> {
        let (operation, _) = self.under_way.take_if(|_| lease == self.lease)?;
        Some(operation)
    }

    /// The lease of an operation that gets no answer any more.
    pub(super) fn overdue(&self, now: Instant) -> Option<Lease> {
        let overdue = self.under_way.as_ref().is_some_and(|(_, since)| now >= *since + WRITE_DEADLINE);
        overdue.then_some(self.lease)
    }
}

impl Projector {
    /// Writes what is due, one transaction at a time. Called after everything that may make something due.
    pub(super) fn write(&mut self, clocks: Clocks) {
        let written = self.writer.written();
        let alive_due = clocks.now >= written + WATERMARK_INTERVAL;
        match &mut self.stage {
            _ if self.writer.is_busy() => {}
            Stage::Folding(folding) if folding.is_due(written, clocks.now) && !folding.is_vouched() => {
                let request = folding.vouch(clocks.now);
                self.request(request);
            }
            Stage::Folding(folding) if folding.is_due(written, clocks.now) => {
                // Rows and watermark are of the same moment: nothing is folded between these two lines.
                let watermark = folding.watermark(&self.settings.projector, clocks.wall);
                let mut writes = folding.batch().take();
                writes.push((WATERMARK_KEY.to_vec(), Some(watermark.encode())));
                self.commit(Operation::Watermark(Box::new(watermark)), writes, clocks);
            }
            Stage::Folding(folding) if folding.is_whole() => {
                let due = folding.batch().announce_due();
                self.effects.extend(due.map(Effect::TickAt));
            }
            Stage::Folding(_) | Stage::Loading(_) if alive_due => self.commit_alive(clocks),
            _ => {}
        }
    }

    /// Gives a sign of life that says nothing of the table: a takeover or a repair may take longer than a
    /// standby's patience.
    pub(super) fn commit_alive(&mut self, clocks: Clocks) {
        let alive = self.alive.next();
        self.commit(Operation::Alive, vec![alive], clocks);
    }

    fn commit(&mut self, operation: Operation, writes: Vec<TableWrite>, clocks: Clocks) {
        let lease = self.writer.begin(operation, clocks.now);
        self.tail.writes(writes.len());
        self.effects.push(Effect::Commit(lease, writes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_an_earlier_lease_counts_for_nothing() {
        let now = Instant::now();
        let mut writer = Writer::new(now);
        let old = writer.begin(Operation::Alive, now);
        writer.drop_lease();
        let new = writer.begin(Operation::Fence, now);
        assert!(writer.answered(old).is_none());
        assert!(matches!(writer.answered(new), Some(Operation::Fence)));
        assert!(writer.answered(new).is_none(), "each operation has one answer");
    }

    #[test]
    fn a_write_is_overdue_after_its_deadline_and_only_while_it_is_under_way() {
        let now = Instant::now();
        let mut writer = Writer::new(now);
        assert!(writer.overdue(now + WRITE_DEADLINE).is_none());
        let lease = writer.begin(Operation::Alive, now);
        assert_eq!(writer.overdue(now + WRITE_DEADLINE), Some(lease));
    }
}
