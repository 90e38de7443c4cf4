//! What the threads of an embedded log share: the database, the queue of the writer, and the log's end.
//!
//! ```text
//!   senders ── enqueue ──► waiting ── next_work ──► writer ── advance ──► end ── wait_for ──► readers
//!              (never blocks)    `work` wakes it             `progress` wakes them
//!                                     ▲                                             │
//!                                     └────────────── want_reopening ───────────────┘
//! ```
//!
//! The small things (queue, end, flags) stand behind a mutex that is held for moments only. The database
//! stands behind a lock of its own: reading takes it shared, for as long as redb needs, and only closing and
//! reopening take it alone. So no sender ever waits for the disk.
//!
//! Neither lock is ever taken while the other is held, so that no order between them can be wrong. No
//! `done` is called under one either: it is foreign code, and may append again.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use super::database::{CommandsDatabase, not_appended};
use super::{COMMIT_BYTES_MAX, COMMIT_GROUPS_MAX, WAITING_BYTES_MAX, WAITING_GROUPS_MAX};
use crate::log::{AppendDone, AppendError, Identity};
use crate::record::{Offset, Position};

/// Counts the openings of the database, so that what failed in an earlier one is not held against a later.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Opening(u64);

/// One group that waits for its commit. Whatever happens to it, its sender is told exactly once.
///
/// `done` is taken out when it is called, and `Drop` calls it if nobody did. So a panic anywhere in the
/// writer leaves no sender waiting for ever.
pub(super) struct Waiting {
    values: Vec<Vec<u8>>,
    done: Option<AppendDone>,
}

impl Waiting {
    /// A group, and whom to tell what became of it.
    pub(super) fn new(values: Vec<Vec<u8>>, done: AppendDone) -> Self {
        Self { values, done: Some(done) }
    }

    /// The commands, in the order of their offsets to be.
    pub(super) fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.values.iter().map(Vec::as_slice)
    }

    /// The size of the commands; what each costs besides is bounded by the number of groups.
    fn bytes(&self) -> usize {
        self.values.iter().map(Vec::len).sum()
    }

    /// Tells the sender that its commands stand at `first` and after; returns the offset behind them.
    pub(super) fn appended(mut self, first: Offset) -> Offset {
        let offsets: Vec<Offset> = (first.number()..).map(Offset::new).take(self.values.len()).collect();
        let next = offsets.last().map_or(first, |last| last.next().offset());
        self.answer(Ok(offsets));
        next
    }

    /// Tells the sender that its commands have no offsets, and why.
    pub(super) fn failed(mut self, error: AppendError) {
        self.answer(Err(error));
    }

    fn answer(&mut self, outcome: Result<Vec<Offset>, AppendError>) {
        if let Some(done) = self.done.take() {
            done(outcome);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Only a panic of the writer gets here; what had become of the group by then is not known.
        self.answer(Err(AppendError::Unknown("the writer of the log ended in the middle".to_owned())));
    }
}

/// What the writer finds to do.
///
/// A reopening comes before what waits: an append to a database that no longer works would only fail.
pub(super) enum Work {
    /// Append these groups, in order.
    Append(Vec<Waiting>),
    /// A reader found that the database no longer works.
    Reopen(String),
}

/// What is behind the mutex.
///
/// `waiting_bytes` is the sum over `waiting`; `closing` asks the writer to end, `closed` says that it has.
#[derive(Default)]
pub(super) struct State {
    /// The next offset: everything before it is durable.
    pub(super) end: Position,
    /// Which opening of the database it was seen in.
    pub(super) opening: Opening,
    /// Set for good once the log is closed.
    pub(super) closed: bool,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Why the database should be opened again, in the words of a reader.
    reopen: Option<String>,
    /// Why the database can't be opened; none while it works.
    outage: Option<String>,
    closing: bool,
}

impl State {
    /// Whether a group may join the queue. During an outage nothing may: its sender is told at once instead
    /// of after a wait of unknown length.
    fn room_for(&self, group: &Waiting) -> Result<(), AppendError> {
        let full = self.waiting.len() >= WAITING_GROUPS_MAX
            || self.waiting_bytes.saturating_add(group.bytes()) > WAITING_BYTES_MAX;
        let unavailable = |reason: &str| Err(AppendError::Unavailable(not_appended(&reason)));
        match &self.outage {
            Some(reason) => unavailable(reason),
            None if self.closing || self.closed => unavailable("the log is closed"),
            None if full => unavailable("too many commands wait to be written"),
            None => Ok(()),
        }
    }

    /// The groups that go into the next commit: all, up to the limits of one, but at least one.
    fn next_groups(&mut self) -> Vec<Waiting> {
        let mut groups = Vec::new();
        let mut bytes = 0;
        while let Some(group) = self.waiting.pop_front() {
            bytes += group.bytes();
            self.waiting_bytes -= group.bytes();
            groups.push(group);
            let next_bytes = self.waiting.front().map_or(0, Waiting::bytes);
            if groups.len() >= COMMIT_GROUPS_MAX || bytes + next_bytes > COMMIT_BYTES_MAX {
                break;
            }
        }
        groups
    }

