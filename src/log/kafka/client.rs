//! How the clients of librdkafka are set up: what is ours, what are only our defaults, what the user says.

use std::thread;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;
use rdkafka::types::RDKafkaConfRes;

use super::cause::Reports;
use crate::log::Topic;
use crate::log::settings::{ClientValue, KafkaSettings, Wrong};

/// How long a question to a broker may take.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The one partition of each topic.
pub(super) const PARTITION: i32 = 0;
/// The group of our consumers. None ever joins it: librdkafka wants a name before it assigns.
const GROUP: &str = "portcullis";

/// A consumer that keeps what librdkafka reports.
pub(super) type Consumer = BaseConsumer<Reports>;

/// What every client has, and nobody may change. A topic that a client makes by itself, because its name is
/// wrong or it was deleted, is set as it must not be.
const OURS: [(&str, &str); 1] = [("allow.auto.create.topics", "false")];

/// What librdkafka would do otherwise takes long to notice a broker that is gone, and longer to return to it.
/// The user may set others.
const DEFAULTS: [(&str, &str); 6] = [
    ("client.id", "portcullis"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.timeout.ms", "5000"),
    ("socket.connection.setup.timeout.ms", "2000"),
    ("topic.metadata.refresh.interval.ms", "30000"),
    // Commands are small, and answered one by one.
    ("socket.nagle.disable", "true"),
];

const CONSUMER_DEFAULTS: [(&str, &str); 3] = [
    ("fetch.queue.backoff.ms", "5"),
    ("fetch.error.backoff.ms", "100"),
    // The end of a topic is told when a fetch comes back empty, so that a start takes this long at least. An
    // idle sidecar sends a fetch as often.
    ("fetch.wait.max.ms", "200"),
];

/// What makes a consumer deliver every committed record once, in order, or say that it can't. The defaults of
/// two of these lose records, or deliver damaged ones, without an error.
const CONSUMER_OURS: [(&str, &str); 5] = [
    ("group.id", GROUP),
    ("enable.partition.eof", "true"),
    ("auto.offset.reset", "error"),
    ("check.crcs", "true"),
    ("enable.auto.commit", "false"),
];

/// Most read the table once, to its end, so that nothing is gained by waiting there for long.
const TABLE_READER_OURS: [(&str, &str); 1] = [("fetch.wait.max.ms", "50")];

/// A question is about one record at most, so that its consumer need not fetch ahead nor wait for more.
const QUESTIONER_OURS: [(&str, &str); 3] =
    [("queued.min.messages", "1"), ("fetch.message.max.bytes", "65536"), ("fetch.wait.max.ms", "10")];

/// What every producer has: each record once and in order, acknowledged when all in-sync replicas have it.
const PRODUCER_OURS: [(&str, &str); 2] = [("enable.idempotence", "true"), ("acks", "all")];

/// What the producer of commands has on top: whoever sent one waits for its answer.
const COMMANDS_OURS: [(&str, &str); 3] =
    [("message.timeout.ms", "5000"), ("linger.ms", "0"), ("queue.buffering.max.messages", "110000")];

/// What the producer of the table has on top. Rows come many at once: a short wait makes large batches.
const TABLE_OURS: [(&str, &str); 3] =
    [("transaction.timeout.ms", "60000"), ("message.timeout.ms", "55000"), ("linger.ms", "1")];

/// What the transactional id begins with. The same for all projectors of a table, so that one fences the
/// other, and so not for the configuration to say.
const TRANSACTIONAL_ID: &str = "portcullis.project:";

/// The transactional id of whoever writes this table.
pub(super) fn transactional_id(table_topic: &str) -> String {
    format!("{TRANSACTIONAL_ID}{table_topic}")
}

/// Which records a consumer delivers, and which end of a topic it is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Isolation {
    Committed,
    Uncommitted,
}

/// Makes clients for one cluster.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) settings: KafkaSettings,
}

impl Clients {
    pub(super) fn new(settings: KafkaSettings) -> Self {
        Self { settings }
    }

    /// The name of a topic; none if there is no table.
    pub(super) fn topic(&self, topic: Topic) -> Option<&str> {
        match topic {
            Topic::Commands => Some(&self.settings.commands_topic),
            Topic::Table => self.settings.table_topic.as_deref(),
        }
    }

