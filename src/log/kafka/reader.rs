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

/// Reads one topic from a position on.
pub(super) struct KafkaReader {
    clients: Arc<Clients>,
    consumer: Consumer,
    topic: String,
    /// Everything before it was reported.
    position: Position,
    /// What came behind the records that were reported last.
    pending: Option<ReadEvent>,
    /// Whether anything was reported: until then a broker that can't be reached takes nothing away.
    begun: bool,
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
        Ok(Self { clients, consumer, topic: name, position, pending: None, begun: false })
    }

    /// How far the consumer has got. Behind the last record if marks of transactions or records of aborted
    /// ones follow it: they are nowhere else to be seen.
    fn reached(&self) -> Position {
        let positions = self.consumer.position();
        let element = positions.as_ref().ok().and_then(|list| {
            list.find_partition(&self.topic, PARTITION).and_then(|element| element.offset().to_raw())
        });
        // Negative numbers are librdkafka's words for places, like "nothing consumed yet".
        element
            .and_then(|raw| u64::try_from(raw).ok())
            .map_or(self.position, |raw| self.position.max(Position::new(raw)))
    }

    /// What to report of an error; none if it is none of ours.
    fn failed(&self, error: &KafkaError) -> Option<ReadEvent> {
        let code = error.rdkafka_error_code();
        // The group is never joined, and whether we may is nobody's business.
        let of_group = code == Some(Code::GroupAuthorizationFailed);
        // Nothing was read yet, so that nothing can be missed by waiting for a broker to come.
        let waits = !self.begun && code.is_some_and(is_outage);
        let why = || self.consumer.context().explain(error, &self.topic, READ, &self.clients.settings);
        (!of_group && !waits).then(|| ReadEvent::Failed(why()))
    }

    /// Reports records, and what came behind them the next time.
    fn report(&mut self, records: Vec<Record>, behind: Option<ReadEvent>) -> Option<ReadEvent> {
        let Some(last) = records.last() else {
            self.begun |= behind.is_some();
            return behind;
        };
        self.begun = true;
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
                    let end = ReadEvent::End(self.reached());
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
