//! Takes commands into the commands topic.
//!
//! ```text
//!   append(A) ──┐   waiting    commands-producer                       librdkafka
//!   append(B) ──┼──────────►   may it be written now? ──► hand over ──────────────► done(A) done(B)
//!   append(C) ──┘              └──► no: done(Unavailable)
//! ```
//!
//! Before a group is handed to librdkafka, Kafka is asked whether the topic can take it: it has a leader, and
//! as many in-sync replicas as it wants. Up to there nothing can have been written, and that is the answer.
//! From there on only Kafka knows: a group without an acknowledgement may be there or not.
//!
//! There is no producer, and no connection, before the first command: a sidecar that only reads needs no
//! right to write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::cause::{Reports, WRITE};
use super::client::{Clients, Consumer, Isolation, PARTITION, discard};
use super::failing::Failing;
use super::questioner::listen;
use super::topics::{self, TopicPartitions};
use crate::log::{AppendDone, AppendError, CommandSink};
use crate::record::Offset;

/// The most groups that wait for the producer's thread; one more is refused at once.
pub const GROUPS_WAITING_MAX: usize = 4_096;
/// The most commands that wait for their acknowledgement; a group beyond them is refused.
pub const RECORDS_WAITING_MAX: usize = 100_000;
/// How often the client that asks is listened to while nobody writes.
const LISTEN_INTERVAL: Duration = Duration::from_secs(1);
/// How long Kafka's word that the topic takes commands counts.
const READINESS_KEPT: Duration = Duration::from_secs(1);
/// How long the number of replicas that the topic wants counts: it changes by an operator's hand only.
const REPLICAS_WANTED_KEPT: Duration = Duration::from_secs(60);

/// Takes commands into the commands topic. When it is dropped, what waits is still handed over, and then
/// has the outcome that Kafka gives it.
pub struct KafkaCommands {
    waiting: SyncSender<Waiting>,
}

/// A group that nobody has looked at yet.
struct Waiting {
    values: Vec<Vec<u8>>,
    done: AppendDone,
}

impl KafkaCommands {
    pub(super) fn start(clients: Arc<Clients>) -> std::io::Result<Self> {
        let (waiting, groups) = sync_channel(GROUPS_WAITING_MAX);
        let thread = thread::Builder::new().name("commands-producer".to_owned());
        thread.spawn(move || Work { clients, producer: None, failing: Failing::default() }.run(&groups))?;
        Ok(Self { waiting })
    }
}

impl CommandSink for KafkaCommands {
    fn append(&self, values: Vec<Vec<u8>>, done: AppendDone) {
        let group = Waiting { values, done };
        match self.waiting.try_send(group) {
            Ok(()) => {}
            Err(TrySendError::Full(group) | TrySendError::Disconnected(group)) => {
                let reason = format!("{GROUPS_WAITING_MAX} groups of commands wait for Kafka already");
                (group.done)(Err(AppendError::Unavailable(reason)));
            }
        }
    }
}

/// What the thread owns.
struct Work {
    clients: Arc<Clients>,
    producer: Option<Producer>,
    /// Whether Kafka does not say that the topic takes commands.
    failing: Failing,
}

/// A producer, and what Kafka last said of the topic.
struct Producer {
    client: ThreadedProducer<Deliveries>,
    /// Asks about the topic: a question of the producer's would wait behind what it writes.
    asker: Consumer,
    /// When Kafka last said that the topic takes commands.
    ready: Option<Instant>,
    replicas_wanted: Option<(Instant, usize)>,
}

