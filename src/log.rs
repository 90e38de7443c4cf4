//! Logs: where commands and table records are kept. Bytes and offsets only; no log knows of addresses.
//!
//! A state machine (the follower, the projector) speaks to a log in [`Request`]s and hears of it in
//! [`Event`]s; the threads between them belong to [`service`](crate::service). A log of any kind gives the
//! same three things: readers ([`Log::open`]), answers ([`Log::questioner`]) and a place to append
//! commands to ([`CommandSink`]); one that has a table ([`TableLog`]) also a writer of it.
//!
//! ```text
//!                    Request::Read, Close          Reader      Event::Read(topic, session, …)
//!  state machine ──┬─────────────────────► thread ──────────┬──────────────────────────────► state machine
//!                  └─────────────────────► thread ──────────┘
//!                    Request::Ask          Questioner          Event::Answered(…)
//! ```
//!
//! Nothing that a log says reaches a state machine out of its time: a reader's reports carry the [`Session`]
//! that they were asked for in, and answers are dropped on request. So a state machine that has changed its
//! mind need not wait for what is still under way.

pub mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod settings;

use std::time::Duration;

use crate::record::{Offset, Position, Record};

pub mod memory;

/// The most records that one [`ReadEvent`] holds.
pub const READ_RECORDS_MAX: usize = 1_000;

/// The two logs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Topic {
    /// The commands: one partition, kept for ever.
    Commands,
    /// The table: one partition, compacted. Not every kind of log has one.
    Table,
}

/// Names one reading of a topic, so that what an earlier reading still had to say is recognised.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Session(u64);

impl Session {
    /// The session after this one. One counter serves both topics, for a state machine reads one at a time.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What a reader of a topic reports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReadEvent {
    /// The next committed records, in order, at most [`READ_RECORDS_MAX`].
    Records(Vec<Record>),
    /// Every committed record before this position was delivered. Reported once each time it is reached. The
    /// position may lie behind the last record: marks and aborted records have offsets, too.
    End(Position),
    /// The reader can't go on, for the reason given; it reports nothing more.
    Failed(String),
}

/// Where a topic begins and ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ends {
    /// The first offset that is still there.
    pub start: Position,
    /// The high watermark: behind every record, committed or not.
    pub high: Position,
    /// The last stable offset: what a reader can get to. Below `high` while a transaction is open. Asked for
    /// after `high`, because the order is what [`EndProof`](crate::ends::EndProof) rests on.
    pub stable: Position,
}

/// What a log is called: two logs with the same contents are still two.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: String,
    /// The topic that holds the commands.
    pub commands_topic: String,
}

/// What a state machine can ask of a log. Answered by a client of its own, because a question on the
/// reader that follows would wait behind its long poll.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Question {
    /// Where the topic begins and ends, high watermark first, then last stable offset.
    Ends(Topic),
    /// The record of the commands log at this offset.
    RecordAt(Offset),
    /// What the log is called.
    Identity,
    /// Whether the topics are set as they must be.
    TopicSettings,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// To [`Question::Ends`].
    Ends(Topic, Ends),
    /// To [`Question::RecordAt`]; none when there is no record at that offset, because it was taken away, is
    /// not there yet, or is a mark.
    RecordAt(Offset, Option<Record>),
    /// To [`Question::Identity`].
    Identity(Identity),
    /// To [`Question::TopicSettings`]: if they must not be so, what is wrong and how to mend it. What should
    /// be otherwise but may stay, and that we may not look, is no reason to stop: a log that finds that
    /// answers `Ok` and tells of it itself.
    TopicSettings(Result<(), String>),
    /// No answer could be had, for the reason given.
    Failed(Question, String),
}

impl Answer {
    /// What was asked.
    pub const fn question(&self) -> Question {
        match self {
            Self::Ends(topic, _) => Question::Ends(*topic),
            Self::RecordAt(offset, _) => Question::RecordAt(*offset),
            Self::Identity(_) => Question::Identity,
            Self::TopicSettings(_) => Question::TopicSettings,
            Self::Failed(question, _) => *question,
        }
    }
}

