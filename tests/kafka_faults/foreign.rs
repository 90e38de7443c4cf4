//! Producers of somebody else's, which write what none of ours would.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// So long that only what hangs gets there.
const LONG: Duration = Duration::from_secs(60);

/// A producer with these settings of librdkafka.
pub(crate) fn producer(bootstrap: &str, settings: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().expect("right settings")
}

/// A producer that writes in transactions; nobody aborts one that it leaves open for so long.
pub(crate) fn transactional(bootstrap: &str, id: &str, timeout: Duration) -> BaseProducer {
    let timeout = timeout.as_millis().to_string();
    let producer = producer(bootstrap, &[("transactional.id", id), ("transaction.timeout.ms", &timeout)]);
    producer.init_transactions(LONG).expect("the broker answers");
    producer
}

/// Key and value, each of which may be absent.
pub(crate) type Pair<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// Writes records as no command-line tool can, and waits until the broker has them.
pub(crate) fn write(producer: &BaseProducer, topic: &str, pairs: &[Pair<'_>]) {
    for (key, value) in pairs {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(0);
        (record.key, record.payload) = (*key, *value);
        producer.send(record).expect("there is room");
    }
    producer.flush(LONG).expect("the broker takes it");
    assert_eq!(producer.in_flight_count(), 0);
}

/// Writes values without keys.
pub(crate) fn write_values(producer: &BaseProducer, topic: &str, values: &[&[u8]]) {
    let pairs: Vec<Pair<'_>> = values.iter().map(|value| (None, Some(*value))).collect();
    write(producer, topic, &pairs);
}

/// Deletes a topic and makes it anew, after so long.
pub(crate) fn recreate(bootstrap: &str, topic: &str, configs: &[(&str, &str)], after: Duration) {
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("right settings");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let options = AdminOptions::new();
    let done = |results: Vec<Result<String, _>>| results.iter().all(Result::is_ok);
    assert!(done(runtime.block_on(client.delete_topics(&[topic], &options)).expect("it answers")));
    std::thread::sleep(after);
    let new = configs
        .iter()
        .fold(NewTopic::new(topic, 1, TopicReplication::Fixed(1)), |new, (key, value)| new.set(key, value));
    let until = Instant::now() + LONG;
    // What is deleted may be there for a moment.
    while !done(runtime.block_on(client.create_topics([&new], &options)).expect("it answers")) {
        assert!(Instant::now() < until, "{topic} is not made anew");
    }
}
