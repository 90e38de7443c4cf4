//! Reading the table, up to a watermark that its rows agree with.
//!
//! The table is read from its first offset to the end that the reader reports, into a plain map. Nothing of
//! it is served on the way. At the end it must be whole: its last row change is followed by a watermark, and
//! row count and fingerprint are the watermark's. A table that is not is read again later, from its first
//! offset; the follower repairs nothing, because there is one writer, the projector.
//!
//! What comes of it is a view at the watermark's position, still without ids, and a feed that begins as far
//! before that position as ids count.

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
    /// When the reader last reported anything. Progress is what counts: a large table may take its time.
    heard: Instant,
    seed: u64,
}

impl Loading {
    /// A table of which nothing was read.
    pub(super) fn new(now: Instant, seed: u64) -> Self {
        Self { table: Table::default(), records_read: 0, heard: now, seed }
    }

    /// How many records were read, which is not the number of rows.
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

    /// Gives up if nothing came for too long.
    pub(super) fn tick(&self, now: Instant) -> Result<Option<Reading>, Trouble> {
        if now < self.heard + PROGRESS_DEADLINE {
            return Ok(None);
        }
        Err(Trouble::Again("nothing came of the table for 30 s".to_owned()))
    }

    /// The view that the table holds, and the feed of what follows it.
    ///
    /// What the watermark says of the log goes into the feed's check: until that has passed, nobody knows
    /// whether these rows belong to the commands that are there.
    fn finish(&self) -> Result<Reading, Trouble> {
        let watermark = self.table.check().map_err(|error| Trouble::Again(error.to_string()))?;
        let Watermark { position, anchor, skipped, cluster_id, commands_topic, .. } = watermark.clone();
        let view = View::from_rows(self.table.rows().copied(), position, anchor, skipped);
        let candidate = Candidate { view, known: anchor, anchored: anchor.is_some(), ..Candidate::default() };
        let feed = Feed::from_table(position, Identity { cluster_id, commands_topic }, self.seed);
        Ok(Reading::new(feed, candidate, self.seed))
    }
}
