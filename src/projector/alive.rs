//! Signs of life: what a projector writes while it has nothing else to say.
//!
//! The first of each lease is one that nobody has written before, so that whoever reads it has read the table
//! beyond the fence. They are numbered, because only the last of them outlives a compaction, and tells how
//! many were written before it.

use serde::{Deserialize, Serialize};

use crate::log::TableWrite;
use crate::record::Record;
use crate::table::ALIVE_KEY;

/// Who is alive, and since which claim of the role.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Alive {
    projector: String,
    lease: String,
    /// How many were written in this lease.
    number: u64,
}

impl Alive {
    /// The signs of life of a lease, of which none is written.
    pub(super) fn new(projector: &str, random: u64) -> Self {
        Self { projector: projector.to_owned(), lease: format!("{random:016x}"), number: 0 }
    }

    /// The next one.
    ///
    /// # Panics
    /// If it can't be JSON; texts and a number always can.
    pub(super) fn next(&mut self) -> TableWrite {
        self.number += 1;
        let value = serde_json::to_vec(self).expect("texts and a number are JSON");
        (ALIVE_KEY.to_vec(), Some(value))
    }

    /// How many of this lease are written where a record is read that is one of them; none if it is not.
    pub(super) fn number_in(&self, record: &Record) -> Option<u64> {
        let value = record.value.as_deref().filter(|_| record.key.as_deref() == Some(ALIVE_KEY))?;
        let read: Self = serde_json::from_slice(value).ok()?;
        (read.projector == self.projector && read.lease == self.lease).then_some(read.number)
    }
}
