//! The one writer of an embedded log: all that waits goes into one commit, then everybody is answered.
//!
//! ```text
//!   next_work ──► append ── went well ──► pause = 0, answer the senders ──► next_work
//!      │             └───── failed ─────► answer the senders, close the database, open it again
//!      │                                    at once if pause = 0, then after 100 ms … 10 s,
//!      │                                    when whoever waits is refused ──► next_work
//!      └── closing, and nothing waits ──► close the file, end
//! ```
//!
//! It never gives up on the file. An operator who frees space, or mounts the disk again, needs no restart;
//! until then the sidecar serves the list that it has.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::database::{Appended, CommandsDatabase, Occasion};
use super::shared::{Shared, Waiting, Work};
use super::{OpenError, REOPEN_PAUSE_MAX, REOPEN_PAUSE_MIN};
use crate::log::AppendError;
use crate::record::Timestamp;

/// Opens the database; called once by the log itself, then by the writer after each failure.
pub(super) type Open = Box<dyn Fn(Occasion) -> Result<CommandsDatabase, OpenError> + Send>;

/// Lives on a thread of its own. However it ends, dropping it closes the database and lets nobody wait on.
pub(super) struct Writer {
    shared: Arc<Shared>,
    open: Open,
    /// How long to wait before the database is opened again: not at all the first time after a commit that
    /// went well, then longer and longer.
    pause: Duration,
}

impl Writer {
    /// A writer for a database that is open already.
    pub(super) fn new(shared: Arc<Shared>, open: Open) -> Self {
        Self { shared, open, pause: Duration::ZERO }
    }

    /// Writes until the log closes and nothing waits.
    pub(super) fn run(mut self) {
        while let Some(work) = self.shared.next_work() {
            match work {
                Work::Append(groups) => self.append(groups),
                Work::Reopen(reason) => self.reopen(reason),
            }
        }
    }

    /// Commits the groups together and tells each sender. They share their fate: the error of the commit is
    /// the error of each.
    fn append(&mut self, groups: Vec<Waiting>) {
        match self.commit(&groups) {
            Ok(appended) => {
                self.pause = Duration::ZERO;
                self.shared.advance(appended.end);
                // The offsets follow the order of the queue, without a gap between the groups.
                groups.into_iter().fold(appended.first, |first, group| group.appended(first));
            }
            Err(error) => {
                // Told before the database is opened again, which may take long.
                for group in groups {
                    group.failed(error.clone());
                }
                self.reopen(error.to_string());
            }
        }
    }

    /// One durable commit of all commands, under one timestamp: the wall clock of now.
    ///
    /// # Panics
    /// If the database is not open: [`reopen`](Self::reopen) returns with an open one, or with the log
    /// closing and its queue empty for good.
    fn commit(&self, groups: &[Waiting]) -> Result<Appended, AppendError> {
        let database = self.shared.database();
        let open = database.as_ref().expect("the writer leaves its own reopening with an open database");
        let values = groups.iter().flat_map(Waiting::values);
        open.append(values, Timestamp::from(SystemTime::now()))
    }

    /// Closes the database and opens it again, for as long as that takes: redb does nothing more after an
    /// error of its file. Where the log ends is then read from the file, because a commit that failed may
    /// be there or not.
    fn reopen(&mut self, mut reason: String) {
        self.shared.close_database();
        loop {
            tracing::warn!(reason, "the commands log failed and is opened again");
            // Without a pause nothing is refused: the groups that wait stay in the queue during this one
            // attempt.
            if !self.pause.is_zero() && !self.shared.outage(&reason, self.pause) {
                return;
            }
            self.pause = (self.pause * 2).clamp(REOPEN_PAUSE_MIN, REOPEN_PAUSE_MAX);
            match self.open_same() {
                Ok(()) => return,
                Err(error) => reason = error,
            }
        }
    }

    /// Opens the database again if it still is that of the same log: to go on in another one would give its
    /// commands offsets that readers have seen with different commands.
    fn open_same(&self) -> Result<(), String> {
        let database = (self.open)(Occasion::Again).map_err(|error| error.to_string())?;
        if database.cluster_id() != self.shared.identity.cluster_id {
            return Err("another log was put in the place of this one; start again to use it".to_owned());
        }
        let end = database.end().map_err(|error| error.to_string())?;
        self.shared.reopened(database, end);
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.end_of_writer();
    }
}
