//! What the two topics must be set to, and what they are.
//!
//! Most of these settings do no harm that anybody sees: a commands topic that forgets after a week, or a
//! table topic that deletes instead of compacting, gives a blacklist with holes and no error. So they are
//! looked at before anything is served, and again every hour.
//!
//! [`Severity::Refused`] is what gives a wrong list; [`Severity::Advised`] is what may lose commands with a
//! broker, or makes a start slow.

mod rules;

use std::collections::HashMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use serde::Serialize;

use self::rules::{MIN_INSYNC_REPLICAS, judge, rules};
use super::KafkaLog;
use super::cause::{CREATE, Reports, no_topic};
use super::client::{ANSWER_MAX, Clients, Consumer, Isolation, discard};
use super::questioner::{cluster_id, ends, explain_asked};
use crate::log::{Identity, Topic};
use crate::record::Position;

/// The most replicas that a new topic gets; fewer where there are fewer brokers.
pub const REPLICAS_MAX: usize = 3;

/// How often it is looked whether a new topic has a leader.
const LEADER_WAIT: Duration = Duration::from_millis(50);

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is begun on such a topic.
    Refused,
    /// It is warned of.
    Advised,
}

/// One setting that is not as it must or should be.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The name of the topic.
    pub topic: String,
    /// The setting, as Kafka calls it.
    pub setting: &'static str,
    /// What it is.
    pub found: String,
    /// What it is to be.
    pub wanted: String,
    /// Why it matters.
    pub why: &'static str,
    /// What mends it.
    pub mend: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, setting, found, wanted, why, .. } = self;
        write!(f, "the topic {topic} has {setting}={found}, and wants {wanted}: {why}")
    }
}

/// All that was found out of the settings.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Findings {
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// The topics whose settings we may not see.
    pub unseen: Vec<String>,
}

/// A topic that is to be there, and whether it was there before.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Created {
    /// The name of the topic.
    pub topic: String,
    /// Whether it was created now.
    pub created: bool,
    /// How many replicas it has.
    pub replicas: usize,
}

/// Looks at the settings of both topics, and tells of those that should be otherwise but may stay. The inner
/// error says what must not be so; the outer one why it could not be found out.
pub(super) fn check_and_warn(asker: &Consumer, clients: &Clients) -> Result<Result<(), String>, String> {
    let Findings { findings, unseen } = check(asker, clients)?;
    for topic in unseen {
        tracing::warn!(%topic, "we may not see how the topic is set: grant DescribeConfigs on it");
    }
    let mut refused = None;
    for finding in findings {
        let told = format!("{finding}; `portcullis topics check` says what mends it");
        match finding.severity {
            Severity::Refused => refused = refused.or(Some(told)),
            Severity::Advised => tracing::warn!("{told}"),
        }
    }
    Ok(refused.map_or(Ok(()), Err))
}

fn check(asker: &Consumer, clients: &Clients) -> Result<Findings, String> {
    let named: Vec<_> = clients.topics().collect();
    // All of them first: without one of them nothing else is of interest, and this is asked every second then.
    let partitions = named.iter().map(|(_, name)| partitions(asker, name, clients));
    let partitions = partitions.collect::<Result<Vec<_>, _>>()?;
    let admin = clients.admin().map_err(|error| Clients::no_client(&error))?;
    let mut all = Findings::default();
    for ((topic, name), partitions) in named.into_iter().zip(partitions) {
        let found = settings(&admin, name, clients)?;
        if found.is_none() {
            all.unseen.push(name.to_owned());
        }
        // The number of partitions is no secret.
        all.findings.extend(judge(topic, name, partitions, &found.unwrap_or_default(), clients));
    }
    discard(admin);
    all.findings.sort_by_key(|finding| finding.severity != Severity::Refused);
    Ok(all)
}

/// What Kafka says of a topic's partitions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TopicPartitions {
    /// How many there are.
    pub(super) partitions: usize,
    /// How many replicas the first has.
    pub(super) replicas: usize,
    /// How many of them are in sync.
    pub(super) in_sync: usize,
    /// Whether it has a leader.
    pub(super) has_leader: bool,
}

/// The partitions of a topic that is to be there.
pub(super) fn partitions(asker: &Consumer, name: &str, clients: &Clients) -> Result<TopicPartitions, String> {
    find_partitions(asker, name, clients)?.ok_or_else(|| no_topic(name))
}

/// The partitions of a topic; none if there is no such topic.
fn find_partitions(
    asker: &Consumer,
    name: &str,
    clients: &Clients,
) -> Result<Option<TopicPartitions>, String> {
    let explain = |error: &KafkaError| explain_asked(asker, error, name, clients);
    let metadata = asker.fetch_metadata(Some(name), ANSWER_MAX).map_err(|error| explain(&error))?;
    asker.context().clear();
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(None) };
    match topic.error().map(Code::from) {
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => Ok(None),
        // A topic that was created a moment ago has no leader yet.
        Some(code) if code != Code::LeaderNotAvailable => Err(explain(&KafkaError::MetadataFetch(code))),
        _ => Ok(topic.partitions().first().map(|first| TopicPartitions {
            partitions: topic.partitions().len(),
            replicas: first.replicas().len(),
            in_sync: first.isr().len(),
            has_leader: first.leader() >= 0,
        })),
    }
}