/// What a state machine hears of a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Time passed; at least once a second.
    Tick,
    /// A reader reports.
    Read(Topic, Session, ReadEvent),
    /// A question is answered: one that was asked since the last [`Request::DropAnswers`] or
    /// [`Request::RenewQuestioner`].
    Answered(Answer),
}

/// What a state machine asks to be done about a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// Throw away the topic's reader, if there is one, and open a new one from this position.
    Read(Topic, Session, Position),
    /// Throw away the topic's reader.
    Close(Topic),
    /// Ask a question.
    Ask(Question),
    /// Deliver no answer to what was asked so far: it may speak of how things were before an error.
    DropAnswers,
    /// Throw away the client that answers questions and make a new one. Its answers are dropped, too.
    RenewQuestioner,
}

/// A log could not be opened, read or asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LogError(pub String);

/// A place that keeps records.
pub trait Log: Send + Sync {
    /// Opens a reader of a topic from a position. It never begins elsewhere: a position that is not in the
    /// log is an error, here or as the first thing that the reader reports.
    ///
    /// # Errors
    /// When the topic can't be read from there.
    fn open(&self, topic: Topic, from: Position) -> Result<Box<dyn Reader>, LogError>;

    /// Makes a client that answers questions.
    fn questioner(&self) -> Box<dyn Questioner>;
}

/// Reads one topic. Lives on a thread of its own.
pub trait Reader: Send {
    /// The next report; none when there was nothing to report for `wait`.
    fn poll(&mut self, wait: Duration) -> Option<ReadEvent>;
}

/// Answers questions. Lives on a thread of its own.
pub trait Questioner: Send {
    /// Answers, however long it takes: to wait no longer, and to ask another client, is its asker's business.
    fn ask(&mut self, question: Question) -> Answer;
}

/// Called once an append has an outcome: the offset of each command, in order, or why there is none.
///
/// It runs on the log's own thread, so that it must be quick and must not panic.
pub type AppendDone = Box<dyn FnOnce(Result<Vec<Offset>, AppendError>) + Send>;

/// Takes commands into the log.
pub trait CommandSink: Send + Sync {
    /// Appends a group of command values, at once and in order, and calls `done` when they are durable.
    /// Never blocks.
    fn append(&self, values: Vec<Vec<u8>>, done: AppendDone);
}

/// Why a group of commands has no offsets.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AppendError {
    /// Nothing was written.
    #[error("{0}")]
    Unavailable(String),
    /// Some or all of it may be durable.
    #[error("{0}")]
    Unknown(String),
}

/// Key and value of one record of the table; no value is a tombstone.
pub type TableWrite = (Vec<u8>, Option<Vec<u8>>);

/// A log that has a table.
pub trait TableLog: Log {
    /// Makes a writer of the table that has fenced nobody yet. What keeps it from being made is the error of
    /// its [`fence`](TableWriter::fence).
    fn table_writer(&self) -> Box<dyn TableWriter>;
}

/// Writes the table, in transactions; whoever begins last fences all before it. Lives on a thread of its own.
pub trait TableWriter: Send {
    /// Fences every earlier writer and aborts what it left open.
    ///
    /// # Errors
    /// When the log can't be reached, or another writer is newer.
    fn fence(&mut self) -> Result<(), WriteError>;

    /// Writes all records in one transaction, or none of them.
    ///
    /// # Errors
    /// When another writer is newer, or the outcome is not known.
    fn commit(&mut self, writes: Vec<TableWrite>) -> Result<(), WriteError>;
}

/// Why a table transaction was not committed for certain.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WriteError {
    /// Another writer took over; nothing was written.
    #[error("another projector took over, or `table rebuild`")]
    Fenced,
    /// It may be written or not.
    #[error("{0}")]
    Unknown(String),
}
