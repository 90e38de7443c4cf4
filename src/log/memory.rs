//! A log in memory that behaves like Kafka where that matters: transactions, fencing, control records,
//! isolation, compaction, retention, recreation. For tests and simulations; nothing in it is durable.
//!
//! What happens to it is decided by its caller alone: it has no thread, no clock and no chance. Faults are
//! calls: [`MemoryLog::set_outage`], [`MemoryLog::truncate`], [`MemoryLog::recreate`] and so on change what
//! the next read or question finds, and nothing else.
//!
//! What it imitates, and where a simpler log would hide faults of ours:
//!
//! - A transaction's mark takes an offset, and so do aborted records. The last record is not at the end.
//! - A reader stops at the first open transaction, though committed records lie behind it.
//! - A new writer of the table fences those before it and aborts what they left open; foreign producers, as
//!   those of the commands, are not concerned.
//! - A compaction leaves gaps, and keeps the last slot and all that is not yet stable.
//! - A topic that is made anew begins at offset 0 again, and a reader beyond its end fails; once it is
//!   longer, the reader goes on with the other records.
//!
//! - A commit is decided before readers see it. [`MemoryTableWriter::decide`] leaves the time between the two
//!   to the caller; [`TableWriter::commit`] leaves none.
//!
//! What it leaves out: partitions, batches, replication.

mod partition;

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::partition::{Delivery, Ending, Tombstones, TransactionId};
use self::partition::{Endings, Partition, Slot};
use super::{
    Answer, AppendDone, AppendError, CommandSink, Identity, Log, LogError, Question, Questioner, ReadEvent,
    Reader, TableWrite, TableWriter, Topic, WriteError,
};
use crate::record::{Offset, Position, Record, Timestamp};

/// The contents, and what was done to them.
#[derive(Debug, Default)]
struct Inner {
    commands: Partition,
    table: Partition,
    /// The transactions that ended; one that is not here is open.
    endings: Endings,
    last_transaction: TransactionId,
    /// Transactions whose commit is decided, and not written into the log yet: readers don't see it, and
    /// nobody can undo it.
    decided: BTreeSet<TransactionId>,
    /// The newest generation of table writers: only the writer that has it may write.
    generation: u64,
    identity: Identity,
    outage: bool,
    /// What is wrong with the settings of the topics.
    settings_refused: Option<String>,
}

/// The log. Clones share their contents.
///
/// ```
/// use portcullis::log::memory::{Ending, MemoryLog};
/// use portcullis::log::{Answer, Question, Topic};
/// use portcullis::record::{Position, Timestamp};
///
/// let (log, now) = (MemoryLog::default(), Timestamp::from_millis(0));
/// log.append_record(Topic::Commands, now, None, Some(b"WHITELIST 192.0.2.1"));
///
/// // Another producer's open transaction hides what is behind its first record …
/// let id = log.begin();
/// log.append_to(id, Topic::Commands, now, (b"key".to_vec(), Some(b"WHITELIST 192.0.2.2".to_vec())));
/// assert_eq!(log.read(Topic::Commands, Position::START)?.position, Position::new(1));
/// let Answer::Ends(_, ends) = log.answer(Question::Ends(Topic::Commands)) else { unreachable!() };
/// assert_eq!((ends.stable, ends.high), (Position::new(1), Position::new(2)));
///
/// // … until it ends. Its mark has an offset, and no record.
/// log.end(id, Topic::Commands, Ending::Abort);
/// let delivery = log.read(Topic::Commands, Position::START)?;
/// assert_eq!((delivery.records.len(), delivery.position), (1, Position::new(3)));
/// # Ok::<(), portcullis::log::LogError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    inner: Arc<(Mutex<Inner>, Condvar)>,
}

impl Inner {
    fn partition(&self, topic: Topic) -> &Partition {
        match topic {
            Topic::Commands => &self.commands,
            Topic::Table => &self.table,
        }
    }

    fn partition_mut(&mut self, topic: Topic) -> &mut Partition {
        match topic {
            Topic::Commands => &mut self.commands,
            Topic::Table => &mut self.table,
        }
    }

    fn begin(&mut self) -> TransactionId {
        let id = self.last_transaction.next();
        self.last_transaction = id;
        id
    }

    fn end(&mut self, topic: Topic, id: TransactionId, ending: Ending) {
        self.decided.remove(&id);
        self.endings.insert(id, ending);
        self.partition_mut(topic).end(id);
    }

    fn answer(&self, question: Question) -> Answer {
        if self.outage {
            return Answer::Failed(question, "the log is down".to_owned());
        }
        match question {
            Question::Ends(topic) => {
                let partition = self.partition(topic);
                Answer::Ends(topic, partition.ends())
            }
            Question::RecordAt(offset) => {
                Answer::RecordAt(offset, self.commands.record_at(offset, &self.endings).cloned())
            }
            Question::Identity => Answer::Identity(self.identity.clone()),
            Question::TopicSettings => {
                Answer::TopicSettings(self.settings_refused.clone().map_or(Ok(()), Err))
            }
        }
    }
}

