//! Reads one topic: one consumer, assigned to one partition from one position.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset as Place, TopicPartitionList};

use super::cause::{READ, is_outage};
use super::client::{Clients, Consumer, PARTITION};
use super::questioner::ends;
use crate::log::{LogError, READ_RECORDS_MAX, ReadEvent, Reader, Topic};
use crate::record::{Offset, Position, Record, Timestamp};

/// How long a reader that was just opened may take to find a broker.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Reads one topic from a position on.
pub(super) struct KafkaReader {
    clients: Arc<Clients>,
    consumer: Consumer,
    topic: String,
    /// Everything before it was reported.
    position: Position,
    /// What came behind the records that were reported last.
    pending: Option<ReadEvent>,
    /// Until when a broker that can't be reached is waited for; over once anything was reported.
    connects_until: Instant,
}

impl KafkaReader {
    pub(super) fn open(clients: Arc<Clients>, topic: Topic, from: Position) -> Result<Self, LogError> {
        let name =
            clients.topic(topic).ok_or_else(|| LogError("there is no table topic in [log]".to_owned()))?;
        let name = name.to_owned();
        let consumer = clients.reader(topic).map_err(|error| LogError(Clients::no_client(&error)))?;
        // A compacted topic may begin later than at 0, and is whole all the same.
        let position = match (topic, from) {
            (Topic::Table, Position::START) => ends(&consumer, &name, &clients).map_err(LogError)?.0,
            (_, from) => from,
        };
        assign_at(&consumer, &name, position.offset()).map_err(|error| LogError(error.to_string()))?;
        let connects_until = Instant::now() + CONNECT_MAX;
        Ok(Self { clients, consumer, topic: name, position, pending: None, connects_until })
    }

    /// How far the consumer has got with these records: behind the last one if marks of transactions, or
    /// records of aborted ones, follow it. They are nowhere else to be seen.
    fn reached(&self, records: &[Record]) -> Position {
        let read = records.last().map_or(self.position, |last| last.offset.next());
        let positions = self.consumer.position();
        let element = positions.as_ref().ok().and_then(|list| {
            list.find_partition(&self.topic, PARTITION).and_then(|element| element.offset().to_raw())
        });
        // Negative numbers are librdkafka's words for places, like "nothing consumed yet".
        let consumed = element.and_then(|raw| u64::try_from(raw).ok()).map_or(read, Position::new);
        read.max(consumed)
    }

    /// What to report of an error; none if it is none of ours.
    fn failed(&self, error: &KafkaError) -> Option<ReadEvent> {
        let code = error.rdkafka_error_code();
        // The group is never joined, and whether we may is nobody's business.
        let of_group = code == Some(Code::GroupAuthorizationFailed);
        // Of several addresses the first that are tried may lead nowhere. For longer it is not waited: what
        // comes up then may be another log than the one that was checked before this reader was opened.
        let waits = Instant::now() < self.connects_until && code.is_some_and(is_outage);
        let why = || self.consumer.context().explain(error, &self.topic, READ, &self.clients.settings);
        (!of_group && !waits).then(|| ReadEvent::Failed(why()))
    }

    /// Reports records, and what came behind them the next time.
    fn report(&mut self, records: Vec<Record>, behind: Option<ReadEvent>) -> Option<ReadEvent> {
        if behind.is_some() || !records.is_empty() {
            self.connects_until = Instant::now();
        }
        let Some(last) = records.last() else { return behind };
        self.position = last.offset.next();
        self.pending = behind;
        Some(ReadEvent::Records(records))
    }
}

impl Reader for KafkaReader {
    fn poll(&mut self, wait: Duration) -> Option<ReadEvent> {
        if let Some(event) = self.pending.take() {
            return Some(event);
        }
        let until = Instant::now() + wait;
        let mut records = Vec::new();
        while records.len() < READ_RECORDS_MAX {
            // With something to report, only what is there already is waited for.
            let wait = match records.is_empty() {
                true => until.saturating_duration_since(Instant::now()),
                false => Duration::ZERO,
            };
            match self.consumer.poll(wait) {
                Some(Ok(message)) => records.push(record(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    let end = ReadEvent::End(self.reached(&records));
                    return self.report(records, Some(end));
                }
                Some(Err(error)) => {
                    if let Some(failed) = self.failed(&error) {
                        return self.report(records, Some(failed));
                    }
                }
                None => break,
            }
        }
        self.report(records, None)
    }
}

/// Makes a consumer read the topic from an offset, whatever it read before.
pub(super) fn assign_at(consumer: &Consumer, topic: &str, offset: Offset) -> Result<(), KafkaError> {
    let place = Place::Offset(i64::try_from(offset.number()).unwrap_or(i64::MAX));
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, PARTITION, place)?;
    consumer.assign(&list)
}

/// A record as we keep it. A log that stamps no times is refused by its settings, so that a record without a
/// time is none to be folded by it; it counts as being of 1970.
pub(super) fn record(message: &BorrowedMessage<'_>) -> Record {
    Record {
        offset: Offset::new(u64::try_from(message.offset()).unwrap_or_default()),
        timestamp: Timestamp::from_millis(message.timestamp().to_millis().unwrap_or_default()),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
    }
}