/// The settings of a topic; none if we may not see them.
fn settings(
    admin: &AdminClient<Reports>,
    name: &str,
    clients: &Clients,
) -> Result<Option<HashMap<String, String>>, String> {
    let topic = ResourceSpecifier::Topic(name);
    match wait(admin.describe_configs([&topic], &options()))?.and_then(first) {
        // Every topic has settings: none are shown to whom they are denied, and the client passes over the
        // error that says so.
        Ok(ConfigResource { entries, .. }) if entries.is_empty() => Ok(None),
        Ok(ConfigResource { entries, .. }) => {
            Ok(Some(entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()))
        }
        Err(KafkaError::AdminOp(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed)) => {
            Ok(None)
        }
        Err(error) => Err(explain(admin, &error, name, clients)),
    }
}

/// The one answer to a request about one topic.
fn first<T>(answers: Vec<Result<T, Code>>) -> Result<T, KafkaError> {
    let answer = answers.into_iter().next().unwrap_or(Err(Code::Unknown));
    answer.map_err(KafkaError::AdminOp)
}

/// How many in-sync replicas the commands topic wants before it takes a command; none if that can't be known.
pub(super) fn replicas_wanted(clients: &Clients) -> Option<usize> {
    let admin = clients.admin().ok()?;
    let found = settings(&admin, &clients.settings.commands_topic, clients);
    discard(admin);
    found.ok()??.get(MIN_INSYNC_REPLICAS)?.parse().ok()
}

impl KafkaLog {
    /// What the log is called.
    ///
    /// # Errors
    /// When Kafka does not say, with the reason.
    pub fn identity(&self) -> Result<Identity, String> {
        let asker = self.clients.asker(Isolation::Uncommitted)?;
        let cluster_id = cluster_id(&asker, &self.clients)?;
        Ok(Identity { cluster_id, commands_topic: self.clients.settings.commands_topic.clone() })
    }

    /// Where the commands begin and end.
    ///
    /// # Errors
    /// When Kafka does not answer, with the reason.
    pub fn commands_ends(&self) -> Result<(Position, Position), String> {
        let asker = self.clients.asker(Isolation::Uncommitted)?;
        ends(&asker, &self.clients.settings.commands_topic, &self.clients)
    }

    /// Looks at the settings of both topics.
    ///
    /// # Errors
    /// When Kafka does not answer, or a topic is not there, with the reason.
    pub fn check_topics(&self) -> Result<Findings, String> {
        check(&self.clients.asker(Isolation::Uncommitted)?, &self.clients)
    }

    /// Creates the topics that are not there, set as they are to be. What is there is left as it is.
    ///
    /// # Errors
    /// When Kafka does not answer, or does not let us, with the reason.
    pub fn create_topics(&self) -> Result<Vec<Created>, String> {
        let clients = &*self.clients;
        let asker = clients.asker(Isolation::Uncommitted)?;
        clients.topics().map(|(topic, name)| create(&asker, topic, name, clients)).collect()
    }
}

fn create(asker: &Consumer, topic: Topic, name: &str, clients: &Clients) -> Result<Created, String> {
    if let Some(TopicPartitions { replicas, .. }) = find_partitions(asker, name, clients)? {
        return Ok(Created { topic: name.to_owned(), created: false, replicas });
    }
    let metadata = asker.fetch_metadata(None, ANSWER_MAX);
    let metadata = metadata.map_err(|error| explain_asked(asker, &error, name, clients))?;
    let replicas = metadata.brokers().len().clamp(1, REPLICAS_MAX);
    let values: Vec<(&str, String)> =
        rules(topic).map(|rule| (rule.setting, rule.want.value(replicas))).collect();
    let replication = TopicReplication::Fixed(i32::try_from(replicas).unwrap_or(1));
    let new = values
        .iter()
        .fold(NewTopic::new(name, 1, replication), |new, (setting, value)| new.set(setting, value));
    let admin = clients.admin().map_err(|error| Clients::no_client(&error))?;
    let codes = |answers: Vec<Result<String, (String, Code)>>| {
        answers.into_iter().map(|answer| answer.map_err(|(_, code)| code)).collect()
    };
    let answer = wait(admin.create_topics([&new], &options()))?.map(codes).and_then(first);
    match answer {
        Ok(_) => {
            wait_for_leader(asker, name, clients);
            Ok(Created { topic: name.to_owned(), created: true, replicas })
        }
        // Somebody else was quicker.
        Err(KafkaError::AdminOp(Code::TopicAlreadyExists)) => {
            Ok(Created { topic: name.to_owned(), created: false, replicas })
        }
        Err(error) => Err(explain(&admin, &error, name, clients)),
    }
}

/// Waits until a new topic has a leader, so that what is asked of it next has an answer. It takes a moment; if
/// it takes long, that answer will say so.
fn wait_for_leader(asker: &Consumer, name: &str, clients: &Clients) {
    let until = Instant::now() + ANSWER_MAX;
    while Instant::now() < until {
        if matches!(find_partitions(asker, name, clients), Ok(Some(found)) if found.has_leader) {
            return;
        }
        thread::sleep(LEADER_WAIT);
    }
}

/// Why a request of the admin client failed.
fn explain(admin: &AdminClient<Reports>, error: &KafkaError, name: &str, clients: &Clients) -> String {
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    };
    let error = code.map_or_else(|| error.clone(), KafkaError::MetadataFetch);
    admin.inner().context().explain(&error, name, CREATE, &clients.settings)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_MAX)).operation_timeout(Some(ANSWER_MAX))
}

/// Waits for the answer to a request. It comes from a thread of the client's, so that nothing else runs here.
fn wait<T>(asked: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.map(|runtime| runtime.block_on(asked)).map_err(|error| format!("no runtime to wait on: {error}"))
}
