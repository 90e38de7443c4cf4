//! Opening the log that the configuration names, and standing in for it until it is open.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::ServeError;
use crate::config::Config;
use crate::follower::Source;
use crate::log::embedded::EmbeddedLog;
#[cfg(feature = "kafka")]
use crate::log::kafka::KafkaLog;
use crate::log::settings::{KafkaSettings, Wrong};
use crate::log::{
    Answer, AppendDone, AppendError, CommandSink, Log, LogError, Question, Questioner, Reader, TableLog,
    Topic,
};
use crate::record::Position;

/// Takes commands, and is read, once the log is open.
#[derive(Default)]
pub(super) struct Opening(OnceLock<(Arc<dyn Log>, Arc<dyn CommandSink>)>);

/// What is said of a log until then.
const BEING_OPENED: &str = "the log is being opened";

impl Opening {
    /// From now on commands go there, and are read from there.
    pub(super) fn opened(&self, open: &OpenLog) {
        let _only_once = self.0.set((Arc::clone(&open.log), Arc::clone(&open.sink)));
    }
}

impl Log for Opening {
    fn open(&self, topic: Topic, from: Position) -> Result<Box<dyn Reader>, LogError> {
        let (log, _) = self.0.get().ok_or_else(|| LogError(BEING_OPENED.to_owned()))?;
        log.open(topic, from)
    }

    fn questioner(&self) -> Box<dyn Questioner> {
        self.0.get().map_or_else(|| Box::new(Unopened) as _, |(log, _)| log.questioner())
    }
}

/// Has no answers.
struct Unopened;

impl Questioner for Unopened {
    fn ask(&mut self, question: Question) -> Answer {
        Answer::Failed(question, BEING_OPENED.to_owned())
    }
}

impl CommandSink for Opening {
    fn append(&self, values: Vec<Vec<u8>>, done: AppendDone) {
        match self.0.get() {
            Some((_, sink)) => sink.append(values, done),
            None => done(Err(AppendError::Unavailable(BEING_OPENED.to_owned()))),
        }
    }
}

/// A log that is open: what is read from it, what is written to it, and how it is closed, whoever else still
/// holds it, when this is dropped.
pub(super) struct OpenLog {
    pub(super) log: Arc<dyn Log>,
    pub(super) sink: Arc<dyn CommandSink>,
    close: Box<dyn Fn() + Send + Sync>,
}

impl OpenLog {
    /// Opens the log of the configuration. A broker that can't be reached is no error: it may come.
    pub(super) fn open(config: &Config, directory: &Path) -> Result<Self, ServeError> {
        match kafka(config)? {
            Some(settings) => Self::kafka(settings),
            None => Self::embedded(directory),
        }
    }

    fn embedded(directory: &Path) -> Result<Self, ServeError> {
        let log = EmbeddedLog::open(directory)?;
        let closed = Arc::clone(&log);
        Ok(Self { log: Arc::clone(&log) as _, sink: log, close: Box::new(move || closed.close()) })
    }

    #[cfg(feature = "kafka")]
    fn kafka(settings: KafkaSettings) -> Result<Self, ServeError> {
        let log = KafkaLog::new(settings).map_err(configuration)?;
        let sink = log.commands();
        let sink =
            sink.map_err(|error| ServeError::Unavailable(format!("no thread for commands: {error}")))?;
        Ok(Self { log: Arc::new(log), sink: Arc::new(sink), close: Box::new(|| {}) })
    }

    #[cfg(not(feature = "kafka"))]
    fn kafka(_: KafkaSettings) -> Result<Self, ServeError> {
        Err(without_kafka())
    }
}

impl Drop for OpenLog {
    fn drop(&mut self) {
        (self.close)();
    }
}

/// How Kafka is reached; none on the embedded log.
fn kafka(config: &Config) -> Result<Option<KafkaSettings>, ServeError> {
    config.log.kafka().map_err(configuration)
}

fn configuration(wrong: Wrong) -> ServeError {
    ServeError::Configuration(format!("log.{wrong}"))
}

/// The configuration refuses Kafka in this build, so that only library users with settings of their own get
/// here.
#[cfg(not(feature = "kafka"))]
fn without_kafka() -> ServeError {
    ServeError::Configuration("this program was built without Kafka".to_owned())
}

/// The log whose table is written by this verb.
pub(super) fn table_log(config: &Config, verb: &str) -> Result<Arc<dyn TableLog>, ServeError> {
    let needs = |what: &str| ServeError::Configuration(format!("{verb} needs {what}"));
    let settings = kafka(config)?;
    let settings =
        settings.ok_or_else(|| needs(r#"kind = "kafka" in [log]: the embedded log has no table"#))?;
    if settings.table_topic.is_none() {
        return Err(needs("table_topic in [log]: it names the topic of the table"));
    }
    #[cfg(feature = "kafka")]
    return Ok(Arc::new(KafkaLog::new(settings).map_err(configuration)?));
    #[cfg(not(feature = "kafka"))]
    Err(without_kafka())
}

/// Where the follower of this log begins.
pub(super) fn source(config: &Config) -> Result<Source, ServeError> {
    let table = kafka(config)?.and_then(|settings| settings.table_topic);
    Ok(if table.is_some() { Source::Table } else { Source::Commands })
}
