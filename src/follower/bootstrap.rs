//! Reading the table, up to a watermark that its rows agree with.

use std::time::Instant;

use super::{Candidate, PROGRESS_DEADLINE, Reading};
use crate::check::Trouble;
use crate::feed::Feed;
use crate::log::{Identity, ReadEvent};
use crate::table::{Table, Watermark};
use crate::view::View;

/// The table so far.
pub(super) struct Loading {
    table: Table,
    records_read: u64,
    heard: Instant,
    seed: u64,
}

impl Loading {
    pub(super) fn new(now: Instant, seed: u64) -> Self {
        Self { table: Table::default(), records_read: 0, heard: now, seed }
    }

    pub(super) const fn records_read(&self) -> u64 {
        self.records_read
    }

    /// Takes in what the table's reader reports; the end brings a view to catch up from, or trouble.
    pub(super) fn read(&mut self, event: ReadEvent, now: Instant) -> Result<Option<Reading>, Trouble> {
        self.heard = now;
        match event {
            ReadEvent::Records(records) => {
                self.records_read += records.len() as u64;
                records.iter().for_each(|record| self.table.apply(record));
                Ok(None)
            }
            ReadEvent::Failed(reason) => Err(Trouble::Again(reason)),
            ReadEvent::End(_) => self.finish().map(Some),
        }
    }

    pub(super) fn tick(&self, now: Instant) -> Result<Option<Reading>, Trouble> {
        if now < self.heard + PROGRESS_DEADLINE {
            return Ok(None);
        }
        Err(Trouble::Again("nothing came of the table for 30 s".to_owned()))
    }

    fn finish(&self) -> Result<Reading, Trouble> {
        let watermark = self.table.check().map_err(|error| Trouble::Again(error.to_string()))?;
        let Watermark { position, anchor, skipped, cluster_id, commands_topic, .. } = watermark.clone();
        let view = View::from_rows(self.table.rows().copied(), position, anchor, skipped);
        let candidate = Candidate { view, ..Candidate::default() };
        let feed = Feed::from_table(position, Identity { cluster_id, commands_topic }, self.seed);
        Ok(Reading::new(feed, candidate, self.seed))
    }
}
