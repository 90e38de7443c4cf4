//! The commands log in one local file, `commands.redb`: the log of a sidecar that runs without Kafka.
//!
//! One thread writes. Whatever waits for it goes into one commit, which is synced before anybody is
//! answered; while it syncs, the next commands gather. Readers see a command once it is durable.
//!
//! An error of the file does not end the process: the writer closes the database and opens it again in
//! place, and readers go on where they were. A file that was not well closed, or failed, is written anew
//! before it is used, so that nothing is built on pages that a failed sync left in memory only.

mod database;
mod reader;
mod shared;
mod writer;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redb::StorageBackend;
use redb::backends::FileBackend;

use crate::log::{AppendDone, CommandSink, Identity, Log, LogError, Questioner, Reader, Topic};
use crate::record::Position;
use database::{CommandsDatabase, Occasion, is_damage};
use reader::{CommandsQuestioner, CommandsReader};
use shared::{Shared, Waiting};
use writer::{Open, Writer};

/// The name of the file in the data directory.
pub const FILE_NAME: &str = "commands.redb";
/// The topic that an embedded log says that it is.
pub const COMMANDS_TOPIC: &str = "embedded";
/// The most groups of commands that may wait for the writer.
pub const WAITING_GROUPS_MAX: usize = 4_096;
/// The most bytes of commands that may wait for the writer: some groups of the largest kind.
pub const WAITING_BYTES_MAX: usize = 32 << 20;
/// The most groups that share a commit.
pub const COMMIT_GROUPS_MAX: usize = 1_024;
/// The most bytes of commands that share a commit, unless one group alone is larger.
pub const COMMIT_BYTES_MAX: usize = 4 << 20;
/// How long the first attempts to open a failed database again lie apart, unless it went well before.
pub const REOPEN_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest time between two attempts to open a failed database again.
pub const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Only who runs the sidecar may read its log.
const FILE_MODE: u32 = 0o600;
/// … and look into the directory, which also holds the token for writing.
const DIRECTORY_MODE: u32 = 0o700;

/// Why an embedded log can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "another process uses the data directory {}: stop it, or name another directory",
        directory.display()
    )]
    Locked {
        /// The data directory.
        directory: PathBuf,
    },
    /// The directory or the file can't be made, read or written.
    #[error("can't read and write {FILE_NAME} in the data directory {}: {source}", directory.display())]
    NotWritable {
        /// The data directory.
        directory: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is there and is not the database of a log, or no longer.
    #[error(
        "{FILE_NAME} in the data directory {} is damaged or not ours ({reason}): restore it, or move it away to begin with no commands",
        directory.display()
    )]
    Damaged {
        /// The data directory.
        directory: PathBuf,
        /// What was found.
        reason: String,
    },
}

impl OpenError {
    fn new(directory: &Path, error: redb::Error) -> Self {
        let directory = directory.to_owned();
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::Locked { directory },
            error if is_damage(&error) => Self::Damaged { directory, reason: error.to_string() },
            redb::Error::Io(source) => Self::NotWritable { directory, source },
            other => Self::NotWritable { directory, source: io::Error::other(other) },
        }
    }
}

/// The commands topic in one local file.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedLog {
    /// Opens the log in a data directory, and makes directory and log where there are none.
    ///
    /// # Errors
    /// When another process has it open, when it can't be written, when it is damaged.
    pub fn open(directory: &Path) -> Result<Arc<Self>, OpenError> {
        let not_writable = |source| OpenError::NotWritable { directory: directory.to_owned(), source };
        make_file(directory).map_err(not_writable)?;
        let file = directory.join(FILE_NAME);
        // A file that is gone when the log has to be opened again must not be replaced by an empty one.
        Self::with_backend(directory, move || {
            let file = OpenOptions::new().read(true).write(true).open(&file)?;
            FileBackend::new(file).map_err(io::Error::other)
        })
    }

    /// Opens a log that a backend of redb holds. `storage` makes that backend, now and whenever the log has
    /// to be opened again; `directory` is what errors name.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn with_backend<B: StorageBackend>(
        directory: &Path,
        storage: impl Fn() -> io::Result<B> + Send + 'static,
    ) -> Result<Arc<Self>, OpenError> {
        let named = directory.to_owned();
        let open: Open = Box::new(move |occasion| {
            CommandsDatabase::open(&storage, occasion).map_err(|error| OpenError::new(&named, error))
        });
        Self::start(directory, open)
    }

    fn start(directory: &Path, open: Open) -> Result<Arc<Self>, OpenError> {
        let database = open(Occasion::First)?;
        let end = database.end().map_err(|error| OpenError::new(directory, error))?;
        let cluster_id = database.cluster_id().to_owned();
        let identity = Identity { cluster_id, commands_topic: COMMANDS_TOPIC.to_owned() };
        let shared = Arc::new(Shared::new(identity, database, end));
        let writer = Writer::new(Arc::clone(&shared), open);
        let writer = thread::Builder::new()
            .name("commands-writer".to_owned())
            .spawn(|| writer.run())
            .map_err(|source| OpenError::NotWritable { directory: directory.to_owned(), source })?;
        Ok(Arc::new(Self { shared, writer: Mutex::new(Some(writer)) }))
    }

    /// Writes what waits and closes the file, whoever else still holds the log: a file that was not well
    /// closed is looked through at the next start. Later appends and reads fail.
    pub fn close(&self) {
        self.shared.begin_closing();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last owner may be a closure that the writer calls: then it ends by itself.
        let writer = writer.filter(|writer| writer.thread().id() != thread::current().id());
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of the commands log panicked");
        }
    }
}

impl Log for EmbeddedLog {
    fn open(&self, topic: Topic, from: Position) -> Result<Box<dyn Reader>, LogError> {
        let end = self.shared.end();
        match topic {
            Topic::Table => Err(LogError(reader::no_table())),
            Topic::Commands if from > end => Err(LogError(reader::ends_before(end, from))),
            Topic::Commands => Ok(Box::new(CommandsReader::new(Arc::clone(&self.shared), from))),
        }
    }

    fn questioner(&self) -> Box<dyn Questioner> {
        Box::new(CommandsQuestioner { shared: Arc::clone(&self.shared) })
    }
}

impl CommandSink for EmbeddedLog {
    fn append(&self, values: Vec<Vec<u8>>, done: AppendDone) {
        self.shared.enqueue(Waiting::new(values, done));
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.close();
    }
}

/// Makes directory and file, and has both names synced, so that a power cut leaves neither out.
fn make_file(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    let created =
        OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(directory.join(FILE_NAME));
    match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        created => created?.sync_all()?,
    }
    File::open(directory)?.sync_all()?;
    let directory = directory.canonicalize()?;
    directory.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests;
