//! The `[log]` section: which log the commands are in, and how it is reached.
//!
//! It is here in every build, also in one without the Kafka client, so that the same file is read everywhere
//! and says what is wrong in the same words.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::record::Offset;

/// The longest name of a topic that Kafka takes.
const TOPIC_BYTES_MAX: usize = 249;

/// Where the commands log is kept.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// In one file in the data directory.
    #[default]
    Embedded,
    /// In a topic of Apache Kafka.
    Kafka,
}

/// The `[log]` section as it is written.
///
/// `skip_offsets` is part of the fold: with other offsets the same commands make another view.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Where the commands log is kept.
    pub kind: LogKind,
    /// Kafka: where to find the first broker, `host:port`, several with commas.
    pub bootstrap_servers: Option<String>,
    /// Kafka: the topic that holds the commands.
    pub commands_topic: Option<String>,
    /// Kafka: the compacted topic that holds the table. Without it, every start folds all commands.
    pub table_topic: Option<String>,
    /// Kafka: what is passed to librdkafka as it is.
    pub client: BTreeMap<String, ClientValue>,
    /// Kafka: whether commands may be forgotten by the broker after some time or from some size on.
    pub allow_finite_retention: bool,
    /// Commands that every reader of this log is told to pass over; by default none. It is the way past a
    /// command of a later release, which would otherwise stop the fold.
    pub skip_offsets: Vec<Offset>,
}

/// How Kafka is reached: the `[log]` section of `kind = "kafka"`, complete and checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KafkaSettings {
    /// Where to find the first broker, `host:port`, several with commas.
    pub bootstrap_servers: String,
    /// The topic that holds the commands.
    pub commands_topic: String,
    /// The compacted topic that holds the table, if there is one.
    pub table_topic: Option<String>,
    /// What is passed to librdkafka as it is. Never holds a key of [`OURS`].
    pub client: BTreeMap<String, ClientValue>,
    /// Whether commands may be forgotten by the broker after some time or from some size on.
    pub allow_finite_retention: bool,
}

/// A value of `[log.client]`: librdkafka takes texts, and people write numbers and booleans. It may be a
/// password, so that nothing shows it.
#[derive(Clone, Eq, PartialEq)]
pub struct ClientValue(pub String);

impl fmt::Debug for ClientValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientValue(…)")
    }
}

/// Settings of librdkafka that are not for the configuration to say, and why. Most of the defaults lose
/// commands without an error, or deliver what must not be folded.
pub const OURS: [(&str, &str); 23] = [
    ("bootstrap.servers", "set bootstrap_servers in [log]"),
    ("metadata.broker.list", "set bootstrap_servers in [log]"),
    ("isolation.level", "commands of transactions that are open or aborted must not be folded"),
    ("enable.partition.eof", "the end of a topic is what a bootstrap ends at"),
    ("auto.offset.reset", "a reader that goes on elsewhere loses commands without an error"),
    ("check.crcs", "a damaged command must not be folded"),
    ("enable.auto.commit", "nothing is committed: the table says where to go on"),
    ("allow.auto.create.topics", "an empty topic made by mistake would be an empty blacklist"),
    ("group.id", "every sidecar reads everything, and is in no group"),
    ("transactional.id", "it makes one writer of many projectors"),
    ("transaction.timeout.ms", "the projector counts on it"),
    ("enable.idempotence", "a command that the client sends again must not be there twice"),
    ("acks", "a command is acknowledged when all in-sync replicas have it"),
    ("request.required.acks", "a command is acknowledged when all in-sync replicas have it"),
    ("message.timeout.ms", "the answer to whoever sends a command counts on it"),
    ("delivery.timeout.ms", "the answer to whoever sends a command counts on it"),
    ("delivery.report.only.error", "a command that is written is answered, too"),
    ("linger.ms", "a command waits for no other"),
    ("queue.buffering.max.ms", "a command waits for no other"),
    ("queue.buffering.max.messages", "how much may wait is limited already"),
    ("queuing.strategy", "commands are written in their order"),
    ("log.queue", "librdkafka's log goes where ours goes"),
    ("partitioner", "each topic has one partition"),
];

/// A key of the section whose value makes no sense, and why.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Wrong {
    /// The key, below `[log]`.
    pub key: String,
    /// One sentence for people.
    pub reason: String,
}

