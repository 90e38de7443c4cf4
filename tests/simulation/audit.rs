//! The table, judged at every watermark: it holds the fold of one log up to the position that it states.

use portcullis::log::Topic;
use portcullis::log::memory::MemoryLog;
use portcullis::record::{Offset, Position};
use portcullis::table::{Table, WATERMARK_KEY, Watermark};

use super::ledger::{Fold, Ledger, State};
use super::world::identity;

/// Reads every committed record of the table once, before a compaction can take it.
#[derive(Default)]
pub struct Auditor {
    table: Table,
    next: Position,
    /// What the table held when it was whole last.
    last: Option<State>,
    /// Where somebody wrote into the table who must not, if it has not been whole since.
    pub damaged: Option<Offset>,
}

impl Auditor {
    /// The table is another one from here on.
    pub fn begun_anew(&mut self) {
        *self = Self::default();
    }

    /// What the table holds, if it is whole.
    pub fn whole(&self) -> Option<(Position, Fold)> {
        let watermark = self.table.check().ok()?;
        Some((watermark.position, fold_of(watermark)))
    }

    pub fn audit(&mut self, log: &MemoryLog, ledger: &Ledger) {
        loop {
            let Ok(delivery) = log.read(Topic::Table, self.next) else { return };
            for record in &delivery.records {
                self.table.apply(record);
                if record.key.as_deref() == Some(WATERMARK_KEY) {
                    self.judge(record.offset, ledger);
                }
            }
            self.next = delivery.position;
            if delivery.at_end {
                return;
            }
        }
    }

    fn judge(&mut self, offset: Offset, ledger: &Ledger) {
        let watermark = match self.table.check() {
            Ok(watermark) => watermark.clone(),
            Err(error) => return assert!(self.damaged.is_some(), "the table is not whole: {error}"),
        };
        self.damaged.take_if(|damaged| *damaged < offset);
        let Watermark { position, anchor, .. } = watermark;
        let made_from = (&watermark.cluster_id, &watermark.commands_topic);
        let identity = identity();
        assert_eq!(made_from, (&identity.cluster_id, &identity.commands_topic));
        let state = State { position, anchor, fold: fold_of(&watermark) };
        let lives = ledger.lives_with(state);
        assert!(!lives.is_empty(), "the table holds at {position} what no log comes to");
        if let Some(last) = self.last.replace(state) {
            let goes_on = !ledger.lives_with(last).is_disjoint(&lives);
            assert!(goes_on, "the table went over to another log at {position}");
            assert!(last.position <= position, "the table went back from {} to {position}", last.position);
        }
    }
}

fn fold_of(watermark: &Watermark) -> Fold {
    Fold { fingerprint: watermark.fingerprint, rows: watermark.rows }
}
