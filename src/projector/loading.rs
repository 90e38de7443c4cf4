//! Reading the table as the writer that was left in it, to its very end.
//!
//! ```text
//! … rows, watermark │ rows of a writer that died │ mark: aborted │ @alive, ours │ end
//!                                                  ▲ the fence     ▲ read: now the end counts
//! ```
//!
//! A table that agrees with its watermark is folded on from. One that contradicts it is repaired, which only
//! a projector does. One without a watermark, or with one of another version, is left alone: whoever wrote
//! it may know more. A rebuild goes on from none of them, and only wants to know what is there.

use std::time::Instant;

use super::alive::Alive;
use super::folding::Folding;
use super::{Halt, identity_of};
use crate::log::{Identity, ReadEvent};
use crate::record::Record;
use crate::table::{Table, Watermark};
use crate::view::View;

/// The table so far.
///
/// An end of the partition is not believed before our own sign of life was read: it was written after the
/// fence, so that whatever an earlier writer committed lies before it and is visible. Committed is not yet
/// visible, and a table without its newest transaction is whole, but old.
#[derive(Debug)]
pub(super) struct Loading {
    table: Table,
    /// Our sign of life.
    alive: Alive,
    /// How many of them stand before what is read next.
    alives_read: u64,
    /// The log to rebuild the table from; none if the table is to be gone on from.
    rebuild: Option<Identity>,
    /// When to read again, after the reader failed.
    retry: Option<Instant>,
}

impl Loading {
    /// A table of which nothing was read, by the projector whose sign of life is `alive`.
    pub(super) fn new(alive: Alive, rebuild: Option<Identity>) -> Self {
        Self { table: Table::default(), alive, alives_read: 0, rebuild, retry: None }
    }

    /// How many of our signs of life were read: of those that were compacted away, the last one tells.
    pub(super) const fn alives_read(&self) -> u64 {
        self.alives_read
    }

    /// Notes that the reader failed, and when another one is to be tried.
    pub(super) const fn retry_at(&mut self, at: Instant) {
        self.retry = Some(at);
    }

    /// Whether it is time for another reader.
    pub(super) fn is_retry_due(&self, now: Instant) -> bool {
        self.retry.is_some_and(|at| now >= at)
    }

    /// Takes in what the table's reader reports; at the end, what there is to fold from.
    pub(super) fn read(&mut self, event: &ReadEvent) -> Result<Option<Folding>, Halt> {
        match event {
            ReadEvent::Records(records) => {
                records.iter().for_each(|record| self.note(record));
                Ok(None)
            }
            ReadEvent::End(_) if self.alives_read > 0 => self.finish().map(Some),
            ReadEvent::End(_) | ReadEvent::Failed(_) => Ok(None),
        }
    }

    /// Begins to read from the beginning again.
    pub(super) fn restart(&mut self) {
        *self = Self::new(self.alive.clone(), self.rebuild.take());
    }

    fn note(&mut self, record: &Record) {
        self.alives_read = self.alive.number_in(record).unwrap_or(self.alives_read);
        self.table.apply(record);
    }

    /// What the table comes to.
    fn finish(&mut self) -> Result<Folding, Halt> {
        let table = std::mem::take(&mut self.table);
        if let Some(identity) = &self.rebuild {
            return Ok(Folding::rebuilding(table, identity.clone()));
        }
        match table.check() {
            Ok(watermark) => {
                let Watermark { position, anchor, skipped, .. } = watermark.clone();
                let view = View::from_rows(table.rows().copied(), position, anchor, skipped);
                Ok(Folding::continuing(view, identity_of(watermark)))
            }
            Err(error) => match table.watermark().cloned() {
                // The watermark is one to build on: it is the rows that disagree.
                Some(Ok(watermark)) => Ok(Folding::repairing(table, &watermark)),
                _ => Err(Halt::of_table(&error)),
            },
        }
    }
}