impl LogSettings {
    /// How Kafka is reached; none on the embedded log.
    ///
    /// # Errors
    /// When a key is missing or wrong, or is set for Kafka while the log is embedded. Nothing is asked of
    /// Kafka for it.
    pub fn kafka(&self) -> Result<Option<KafkaSettings>, Wrong> {
        let wrong = |key: &str, reason: String| Wrong { key: key.to_owned(), reason };
        if self.kind == LogKind::Embedded {
            return match self.first_of_kafka() {
                Some(key) => {
                    Err(wrong(key, r#"means something with kind = "kafka" only; set that too"#.to_owned()))
                }
                None => Ok(None),
            };
        }
        let needed = |key: &str, value: &Option<String>, example: &str| match value.as_deref() {
            Some(value) if !value.trim().is_empty() => Ok(value.to_owned()),
            _ => Err(wrong(key, format!(r#"is needed with kind = "kafka", like {key} = "{example}""#))),
        };
        let bootstrap_servers = needed("bootstrap_servers", &self.bootstrap_servers, "127.0.0.1:9092")?;
        let commands_topic = needed("commands_topic", &self.commands_topic, "portcullis.commands")?;
        let topic = |key: &str, name: &str| check_topic(name).map_err(|reason| wrong(key, reason));
        topic("commands_topic", &commands_topic)?;
        if let Some(table_topic) = &self.table_topic {
            topic("table_topic", table_topic)?;
            if *table_topic == commands_topic {
                return Err(wrong("table_topic", "is the commands_topic; each needs its own".to_owned()));
            }
        }
        // A table is folded without what its projector was told to pass over, and says so itself.
        if self.table_topic.is_some() && !self.skip_offsets.is_empty() {
            let reason =
                "is for logs without a table; with one, `portcullis project --skip-offset N` is told";
            return Err(wrong("skip_offsets", reason.to_owned()));
        }
        for key in self.client.keys() {
            // librdkafka takes this prefix for no prefix at all, so that a key would have two names.
            if let Some(plain) = key.strip_prefix("topic.").filter(|_| !key.starts_with("topic.metadata.")) {
                return Err(wrong(&format!("client.{key}"), format!("is called `{plain}`")));
            }
            if let Some((_, why)) = OURS.iter().find(|(ours, _)| ours == key) {
                return Err(wrong(&format!("client.{key}"), format!("is not to be set here: {why}")));
            }
        }
        Ok(Some(KafkaSettings {
            bootstrap_servers,
            commands_topic,
            table_topic: self.table_topic.clone(),
            client: self.client.clone(),
            allow_finite_retention: self.allow_finite_retention,
        }))
    }

    /// The first key that is set and means something with Kafka only.
    fn first_of_kafka(&self) -> Option<&'static str> {
        let keys = [
            ("bootstrap_servers", self.bootstrap_servers.is_some()),
            ("commands_topic", self.commands_topic.is_some()),
            ("table_topic", self.table_topic.is_some()),
            ("client", !self.client.is_empty()),
            ("allow_finite_retention", self.allow_finite_retention),
        ];
        keys.into_iter().find(|(_, set)| *set).map(|(key, _)| key)
    }
}

/// Refuses what Kafka takes for no name of a topic.
fn check_topic(name: &str) -> Result<(), String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = (1..=TOPIC_BYTES_MAX).contains(&name.len()) && name.bytes().all(known);
    match is_name && name != "." && name != ".." {
        true => Ok(()),
        false => Err(format!(
            "`{name}` is no name of a topic: it has 1 to {TOPIC_BYTES_MAX} of the characters a-z A-Z 0-9 . _ -"
        )),
    }
}

impl<'de> Deserialize<'de> for ClientValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = ClientValue;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text, a whole number or a boolean")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ClientValue, E> {
                Ok(ClientValue(text.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ClientValue, E> {
                Ok(ClientValue(number.to_string()))
            }

            // Not shown, as it would be by default: it may be a password.
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<ClientValue, E> {
                Err(E::custom("write it in quotes"))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<ClientValue, E> {
                Ok(ClientValue(value.to_string()))
            }
        }
        deserializer.deserialize_any(Text)
    }
}
