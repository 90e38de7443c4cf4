//! The commands and the table on Apache Kafka: transport only, the one place that names librdkafka.
//!
//! ```text
//!   KafkaLog ──┬── open ────────────► reader       one consumer of one topic, assigned and never subscribed
//!              ├── questioner ──────► questioner   two consumers: one reads uncommitted, one committed
//!              ├── commands ────────► commands     an idempotent producer, on a thread of its own
//!              ├── table_writer ────► table        a transactional producer, in the hands of the projector
//!              └── create, check ───► topics       what the two topics must be set to
//! ```
//!
//! Each of them has clients of its own, because whatever waits on one client waits behind what that client
//! does already: a question on a consumer that follows would wait behind its long poll.
//!
//! A broker that is gone is no error here. Readers fail with a reason and are opened again by whoever reads,
//! after a check that the log is still the one; questions fail with a reason; commands are refused, or their
//! outcome is unknown. The reasons are sentences for people, which say what to do: `cause` makes them.

mod cause;
mod client;
mod commands;
mod failing;
mod questioner;
mod reader;
mod table;
pub mod topics;

use std::sync::Arc;

use self::client::Clients;
use self::commands::KafkaCommands;
use self::questioner::KafkaQuestioner;
use self::reader::KafkaReader;
use self::table::KafkaTableWriter;
use crate::log::settings::{KafkaSettings, Wrong};
use crate::log::{Log, LogError, Questioner, Reader, TableLog, TableWriter, Topic};
use crate::record::Position;

pub use self::commands::{GROUPS_WAITING_MAX, RECORDS_WAITING_MAX};

/// The two topics of one cluster. Cheap to clone; it holds no connection.
#[derive(Clone, Debug)]
pub struct KafkaLog {
    clients: Arc<Clients>,
}

impl KafkaLog {
    /// A log that is reached by these settings. Nothing is asked of Kafka: a broker that is not there yet is
    /// no error.
    ///
    /// # Errors
    /// When librdkafka does not know a setting of the client, or not this value of it, or two do not fit.
    pub fn new(settings: KafkaSettings) -> Result<Self, Wrong> {
        let clients = Clients::new(settings);
        clients.check()?;
        Ok(Self { clients: Arc::new(clients) })
    }

    /// The name of the commands topic.
    pub fn commands_topic(&self) -> &str {
        &self.clients.settings.commands_topic
    }

    /// The name of the table topic, if there is one.
    pub fn table_topic(&self) -> Option<&str> {
        self.clients.topic(Topic::Table)
    }

    /// Takes commands into the log, on a thread that begins here.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn commands(&self) -> std::io::Result<KafkaCommands> {
        KafkaCommands::start(Arc::clone(&self.clients))
    }
}

impl Log for KafkaLog {
    fn open(&self, topic: Topic, from: Position) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(KafkaReader::open(Arc::clone(&self.clients), topic, from)?))
    }

    fn questioner(&self) -> Box<dyn Questioner> {
        Box::new(KafkaQuestioner::new(Arc::clone(&self.clients)))
    }
}

impl TableLog for KafkaLog {
    fn table_writer(&self) -> Box<dyn TableWriter> {
        Box::new(KafkaTableWriter::new(Arc::clone(&self.clients)))
    }
}
