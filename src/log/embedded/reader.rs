//! Reading an embedded log: the readers that follow it, and the answers to questions about it.
//!
//! A reader has a position and nothing else that matters: it reports the records from there in pieces, then
//! once that it is at the end, then waits to be woken by the next commit. It wakes at once, without polling
//! the file.
//!
//! An error that may pass is no concern of the follower's: the reader asks the writer to open the database
//! again and goes on behind that. Only damage, a closed log, and an end that lies before its position make
//! it report a failure, after which it stays silent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::database::is_damage;
use super::shared::{Opening, Shared, State};
use crate::log::{Answer, Ends, Question, Questioner, ReadEvent, Reader, Topic};
use crate::record::{Offset, Position, Record};

/// Reads the commands from a position on. Any number may read at once, each on its own thread.
pub(super) struct CommandsReader {
    shared: Arc<Shared>,
    position: Position,
    /// The end that was reported last, so that one end is reported once.
    end_reported: Option<Position>,
    /// The opening of the database in which reading failed: there is nothing to read before the next.
    failed_opening: Option<Opening>,
    /// Set by the failure that was reported: nothing is reported behind it.
    failed: bool,
}

/// What there is to report.
enum Next {
    /// Records up to before this position, seen in this opening of the database.
    Records(Opening, Position),
    End,
    Failed(String),
}

impl CommandsReader {
    /// A reader whose first report begins at this position.
    pub(super) fn new(shared: Arc<Shared>, position: Position) -> Self {
        Self { shared, position, end_reported: None, failed_opening: None, failed: false }
    }

    /// What there is to report now; none to go on waiting. Runs under the mutex, so that it only looks.
    fn next(&self, state: &State) -> Option<Next> {
        if self.failed {
            None
        } else if state.closed {
            Some(Next::Failed("the log is closed".to_owned()))
        // After a reopening the file may end earlier than we have read. What comes next under these offsets
        // is something else, and the follower has to look whether this is still its log.
        } else if state.end < self.position {
            Some(Next::Failed(ends_before(state.end, self.position)))
        } else if state.end == self.position {
            (self.end_reported != Some(state.end)).then_some(Next::End)
        } else {
            let readable = self.failed_opening != Some(state.opening);
            readable.then_some(Next::Records(state.opening, state.end))
        }
    }

    /// The next records; none when the database has to be opened again first.
    fn read(&mut self, opening: Opening, end: Position) -> Option<ReadEvent> {
        let outcome = self.shared.database().as_ref().map(|open| open.read(self.position, end));
        match outcome {
            Some(Ok(records)) => {
                self.position = records.last().map_or(self.position, |last| last.offset.next());
                return Some(ReadEvent::Records(records));
            }
            // Reading it once more would find the same damage.
            Some(Err(error)) if is_damage(&error) => return Some(self.fail(error.to_string())),
            Some(Err(error)) => self.shared.want_reopening(opening, error.to_string()),
            None => {}
        }
        self.failed_opening = Some(opening);
        None
    }

    /// The report of a failure, which is the last.
    fn fail(&mut self, reason: String) -> ReadEvent {
        self.failed = true;
        ReadEvent::Failed(reason)
    }
}

impl Reader for CommandsReader {
    fn poll(&mut self, wait: Duration) -> Option<ReadEvent> {
        let started = Instant::now();
        loop {
            // A reopening in between must not make the whole wait begin anew: the caller looks at its own
            // flags after each poll.
            let left = wait.saturating_sub(started.elapsed());
            let shared = Arc::clone(&self.shared);
            match shared.wait_for(left, |state| self.next(state))? {
                Next::Failed(reason) => return Some(self.fail(reason)),
                Next::End => {
                    self.end_reported = Some(self.position);
                    return Some(ReadEvent::End(self.position));
                }
                Next::Records(opening, end) => {
                    if let Some(report) = self.read(opening, end) {
                        return Some(report);
                    }
                }
            }
        }
    }
}

/// Why a reader can't begin, or go on, beyond the end.
pub(super) fn ends_before(end: Position, position: Position) -> String {
    format!("the log ends at position {end}, before {position}")
}

/// Answers questions about the commands, on the thread that asks. The answers come from memory but for the
/// record at an offset, which is read from the file.
pub(super) struct CommandsQuestioner {
    pub(super) shared: Arc<Shared>,
}

impl CommandsQuestioner {
    fn ends(&self) -> Result<Ends, String> {
        // While the database is not open, commands of unknown outcome may stand behind the known end.
        self.shared.database().as_ref().ok_or_else(not_open)?;
        let end = self.shared.end();
        // Nothing is deleted, and nothing that is in the file is uncommitted.
        Ok(Ends { start: Position::START, high: end, stable: end })
    }

    /// The record at an offset; none behind the end.
    fn record_at(&self, offset: Offset) -> Result<Option<Record>, String> {
        if offset.position() >= self.shared.end() {
            return Ok(None);
        }
        // Before the read, so that a failure is not held against a database that was opened again meanwhile.
        let opening = self.shared.opening();
        let found = match self.shared.database().as_ref() {
            Some(open) => open.read(offset.position(), offset.next()),
            None => return Err(not_open()),
        };
        let mut records = found.map_err(|error| {
            // redb refuses everything after an error of its file; in a quiet log nobody else may notice.
            if !is_damage(&error) {
                self.shared.want_reopening(opening, error.to_string());
            }
            error.to_string()
        })?;
        Ok(records.pop())
    }

    /// An answer, or why there is none. There is nothing to set about this log's topics, so that they are
    /// always as they must be.
    fn answer(&self, question: Question) -> Result<Answer, String> {
        match question {
            Question::Ends(Topic::Commands) => Ok(Answer::Ends(Topic::Commands, self.ends()?)),
            Question::Ends(Topic::Table) => Err(no_table()),
            Question::RecordAt(offset) => Ok(Answer::RecordAt(offset, self.record_at(offset)?)),
            Question::Identity => Ok(Answer::Identity(self.shared.identity.clone())),
            Question::TopicSettings => Ok(Answer::TopicSettings(Ok(()))),
        }
    }
}

impl Questioner for CommandsQuestioner {
    fn ask(&mut self, question: Question) -> Answer {
        self.answer(question).unwrap_or_else(|reason| Answer::Failed(question, reason))
    }
}

pub(super) fn no_table() -> String {
    "the embedded log has no table".to_owned()
}

fn not_open() -> String {
    "the commands log failed and is being opened again".to_owned()
}
