//! Writes the table, in transactions. Every claim of the role has a writer of its own, and so a producer of
//! its own: its first act fences all before it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::cause::{Reports, WRITE};
use super::client::{Clients, PARTITION};
use crate::log::{TableWrite, TableWriter, Topic, WriteError};

/// How long fencing may take: the coordinator may have to end a transaction of an earlier writer first.
const FENCE_MAX: Duration = Duration::from_secs(60);
/// How long is waited for a coordinator before it is asked again.
const COORDINATOR_WAIT: Duration = Duration::from_millis(100);
/// How long a transaction may take from its first record to its commit; the broker aborts it after 60 s.
const TRANSACTION_MAX: Duration = Duration::from_secs(60);
/// How long it is tried to abort a transaction that failed.
const ABORT_MAX: Duration = Duration::from_secs(2);
/// How long is waited at most for room in librdkafka's queue before it is tried again.
const ROOM_WAIT: Duration = Duration::from_millis(10);

/// A producer that hears of its records on a thread of its own.
type Producer = ThreadedProducer<Deliveries>;

/// Writes the table, as one producer.
pub(super) struct KafkaTableWriter {
    clients: Arc<Clients>,
    producer: Option<Producer>,
}

impl KafkaTableWriter {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients, producer: None }
    }

    fn topic(&self) -> Result<&str, WriteError> {
        self.clients
            .topic(Topic::Table)
            .ok_or_else(|| WriteError::Unknown("there is no table_topic in [log]".to_owned()))
    }

    /// What an error means for the role. That another writer is newer is told by a fatal error of the client,
    /// behind whatever failed first.
    fn lost(&self, producer: &Producer, error: &KafkaError) -> WriteError {
        let fatal = producer.client().fatal_error().map(|(code, _)| code);
        let code = error.rdkafka_error_code();
        if [fatal, code].into_iter().flatten().any(is_fenced) {
            return WriteError::Fenced;
        }
        let topic = self.clients.topic(Topic::Table).unwrap_or_default();
        // Records that never left us say nothing of why. A transaction that can't go on does, when it is asked
        // to begin anew; it can't.
        let ended = match code {
            Some(Code::PurgeQueue | Code::PurgeInflight) => producer.begin_transaction().err(),
            _ => None,
        };
        let error = ended.as_ref().unwrap_or(error);
        WriteError::Unknown(producer.context().reports.explain(error, topic, WRITE, &self.clients.settings))
    }

    /// Everything of one transaction but its end.
    fn write(
        producer: &Producer,
        topic: &str,
        writes: &[TableWrite],
        until: Instant,
    ) -> Result<(), KafkaError> {
        let deliveries = producer.context();
        let before = deliveries.delivered();
        producer.begin_transaction()?;
        for (key, value) in writes {
            let mut record = BaseRecord::to(topic).partition(PARTITION).key(key.as_slice());
            record.payload = value.as_deref();
            // A full queue is no error but the pace of the broker.
            while let Err((error, refused)) = producer.send(record) {
                if error.rdkafka_error_code() != Some(Code::QueueFull) || Instant::now() >= until {
                    return Err(error);
                }
                let delivered = deliveries.delivered();
                deliveries.wait_for(delivered + 1, Instant::now() + ROOM_WAIT)?;
                record = refused;
            }
        }
        // Waited for here and not in the commit, which looks for acknowledgements ten times a second only.
        deliveries.wait_for(before + writes.len(), until)
    }
}

/// Fences all earlier producers. A coordinator that is not there yet, because the brokers have just started,
/// may be a moment later.
fn init(producer: &Producer) -> Result<(), KafkaError> {
    let until = Instant::now() + FENCE_MAX;
    loop {
        match producer.init_transactions(until.saturating_duration_since(Instant::now())) {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < until => {
                thread::sleep(COORDINATOR_WAIT);
            }
            outcome => return outcome,
        }
    }
}

/// Whether an error says that another writer is newer.
const fn is_fenced(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

impl TableWriter for KafkaTableWriter {
    fn fence(&mut self) -> Result<(), WriteError> {
        self.producer = None;
        let config = self.clients.table_producer(self.topic()?);
        let producer = Producer::from_config_and_context(&config, Deliveries::default())
            .map_err(|error| WriteError::Unknown(Clients::no_client(&error)))?;
        match init(&producer) {
            Err(error) => Err(self.lost(&producer, &error)),
            Ok(()) => {
                self.producer = Some(producer);
                Ok(())
            }
        }
    }

    fn commit(&mut self, writes: Vec<TableWrite>) -> Result<(), WriteError> {
        let Some(producer) = &self.producer else {
            return Err(WriteError::Unknown("no writer of the table was fenced in yet".to_owned()));
        };
        let until = Instant::now() + TRANSACTION_MAX;
        let written = Self::write(producer, self.topic()?, &writes, until);
        let committed = written
            .and_then(|()| producer.commit_transaction(until.saturating_duration_since(Instant::now())));
        committed.map_err(|error| {
            let lost = self.lost(producer, &error);
            // Else readers of the table would stop before what it wrote until the broker aborts it. Whoever
            // was fenced has nothing open any more.
            if lost != WriteError::Fenced {
                let _aborted_later_by_the_broker = producer.abort_transaction(ABORT_MAX);
            }
            lost
        })?;
        producer.context().reports.clear();
        Ok(())
    }
}

/// Hears what became of each record.
#[derive(Debug, Default)]
struct Deliveries {
    reports: Reports,
    heard: Mutex<Heard>,
    more: Condvar,
}

/// What was heard of the records of a producer.
#[derive(Debug, Default)]
struct Heard {
    /// How many the broker has.
    delivered: usize,
    /// The error of the first that it has not; a producer with one is never used again.
    failure: Option<KafkaError>,
}

impl Deliveries {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn delivered(&self) -> usize {
        self.heard().delivered
    }

    /// Waits until so many records are delivered, or until then; an error if any failed.
    fn wait_for(&self, delivered: usize, until: Instant) -> Result<(), KafkaError> {
        let wait = until.saturating_duration_since(Instant::now());
        let waits = |heard: &mut Heard| heard.delivered < delivered && heard.failure.is_none();
        let heard = self.more.wait_timeout_while(self.heard(), wait, waits);
        let (heard, _) = heard.unwrap_or_else(PoisonError::into_inner);
        heard.failure.clone().map_or(Ok(()), Err)
    }
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        let mut heard = self.heard();
        match delivery {
            Ok(_) => heard.delivered += 1,
            Err((error, _)) => drop(heard.failure.get_or_insert_with(|| error.clone())),
        }
        self.more.notify_all();
    }
}