    /// The topics that there are to be, with their names.
    pub(super) fn topics(&self) -> impl Iterator<Item = (Topic, &str)> {
        [Topic::Commands, Topic::Table].into_iter().filter_map(|topic| Some((topic, self.topic(topic)?)))
    }

    /// Makes librdkafka look at the settings, without a connection.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        for (key, ClientValue(value)) in &self.settings.client {
            // One by one, so that the error can name the key.
            let one = ClientConfig::new().set(key, value).create_native_config();
            one.map_err(|error| Wrong { key: format!("client.{key}"), reason: why(&error) })?;
        }
        // … and together, because two may not fit: a mechanism without a password, a file that is not there.
        // Without a broker to connect to and a group to leave, a client that was made for that is gone at once.
        let nowhere = |mut config: ClientConfig| {
            config.remove("bootstrap.servers");
            config.remove("group.id");
            config
        };
        let consumer = nowhere(self.consumer(Isolation::Committed, &[])).create::<BaseConsumer>().map(drop);
        let producer = |config| nowhere(config).create::<BaseProducer>().map(drop);
        consumer
            .and_then(|()| producer(self.commands_producer()))
            .and_then(|()| producer(self.table_producer("any")))
            .map_err(|error| Wrong { key: "client".to_owned(), reason: why(&error) })
    }

    /// The settings of every client, ours last so that nothing overrides them.
    fn config(&self, defaults: &[(&str, &str)], ours: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        let user =
            self.settings.client.iter().map(|(key, ClientValue(value))| (key.as_str(), value.as_str()));
        let (defaults, ours) = (DEFAULTS.iter().chain(defaults), OURS.iter().chain(ours));
        for (key, value) in defaults.copied().chain(user).chain(ours.copied()) {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.settings.bootstrap_servers);
        config
    }

    fn consumer(&self, isolation: Isolation, ours: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.config(&CONSUMER_DEFAULTS, &[&CONSUMER_OURS, ours].concat());
        let level = match isolation {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        };
        config.set("isolation.level", level);
        config
    }

    /// A consumer that reads a topic.
    pub(super) fn reader(&self, topic: Topic) -> Result<Consumer, KafkaError> {
        let ours: &[_] = if topic == Topic::Table { &TABLE_READER_OURS } else { &[] };
        Consumer::from_config_and_context(&self.consumer(Isolation::Committed, ours), Reports::default())
    }

    /// A consumer that is asked questions.
    pub(super) fn asker(&self, isolation: Isolation) -> Result<Consumer, String> {
        let config = self.consumer(isolation, &QUESTIONER_OURS);
        Consumer::from_config_and_context(&config, Reports::default())
            .map_err(|error| Self::no_client(&error))
    }

    /// The settings of whoever writes commands.
    pub(super) fn commands_producer(&self) -> ClientConfig {
        self.config(&[], &[&PRODUCER_OURS[..], &COMMANDS_OURS].concat())
    }

    /// The settings of whoever writes this table.
    pub(super) fn table_producer(&self, table_topic: &str) -> ClientConfig {
        let mut config = self.config(&[], &[&PRODUCER_OURS[..], &TABLE_OURS].concat());
        config.set("transactional.id", transactional_id(table_topic));
        config
    }

    /// A client that asks for settings of topics, and creates them.
    pub(super) fn admin(&self) -> Result<AdminClient<Reports>, KafkaError> {
        AdminClient::from_config_and_context(&self.config(&[], &[]), Reports::default())
    }

    /// A consumer could not be made.
    pub(super) fn no_client(error: &KafkaError) -> String {
        format!("no Kafka client: {}", why(error))
    }
}

/// Lets go of a client, on a thread of its own: librdkafka takes its time to close one, or waits for a broker.
pub(super) fn discard<T: Send + 'static>(client: T) {
    // Without a thread it is dropped here, by the closure that came back.
    let _detached = thread::Builder::new().name("discard".to_owned()).spawn(move || drop(client));
}

/// What librdkafka finds wrong with settings.
fn why(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, key, _) => {
            format!("librdkafka has no setting `{key}`")
        }
        KafkaError::ClientConfig(_, description, _, _) => description.clone(),
        KafkaError::ClientCreation(description) => description.clone(),
        other => other.to_string(),
    }
}