impl MemoryLog {
    /// An empty log of this name.
    pub fn new(identity: Identity) -> Self {
        let inner = Inner { identity, ..Inner::default() };
        Self { inner: Arc::new((Mutex::new(inner), Condvar::new())) }
    }

    /// A test that panicked with the lock must not hide its failure behind others.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the contents and wakes the readers that wait for news.
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.lock());
        self.inner.1.notify_all();
        result
    }

    /// Appends one record without a transaction; also during an outage, which is one of readers and writers
    /// and not of the log itself.
    pub fn append_record(
        &self,
        topic: Topic,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Offset {
        let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        self.change(|inner| {
            inner.partition_mut(topic).push(|offset| Slot::Plain(Record { offset, timestamp, key, value }))
        })
    }

    /// Begins a transaction of a foreign producer, which no fence concerns.
    pub fn begin(&self) -> TransactionId {
        self.change(Inner::begin)
    }

    /// Appends one record to a transaction, which hides it and all behind it from readers until its end.
    pub fn append_to(
        &self,
        id: TransactionId,
        topic: Topic,
        timestamp: Timestamp,
        write: TableWrite,
    ) -> Offset {
        let (key, value) = (Some(write.0), write.1);
        self.change(|inner| {
            inner
                .partition_mut(topic)
                .push(|offset| Slot::Transactional(id, Record { offset, timestamp, key, value }))
        })
    }

    /// Ends a transaction, which writes its mark; one that has ended stays as it is.
    pub fn end(&self, id: TransactionId, topic: Topic, ending: Ending) {
        self.change(|inner| {
            if !inner.endings.contains_key(&id) {
                inner.end(topic, id, ending);
            }
        });
    }

    /// Whether a transaction is open and its commit not decided: what a broker aborts once it is too old.
    pub fn is_undecided(&self, id: TransactionId) -> bool {
        let inner = self.lock();
        !inner.endings.contains_key(&id) && !inner.decided.contains(&id)
    }

    /// What a reader that stands at `from` gets next. The end of the log is in it: nothing is delivered
    /// there, and that is no error.
    ///
    /// # Errors
    /// When `from` lies before the log's start or beyond its end, or the log is down.
    pub fn read(&self, topic: Topic, from: Position) -> Result<Delivery, LogError> {
        let inner = self.lock();
        if inner.outage {
            return Err(LogError("the log is down".to_owned()));
        }
        inner.partition(topic).read(from, &inner.endings)
    }

    /// Answers a question at once.
    pub fn answer(&self, question: Question) -> Answer {
        self.lock().answer(question)
    }

    /// Compacts the table; also drops its tombstones if they are not to be kept.
    pub fn compact(&self, tombstones: Tombstones) {
        self.change(|inner| inner.table.compact(&inner.endings, tombstones));
    }

    /// Deletes every record before a position, as retention does.
    pub fn delete_before(&self, topic: Topic, position: Position) {
        self.change(|inner| inner.partition_mut(topic).delete_before(position));
    }

    /// Deletes every record from a position on, as an unclean leader election does.
    pub fn truncate(&self, topic: Topic, position: Position) {
        self.change(|inner| inner.partition_mut(topic).truncate(position));
    }

    /// Deletes the topic and creates it again, empty. Nobody is told: that is the fault to be noticed.
    pub fn recreate(&self, topic: Topic) {
        self.change(|inner| *inner.partition_mut(topic) = Partition::default());
    }

    /// Begins or ends an outage: reads, questions, fences, commits and appended commands fail for as long as
    /// it lasts.
    pub fn set_outage(&self, outage: Outage) {
        self.change(|inner| inner.outage = outage == Outage::Down);
    }

    /// Changes the settings of the topics: none if they are as they must be, else what is wrong.
    pub fn set_topic_settings(&self, refused: Option<&str>) {
        self.change(|inner| inner.settings_refused = refused.map(str::to_owned));
    }

    /// Gives the log another name, as a cluster that was restored elsewhere has.
    pub fn rename(&self, identity: Identity) {
        self.change(|inner| inner.identity = identity);
    }

    /// A writer of the table, not yet fencing anybody. `clock` gives the timestamps of what it writes.
    pub fn table_writer(&self, clock: fn() -> Timestamp) -> MemoryTableWriter {
        MemoryTableWriter { log: self.clone(), generation: None, clock }
    }

    /// A place to append commands to. `clock` gives their timestamps; `done` is called before the append
    /// returns.
    pub fn command_sink(&self, clock: fn() -> Timestamp) -> MemoryCommandSink {
        MemoryCommandSink { log: self.clone(), clock }
    }
}

/// Whether a log can be reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outage {
    /// It can't.
    Down,
    /// It can.
    Up,
}

