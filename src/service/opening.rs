//! Opening the log that the configuration names, and standing in for it until it is open.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::ServeError;
use crate::config::Config;
use crate::follower::Source;
use crate::log::embedded::EmbeddedLog;
#[cfg(feature = "kafka")]
use crate::log::kafka::KafkaLog;
use crate::log::settings::KafkaSettings;
use crate::log::{AppendDone, AppendError, CommandSink, Log, TableLog};

/// Takes commands once the log is open.
#[derive(Default)]
pub(super) struct Opening(OnceLock<Arc<dyn CommandSink>>);

impl Opening {
    /// From now on commands go there.
    pub(super) fn opened(&self, sink: Arc<dyn CommandSink>) {
        let _only_once = self.0.set(sink);
    }
}

impl CommandSink for Opening {
    fn append(&self, values: Vec<Vec<u8>>, done: AppendDone) {
        match self.0.get() {
            Some(sink) => sink.append(values, done),
            None => done(Err(AppendError::Unavailable("the log is being opened".to_owned()))),
        }
    }
}

/// A log that is open: what is read from it, what is written to it, and how it is closed.
pub(super) struct OpenLog {
    pub(super) log: Arc<dyn Log>,
    pub(super) sink: Arc<dyn CommandSink>,
    close: Box<dyn FnOnce() + Send>,
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
        let log = KafkaLog::new(settings).map_err(|wrong| ServeError::Configuration(wrong.to_string()))?;
        let sink = log.commands();
        let sink =
            sink.map_err(|error| ServeError::Unavailable(format!("no thread for commands: {error}")))?;
        Ok(Self { log: Arc::new(log), sink: Arc::new(sink), close: Box::new(|| {}) })
    }

    /// Never called: the configuration refuses Kafka in this build.
    #[cfg(not(feature = "kafka"))]
    fn kafka(_: KafkaSettings) -> Result<Self, ServeError> {
        Err(ServeError::Configuration("this program was built without Kafka".to_owned()))
    }

    /// Ends it in good order.
    pub(super) fn close(self) {
        (self.close)();
    }
}

/// The log whose table a projector keeps. A broker that can't be reached is no error: it may come.
pub(super) fn table_log(config: &Config) -> Result<Arc<dyn TableLog>, ServeError> {
    let needs = |what: &str| ServeError::Configuration(format!("project needs {what}"));
    match kafka(config)? {
        None => Err(needs(r#"[log] kind = "kafka": the embedded log has no table"#)),
        Some(KafkaSettings { table_topic: None, .. }) => Err(needs("[log] table_topic: the table is there")),
        #[cfg(feature = "kafka")]
        Some(settings) => match KafkaLog::new(settings) {
            Ok(log) => Ok(Arc::new(log)),
            Err(wrong) => Err(ServeError::Configuration(wrong.to_string())),
        },
        // Never so: the configuration refuses Kafka in this build.
        #[cfg(not(feature = "kafka"))]
        Some(_) => Err(needs("a build with Kafka")),
    }
}

/// How Kafka is reached; none on the embedded log.
fn kafka(config: &Config) -> Result<Option<KafkaSettings>, ServeError> {
    config.log.kafka().map_err(|wrong| ServeError::Configuration(wrong.to_string()))
}

/// Where the follower of this log begins.
pub(super) fn source(config: &Config) -> Result<Source, ServeError> {
    let table = kafka(config)?.and_then(|settings| settings.table_topic);
    Ok(if table.is_some() { Source::Table } else { Source::Commands })
}
