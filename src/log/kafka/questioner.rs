//! Answers questions about the two topics.
//!
//! Two consumers, because a broker answers for the isolation of who asks: the one that reads uncommitted is
//! told the high watermark, the one that reads committed the last stable offset. Both are made when they are
//! needed first, and again whenever an answer may not come from what an old connection remembers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::cause::READ;
use super::client::{ANSWER_MAX, Clients, Consumer, Isolation, PARTITION, discard};
use super::failing::Failing;
use super::reader::{assign_at, record};
use super::topics;
use crate::log::{Answer, Ends, Identity, Question, Questioner};
use crate::record::{Offset, Position, Record};

/// Answers questions; no other thread's business waits behind it.
pub(super) struct KafkaQuestioner {
    clients: Arc<Clients>,
    pair: Option<Pair>,
    /// Which questions have no answer. Each by itself: the other client or the other topic may go on well.
    failing: HashMap<Question, Failing>,
}

/// The most reports of librdkafka that are taken in at once …
const REPORTS_MAX: usize = 1_000;
/// … and how long the next one may take. Not no time at all: then a line for the log would count as nothing.
const LISTEN: Duration = Duration::from_millis(1);

/// The two consumers.
struct Pair {
    uncommitted: Consumer,
    committed: Consumer,
}

impl Pair {
    fn new(clients: &Clients) -> Result<Self, String> {
        let (uncommitted, committed) = (Isolation::Uncommitted, Isolation::Committed);
        Ok(Self { uncommitted: clients.asker(uncommitted)?, committed: clients.asker(committed)? })
    }
}

impl KafkaQuestioner {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients, pair: None, failing: HashMap::new() }
    }

    fn pair(&mut self) -> Result<&Pair, String> {
        if self.pair.is_none() {
            self.pair = Some(Pair::new(&self.clients)?);
        }
        self.pair.as_ref().ok_or_else(|| "no Kafka client".to_owned())
    }

    fn answer(&mut self, question: Question) -> Result<Answer, String> {
        let clients = Arc::clone(&self.clients);
        match question {
            Question::Ends(topic) => {
                let name = clients.topic(topic).ok_or("there is no table topic in [log]")?;
                let pair = self.pair()?;
                // In this order: what lies between the two was not there when the first was asked for.
                let (_, high) = ends(&pair.uncommitted, name, &clients)?;
                let (start, stable) = ends(&pair.committed, name, &clients)?;
                Ok(Answer::Ends(topic, Ends { start, high, stable }))
            }
            Question::RecordAt(offset) => {
                let pair = self.pair()?;
                let found = record_at(&pair.committed, offset, &clients);
                // Else it would go on to fetch what nobody wants.
                let _nothing_assigned = pair.committed.unassign();
                Ok(Answer::RecordAt(offset, found?))
            }
            Question::Identity => {
                // A client keeps the name of the cluster that it met first, whatever it is connected to now.
                if let Some(pair) = self.pair.take() {
                    discard(pair);
                }
                let pair = self.pair()?;
                let cluster_id = cluster_id(&pair.committed, &clients)?;
                let commands_topic = clients.settings.commands_topic.clone();
                Ok(Answer::Identity(Identity { cluster_id, commands_topic }))
            }
            Question::TopicSettings => {
                let pair = self.pair()?;
                topics::check_and_warn(&pair.uncommitted, &clients).map(Answer::TopicSettings)
            }
        }
    }
}

impl Questioner for KafkaQuestioner {
    fn ask(&mut self, question: Question) -> Answer {
        // In an outage each of the two has something to say, whichever is asked.
        for consumer in self.pair.iter().flat_map(|pair| [&pair.uncommitted, &pair.committed]) {
            listen(consumer);
        }
        let outcome = self.answer(question);
        let failing = self.failing.entry(kind(question)).or_default();
        failing.note(&outcome);
        if failing.lasts() {
            self.failing.clear();
            self.pair.take().into_iter().for_each(discard);
        }
        outcome.unwrap_or_else(|reason| Answer::Failed(question, reason))
    }
}

/// The question, the same for every record.
fn kind(question: Question) -> Question {
    match question {
        Question::RecordAt(_) => Question::RecordAt(Offset::new(0)),
        other => other,
    }
}

/// Where a topic begins and ends, for the isolation of this consumer.
pub(super) fn ends(
    consumer: &Consumer,
    topic: &str,
    clients: &Clients,
) -> Result<(Position, Position), String> {
    let answer = consumer.fetch_watermarks(topic, PARTITION, ANSWER_MAX);
    let (start, end) = answer.map_err(|error| match error.rdkafka_error_code() {
        // A topic that our user must not see looks the same here; the metadata tells the two apart.
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => {
            let asked = topics::partitions(consumer, topic, clients);
            asked.err().unwrap_or_else(|| explain_asked(consumer, &error, topic, clients))
        }
        _ => explain_asked(consumer, &error, topic, clients),
    })?;
    consumer.context().clear();
    match (u64::try_from(start), u64::try_from(end)) {
        (Ok(start), Ok(end)) => Ok((Position::new(start), Position::new(end))),
        _ => Err(format!("Kafka did not say where the topic {topic} begins and ends")),
    }
}

/// The name of the cluster.
pub(super) fn cluster_id(consumer: &Consumer, clients: &Clients) -> Result<String, String> {
    consumer.client().fetch_cluster_id(ANSWER_MAX).ok_or_else(|| {
        // It gives no reason itself.
        explain_asked(consumer, &KafkaError::Global(Code::OperationTimedOut), "", clients)
    })
}

/// The record of the commands topic at this offset, if there is one.
fn record_at(consumer: &Consumer, offset: Offset, clients: &Clients) -> Result<Option<Record>, String> {
    let topic = &clients.settings.commands_topic;
    let failed = |error: &KafkaError| explain_asked(consumer, error, topic, clients);
    assign_at(consumer, topic, offset).map_err(|error| failed(&error))?;
    let until = Instant::now() + ANSWER_MAX;
    loop {
        match consumer.poll(until.saturating_duration_since(Instant::now())) {
            // The next one there is: with another offset it says that there is none at this one.
            Some(Ok(message)) => {
                let record = record(&message);
                return Ok((record.offset == offset).then_some(record));
            }
            // The topic ends there, or does not reach there.
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => return Ok(None),
                Some(Code::GroupAuthorizationFailed) => {}
                _ => return Err(failed(&error)),
            },
            None => return Err(failed(&KafkaError::Global(Code::OperationTimedOut))),
        }
    }
}

/// Why a question has no answer.
pub(super) fn explain_asked(
    consumer: &Consumer,
    error: &KafkaError,
    topic: &str,
    clients: &Clients,
) -> String {
    listen(consumer);
    consumer.context().explain(error, topic, READ, &clients.settings)
}

/// Takes in what librdkafka has to say, as far as it waits already: what stands in the way of a connection is
/// told in no other place.
pub(super) fn listen(consumer: &Consumer) {
    // A bound, because a connection that fails at once has always more to say.
    for _ in 0..REPORTS_MAX {
        if consumer.poll(LISTEN).is_none() {
            break;
        }
    }
}
