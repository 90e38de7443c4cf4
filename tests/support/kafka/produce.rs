//! Many records at once, as fast as the broker takes them.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::Broker;

/// A million records take some seconds, of a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(300);

impl Broker {
    /// Appends records, each with or without a key, and waits until all of them are written.
    pub fn produce(&self, topic: &str, records: impl Iterator<Item = (Option<Vec<u8>>, Vec<u8>)>) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap()).set("enable.idempotence", "true");
        let producer: BaseProducer = config.create().expect("right settings");
        for (key, value) in records {
            let mut record = BaseRecord::<[u8], [u8]>::to(topic).payload(&value);
            record.key = key.as_deref();
            while let Err((error, refused)) = producer.send(record) {
                assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
                producer.poll(Duration::from_millis(1));
                record = refused;
            }
        }
        producer.flush(PATIENCE).expect("the broker takes it");
    }
}