impl Work {
    fn run(mut self, groups: &Receiver<Waiting>) {
        loop {
            let group = match groups.recv_timeout(LISTEN_INTERVAL) {
                Ok(group) => group,
                Err(RecvTimeoutError::Timeout) => {
                    self.listen();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let clients = Arc::clone(&self.clients);
            match self.ready() {
                Ok(producer) => producer.hand_over(group, &clients),
                Err(reason) => {
                    // What waited while Kafka was asked would be told the same, each after a wait of its own.
                    for group in std::iter::once(group).chain(groups.try_iter()) {
                        (group.done)(Err(AppendError::Unavailable(reason.clone())));
                    }
                }
            }
        }
    }

    /// Takes in what the client that asks has to say: unheard, it would pile up for as long as nobody writes.
    fn listen(&self) {
        if let Some(producer) = &self.producer {
            listen(&producer.asker);
        }
    }

    /// The producer, if the topic takes commands now.
    fn ready(&mut self) -> Result<&mut Producer, String> {
        // After such an error a producer is of no more use.
        if self.producer.as_ref().is_some_and(|producer| producer.client.client().fatal_error().is_some()) {
            self.producer = None;
        }
        if self.producer.is_none() {
            self.producer = Some(Producer::new(&self.clients)?);
        }
        let mut producer = self.producer.take().ok_or("no Kafka client")?;
        let ready = producer.check_ready(&self.clients);
        self.failing.note(&ready);
        // What it still holds has its outcome first.
        if producer.client.in_flight_count() == 0 && (self.failing.lasts() || producer.loses_commands()) {
            self.failing = Failing::default();
            discard(producer);
            // The topic takes commands, so that there is no reason to refuse this one.
            self.producer = ready.is_ok().then(|| Producer::new(&self.clients)).transpose()?;
        } else {
            self.producer = Some(producer);
        }
        ready?;
        self.producer.as_mut().ok_or_else(|| "no Kafka client".to_owned())
    }
}

impl Producer {
    fn new(clients: &Clients) -> Result<Self, String> {
        let client =
            ThreadedProducer::from_config_and_context(&clients.commands_producer(), Deliveries::default())
                .map_err(|error| Clients::no_client(&error))?;
        Ok(Self { client, asker: clients.asker(Isolation::Uncommitted)?, ready: None, replicas_wanted: None })
    }

    /// Whether nothing has come of any command for a while, though Kafka says that the topic takes them.
    fn loses_commands(&self) -> bool {
        self.client.context().failing.lock().unwrap_or_else(PoisonError::into_inner).lasts()
    }

    /// Asks Kafka whether the topic takes commands, unless it just said so.
    fn check_ready(&mut self, clients: &Clients) -> Result<(), String> {
        let now = Instant::now();
        if self.ready.is_some_and(|ready| now < ready + READINESS_KEPT) {
            return Ok(());
        }
        self.ready = None;
        let topic = &clients.settings.commands_topic;
        let TopicPartitions { has_leader, in_sync, .. } = topics::partitions(&self.asker, topic, clients)?;
        if !has_leader {
            return Err(format!("the topic {topic} has no leader at the moment"));
        }
        let wanted = self.replicas_wanted(clients, now);
        if in_sync < wanted {
            // An operator may set it lower for the time being, and should not have to wait for that.
            self.replicas_wanted = None;
            return Err(format!(
                "the topic {topic} has {in_sync} in-sync replicas, and min.insync.replicas={wanted}: brokers are \
                 down, or it is set too high"
            ));
        }
        self.ready = Some(now);
        Ok(())
    }

    /// How many in-sync replicas the topic wants; one if we may not know.
    fn replicas_wanted(&mut self, clients: &Clients, now: Instant) -> usize {
        match self.replicas_wanted {
            Some((asked, wanted)) if now < asked + REPLICAS_WANTED_KEPT => wanted,
            known => {
                let wanted =
                    topics::replicas_wanted(clients).or(known.map(|(_, wanted)| wanted)).unwrap_or(1);
                self.replicas_wanted = Some((now, wanted));
                wanted
            }
        }
    }

    /// Gives a group to librdkafka, unless there is no room for all of it.
    fn hand_over(&self, group: Waiting, clients: &Arc<Clients>) {
        let Waiting { values, done } = group;
        // Only this thread adds to them, so that what has room now still has it in the loop below.
        let waiting = usize::try_from(self.client.in_flight_count()).unwrap_or_default();
        if waiting + values.len() > RECORDS_WAITING_MAX {
            let reason = format!("{waiting} commands wait for their acknowledgement already");
            return done(Err(AppendError::Unavailable(reason)));
        }
        let open = Open { outcomes: values.iter().map(|_| Outcome::Unknown).collect(), done: Some(done) };
        let group = Arc::new(Group { open: Mutex::new(open), clients: Arc::clone(clients) });
        for (at, value) in values.iter().enumerate() {
            let part = Box::new(Part { group: Arc::clone(&group), at });
            let topic = &clients.settings.commands_topic;
            let record = BaseRecord::<(), [u8], _>::with_opaque_to(topic, part)
                .partition(PARTITION)
                .payload(value.as_slice());
            if let Err((error, record)) = self.client.send(record) {
                // It was not taken, for whatever reason; a producer that ended for good knows a better one.
                let ended = self.client.client().fatal_error();
                let error = ended.map_or(error, |(code, _)| KafkaError::MessageProduction(code));
                let part = record.delivery_opaque;
                part.settle(Outcome::Refused(part.explain(&error, &self.client.context().reports)));
            }
        }
    }
}

/// A group that librdkafka has. It is told of when nothing of it is left: when the last of its commands has an
/// outcome, or will have none.
struct Group {
    open: Mutex<Open>,
    clients: Arc<Clients>,
}

/// What is known of a group, and whom to tell.
struct Open {
    outcomes: Vec<Outcome>,
    done: Option<AppendDone>,
}

/// What became of one command.
enum Outcome {
    Unknown,
    Acknowledged(Offset),
    /// It is not there, for this reason.
    Refused(String),
    /// It may be there or not, for this reason.
    Failed(String),
}

/// One command of a group, in the hands of librdkafka.
struct Part {
    group: Arc<Group>,
    at: usize,
}

impl Part {
    fn explain(&self, error: &KafkaError, reports: &Reports) -> String {
        let settings = &self.group.clients.settings;
        reports.explain(error, &settings.commands_topic, WRITE, settings)
    }

    /// What an error of Kafka's comes to.
    fn failed(&self, error: &KafkaError, reports: &Reports) -> Outcome {
        let reason = self.explain(error, reports);
        match error.rdkafka_error_code() {
            Some(code) if is_refusal(code) => Outcome::Refused(reason),
            _ => Outcome::Failed(reason),
        }
    }

    fn settle(&self, outcome: Outcome) {
        let mut open = self.group.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = open.outcomes.get_mut(self.at) {
            *place = outcome;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(done) = open.done.take() {
            done(sum(&open.outcomes));
        }
    }
}

/// What became of a group. It counts as not written only if that is certain of each command.
fn sum(outcomes: &[Outcome]) -> Result<Vec<Offset>, AppendError> {
    let offset = |outcome: &Outcome| match outcome {
        Outcome::Acknowledged(offset) => Some(*offset),
        Outcome::Unknown | Outcome::Refused(_) | Outcome::Failed(_) => None,
    };
    if let Some(offsets) = outcomes.iter().map(offset).collect() {
        return Ok(offsets);
    }
    let refused = |outcome: &Outcome| matches!(outcome, Outcome::Refused(_));
    let reason = outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Refused(reason) | Outcome::Failed(reason) => Some(reason.clone()),
        Outcome::Unknown | Outcome::Acknowledged(_) => None,
    });
    let reason = reason.unwrap_or_else(|| "the producer ended before Kafka answered".to_owned());
    match outcomes.iter().all(refused) {
        true => Err(AppendError::Unavailable(reason)),
        false => Err(AppendError::Unknown(reason)),
    }
}

/// What became of a command that is there. After a repetition the broker may know that it is, and not where:
/// who sends it again is told.
fn acknowledged(offset: i64) -> Outcome {
    match u64::try_from(offset) {
        Ok(offset) => Outcome::Acknowledged(Offset::new(offset)),
        Err(_) => Outcome::Failed("Kafka has it and does not say at which offset".to_owned()),
    }
}

/// Whether Kafka, or librdkafka before it, took nothing of a command that failed so.
const fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::QueueFull
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::MessageSizeTooLarge
            | Code::InvalidRecord
            | Code::PolicyViolation
    )
}