impl Log for MemoryLog {
    fn open(&self, topic: Topic, from: Position) -> Result<Box<dyn Reader>, LogError> {
        let log = self.clone();
        Ok(Box::new(MemoryReader { log, topic, position: from, end_reported: None, failed: false }))
    }

    fn questioner(&self) -> Box<dyn Questioner> {
        Box::new(self.clone())
    }
}

impl Questioner for MemoryLog {
    fn ask(&mut self, question: Question) -> Answer {
        self.answer(question)
    }
}

/// Reads one topic of a [`MemoryLog`].
#[derive(Debug)]
pub struct MemoryReader {
    log: MemoryLog,
    topic: Topic,
    position: Position,
    /// The end that was reported last, so that each is reported once.
    end_reported: Option<Position>,
    failed: bool,
}

impl MemoryReader {
    /// What there is to report at once; none if nothing is new, or if it has failed.
    pub fn report(&mut self) -> Option<ReadEvent> {
        if self.failed {
            return None;
        }
        match self.log.read(self.topic, self.position) {
            Err(error) => {
                self.failed = true;
                Some(ReadEvent::Failed(error.0))
            }
            Ok(Delivery { records, position, at_end }) => {
                self.position = position;
                if !records.is_empty() {
                    return Some(ReadEvent::Records(records));
                }
                let news = at_end && self.end_reported != Some(position);
                self.end_reported = news.then_some(position).or(self.end_reported);
                news.then_some(ReadEvent::End(position))
            }
        }
    }
}

impl Reader for MemoryReader {
    fn poll(&mut self, wait: Duration) -> Option<ReadEvent> {
        self.report().or_else(|| {
            let log = self.log.clone();
            let _woken = log.inner.1.wait_timeout(log.lock(), wait);
            drop(_woken);
            self.report()
        })
    }
}

/// Writes the table of a [`MemoryLog`].
#[derive(Debug)]
pub struct MemoryTableWriter {
    log: MemoryLog,
    /// None before its first fence: as a producer that never began may not write.
    generation: Option<u64>,
    clock: fn() -> Timestamp,
}

impl MemoryTableWriter {
    /// Writes records in a transaction that stays open, as a writer does that dies before its commit.
    ///
    /// # Errors
    /// When another writer is newer.
    pub fn write_open(&mut self, writes: Vec<TableWrite>) -> Result<TransactionId, WriteError> {
        let id = self.log.change(|inner| match self.generation == Some(inner.generation) {
            true => Ok(inner.begin()),
            false => Err(WriteError::Fenced),
        })?;
        for write in writes {
            self.log.append_to(id, Topic::Table, (self.clock)(), write);
        }
        Ok(id)
    }

    /// Decides that an open transaction of this writer is committed. Readers see it once the log
    /// [ends](MemoryLog::end) it, or the next writer has fenced this one, which completes what is decided.
    ///
    /// # Errors
    /// When another writer is newer: then the transaction was aborted.
    pub fn decide(&mut self, id: TransactionId) -> Result<(), WriteError> {
        self.log.change(|inner| {
            if self.generation != Some(inner.generation) || inner.endings.contains_key(&id) {
                return Err(WriteError::Fenced);
            }
            inner.decided.insert(id);
            Ok(())
        })
    }
}

impl TableWriter for MemoryTableWriter {
    fn fence(&mut self) -> Result<(), WriteError> {
        let generation = &mut self.generation;
        self.log.change(|inner| {
            if inner.outage {
                return Err(WriteError::Unknown("the log is down".to_owned()));
            }
            inner.generation += 1;
            *generation = Some(inner.generation);
            for id in inner.table.open_transactions() {
                let ending = if inner.decided.contains(&id) { Ending::Commit } else { Ending::Abort };
                inner.end(Topic::Table, id, ending);
            }
            Ok(())
        })
    }

    fn commit(&mut self, writes: Vec<TableWrite>) -> Result<(), WriteError> {
        if self.log.lock().outage {
            return Err(WriteError::Unknown("the log is down".to_owned()));
        }
        let id = self.write_open(writes)?;
        self.log.end(id, Topic::Table, Ending::Commit);
        Ok(())
    }
}

/// Appends commands to a [`MemoryLog`].
#[derive(Clone, Debug)]
pub struct MemoryCommandSink {
    log: MemoryLog,
    clock: fn() -> Timestamp,
}

impl CommandSink for MemoryCommandSink {
    fn append(&self, values: Vec<Vec<u8>>, done: AppendDone) {
        let outcome = self.log.change(|inner| {
            if inner.outage {
                return Err(AppendError::Unavailable("the log is down".to_owned()));
            }
            let timestamp = (self.clock)();
            let append = |value| {
                let record = |offset| Record { offset, timestamp, key: None, value: Some(value) };
                inner.commands.push(|offset| Slot::Plain(record(offset)))
            };
            Ok(values.into_iter().map(append).collect())
        });
        done(outcome);
    }
}

#[cfg(test)]
mod tests;