    /// Empties the queue, for groups that are refused; they are told once the mutex is free again.
    fn take_waiting(&mut self) -> VecDeque<Waiting> {
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

/// What the threads of one log share.
pub(super) struct Shared {
    /// Fixed for the life of the log; a file with another cluster id is not opened in its place.
    pub(super) identity: Identity,
    /// None while it is being opened again, and after the end.
    database: RwLock<Option<CommandsDatabase>>,
    state: Mutex<State>,
    /// There is something to write, or the log closes.
    work: Condvar,
    /// There is something to read.
    progress: Condvar,
}

impl Shared {
    pub(super) fn new(identity: Identity, database: CommandsDatabase, end: Position) -> Self {
        Self {
            identity,
            database: RwLock::new(Some(database)),
            state: Mutex::new(State { end, ..State::default() }),
            work: Condvar::new(),
            progress: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock, and every value of the state is a valid one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database, unless it is not open.
    pub(super) fn database(&self) -> RwLockReadGuard<'_, Option<CommandsDatabase>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody reads, then exchanges the database; the old one is closed here.
    fn replace_database(&self, database: Option<CommandsDatabase>) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = database;
    }

    /// The next offset: everything before it is durable, and readers can have it.
    pub(super) fn end(&self) -> Position {
        self.state().end
    }

    /// Which opening of the database is in use.
    pub(super) fn opening(&self) -> Opening {
        self.state().opening
    }

    /// Puts a group into the queue of the writer, or tells its sender why not.
    pub(super) fn enqueue(&self, group: Waiting) {
        let mut state = self.state();
        match state.room_for(&group) {
            Ok(()) => {
                state.waiting_bytes += group.bytes();
                state.waiting.push_back(group);
                self.work.notify_one();
            }
            Err(error) => {
                drop(state);
                group.failed(error);
            }
        }
    }

    /// Waits for something to do; none once the log closes and the queue is empty. What still waits when the
    /// log closes is written first.
    pub(super) fn next_work(&self) -> Option<Work> {
        let idle = |s: &mut State| s.waiting.is_empty() && s.reopen.is_none() && !s.closing;
        let mut state = self.work.wait_while(self.state(), idle).unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = state.reopen.take() {
            return Some(Work::Reopen(reason));
        }
        let groups = state.next_groups();
        (!groups.is_empty()).then_some(Work::Append(groups))
    }

    /// Lets readers have everything before `end`.
    pub(super) fn advance(&self, end: Position) {
        // Set before anybody is told of an offset, so that whoever is told can read it.
        self.state().end = end;
        self.progress.notify_all();
    }

    /// Waits until there is something that `look` finds in the state, at most this long.
    /// `look` runs under the mutex, before the first wait and after each wake-up.
    pub(super) fn wait_for<T>(&self, wait: Duration, mut look: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let mut found = None;
        let nothing = |state: &mut State| {
            found = look(state);
            found.is_none()
        };
        drop(self.progress.wait_timeout_while(self.state(), wait, nothing));
        found
    }

    /// A reader found that the database no longer works. Only the writer opens it again, so that it is opened
    /// once, however many readers found out.
    pub(super) fn want_reopening(&self, failed: Opening, reason: String) {
        let mut state = self.state();
        // Of an earlier opening it is old news: what failed then has been replaced since.
        if state.opening == failed && !state.closed {
            state.reopen = Some(reason);
            self.work.notify_one();
        }
    }

    /// Closes the database; whoever is reading finishes first.
    pub(super) fn close_database(&self) {
        self.replace_database(None);
    }

    /// Puts a database that was opened again in its place.
    pub(super) fn reopened(&self, database: CommandsDatabase, end: Position) {
        self.replace_database(Some(database));
        let mut state = self.state();
        // The database is in place before the new opening is told, because readers try it at once.
        state.end = end;
        state.opening = Opening(state.opening.0 + 1);
        state.reopen = None;
        state.outage = None;
        self.progress.notify_all();
    }

    /// Refuses everything that waits and will come, until the database is open again. Waits before the next
    /// attempt, and says whether there should be one: not if the log closes. What is refused was never handed
    /// to redb, so that it is `Unavailable` for certain.
    pub(super) fn outage(&self, reason: &str, pause: Duration) -> bool {
        let mut state = self.state();
        state.outage = Some(reason.to_owned());
        let refused = state.take_waiting();
        drop(state);
        for group in refused {
            group.failed(AppendError::Unavailable(not_appended(&reason)));
        }
        // Nothing can join the queue during an outage, so that only closing can end the pause early.
        let waited = self.work.wait_timeout_while(self.state(), pause, |state| !state.closing);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closing
    }

    /// Asks the writer to write what waits, and to end.
    pub(super) fn begin_closing(&self) {
        self.state().closing = true;
        self.work.notify_all();
    }

    /// The end of the writer, whatever brought it about: closes the database and lets nobody wait on.
    pub(super) fn end_of_writer(&self) {
        self.close_database();
        let mut state = self.state();
        // A reader that comes in between finds no database, and waits to be told what this says.
        state.closed = true;
        let refused = state.take_waiting();
        self.progress.notify_all();
        drop(state);
        for group in refused {
            group.failed(AppendError::Unavailable(not_appended(&"the log is closed")));
        }
    }
}