/// Hears what became of each command, on a thread of librdkafka's client.
#[derive(Debug, Default)]
struct Deliveries {
    reports: Reports,
    /// Whether any command of this producer had another outcome than that it never left us.
    left: AtomicBool,
    /// Whether commands have no outcome.
    failing: Mutex<Failing>,
}

impl Deliveries {
    /// What to say of a command that failed. One that never left us because our user may not write is not
    /// there, if no other of this producer ever left: then none of them was on its way before.
    fn cause(&self, error: &KafkaError) -> KafkaError {
        let purged = error.rdkafka_error_code() == Some(Code::PurgeQueue);
        if !purged {
            self.left.store(true, Ordering::Relaxed);
        }
        match purged && self.reports.may_not_write() && !self.left.load(Ordering::Relaxed) {
            true => KafkaError::MessageProduction(Code::ClusterAuthorizationFailed),
            false => error.clone(),
        }
    }
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Part>;

    fn delivery(&self, delivery: &DeliveryResult<'_>, part: Box<Part>) {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).note(delivery);
        part.settle(match delivery {
            Ok(message) => {
                self.left.store(true, Ordering::Relaxed);
                self.reports.clear();
                acknowledged(message.offset())
            }
            Err((error, _)) => part.failed(&self.cause(error), &self.reports),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_without_an_offset_is_not_told_one() {
        assert!(matches!(acknowledged(7), Outcome::Acknowledged(offset) if offset == Offset::new(7)));
        assert!(matches!(acknowledged(-1001), Outcome::Failed(_)));
    }

    #[test]
    fn a_group_is_acknowledged_as_a_whole_or_not_at_all() {
        let acknowledged = |number| Outcome::Acknowledged(Offset::new(number));
        assert_eq!(sum(&[acknowledged(3), acknowledged(4)]), Ok(vec![Offset::new(3), Offset::new(4)]));
        let denied = || Outcome::Refused("denied".to_owned());
        assert!(matches!(sum(&[denied(), denied()]), Err(AppendError::Unavailable(_))));
        for other in [acknowledged(3), Outcome::Unknown, Outcome::Failed("no answer".to_owned())] {
            assert!(matches!(sum(&[denied(), other]), Err(AppendError::Unknown(_))));
        }
    }
}
