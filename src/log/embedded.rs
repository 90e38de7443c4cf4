//! The commands log in one local file, `commands.redb`: the log of a sidecar that runs without Kafka.
//!
//! One thread writes. Whatever waits for it goes into one commit, which is synced before anybody is
//! answered; while it syncs, the next commands gather. Readers see a command once it is durable.
//!
//! ```text
//!   append(A) ──┐            commands-writer
//!   append(B) ──┼─► A B C ──► one transaction, one sync ──► end moves ──► done(A) done(B) done(C)
//!   append(C) ──┘                                            └──► readers wake and read A B C
//!   append(D) ────► D E … gather meanwhile ──► the next transaction
//! ```
//!
//! No timer makes a group wait for company. A group that finds the writer idle is committed at once, and
//! under load the sync itself is the time in which the next commit gathers. So one sender alone pays one
//! sync for each group, and many at once share it.
//!
//! `done` says one of three things: the offsets (durable, and readers can have them), `Unavailable` (nothing
//! was written) or `Unknown` (the commit failed, and its commands may be there). It is called exactly once,
//! whatever happens.
//!
//! An error of the file does not end the process: the writer closes the database and opens it again in
//! place, and readers go on where they were. A file that was not well closed, or failed, is written anew
//! before it is used, so that nothing is built on pages that a failed sync left in memory only.
//!
//! What it leaves out: there is no table, so that every start folds all commands from the first one, and
//! nothing is ever deleted from the file. It looks into no command: to it they are bytes.
//!
//! `database` knows redb, `shared` is what the threads meet in, `writer` is the one thread that writes, and
//! `reader` is what the follower reads and asks.

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
/// The topic that an embedded log says that it is. There is one in a file, so that it needs no other name.
pub const COMMANDS_TOPIC: &str = "embedded";
/// The most groups of commands that may wait for the writer. A disk that hangs must not fill the memory:
/// what comes on top is refused at once as [`AppendError::Unavailable`](crate::log::AppendError).
pub const WAITING_GROUPS_MAX: usize = 4_096;
/// The most bytes of commands that may wait for the writer: some groups of the largest kind.
pub const WAITING_BYTES_MAX: usize = 32 << 20;
/// The most groups that share a commit: it bounds how long the first of them waits for the last.
pub const COMMIT_GROUPS_MAX: usize = 1_024;
/// The most bytes of commands that share a commit, unless one group alone is larger.
pub const COMMIT_BYTES_MAX: usize = 4 << 20;
/// The pause before a failed database is opened again; it doubles with each attempt. The first attempt after
/// a commit that went well comes without a pause, so that an error that is over already refuses nobody.
pub const REOPEN_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest time between two attempts to open a failed database again.
pub const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Only who runs the sidecar may read its log.
const FILE_MODE: u32 = 0o600;
/// … and look into the directory, which also holds the token for writing.
const DIRECTORY_MODE: u32 = 0o700;

/// Why an embedded log can't be opened.
///
/// Only the first opening reports it; once the log runs, the writer logs such an error and tries again.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open. The lock is the operating system's, so that a process that was killed
    /// leaves none behind.
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
    /// The file is there and is not the database of a log, or no longer. It is not mended by guessing: a log
    /// with commands missing would fold to another blacklist.
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
    /// What is neither the lock nor damage counts as not writable: the file itself may be whole.
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
///
/// It is a [`Log`] to read from and a [`CommandSink`] to append to. Offsets begin at 0 and have no gaps, and
/// a command's timestamp is the wall clock of its commit.
///
/// ```
/// use std::sync::mpsc;
/// use std::time::Duration;
///
/// use portcullis::log::embedded::{EmbeddedLog, OpenError};
/// use portcullis::log::{CommandSink, Log, ReadEvent, Topic};
/// use portcullis::record::{Offset, Position};
///
/// let directory = tempfile::tempdir()?;
/// let log = EmbeddedLog::open(directory.path())?;
/// assert!(matches!(EmbeddedLog::open(directory.path()), Err(OpenError::Locked { .. })));
///
/// // The answer comes once the group is durable.
/// let (done, outcome) = mpsc::channel();
/// let group = vec![b"BLACKLIST 203.0.113.0/24".to_vec(), b"WHITELIST 203.0.113.7".to_vec()];
/// log.append(group, Box::new(move |result| drop(done.send(result))));
/// assert_eq!(outcome.recv()?, Ok(vec![Offset::new(0), Offset::new(1)]));
///
/// // A reader reports the records, then once that it is at the end.
/// let mut reader = Log::open(&*log, Topic::Commands, Position::START)?;
/// let wait = Duration::from_secs(5);
/// assert!(matches!(reader.poll(wait), Some(ReadEvent::Records(records)) if records.len() == 2));
/// assert_eq!(reader.poll(wait), Some(ReadEvent::End(Position::new(2))));
///
/// log.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedLog {
    /// Opens the log in a data directory, and makes directory and log where there are none: only their owner
    /// can read them.
    ///
    /// It blocks for as long as the file takes. After a clean end that is short; after a crash the whole file
    /// is read, written anew and its checksums verified.
    ///
    /// # Errors
    /// [`Locked`](OpenError::Locked) when another process (or this one) has it open,
    /// [`NotWritable`](OpenError::NotWritable) when directory or file can't be made or used, and
    /// [`Damaged`](OpenError::Damaged) when the file is not ours, of a later format, or has lost commands.
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

    /// Opens a log that a backend of redb holds: how tests put a failing disk below it. `storage` makes that
    /// backend, now and whenever the log has to be opened again; `directory` is what errors name.
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

    /// Opens the database on the caller's thread, so that its error is the caller's, then hands it to the
    /// writer.
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
    /// closed is looked through at the next start. Blocks until that is done, unless the writer itself calls.
    /// Later appends are refused as unavailable, and later reads fail. Calling it again does nothing.
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
            // A reader that waited there for the log to grow would never report the commands that come before
            // it.
            Topic::Commands if from > end => Err(LogError(reader::ends_before(end, from))),
            Topic::Commands => Ok(Box::new(CommandsReader::new(Arc::clone(&self.shared), from))),
        }
    }

    fn questioner(&self) -> Box<dyn Questioner> {
        Box::new(CommandsQuestioner { shared: Arc::clone(&self.shared) })
    }
}

impl CommandSink for EmbeddedLog {
    /// Only puts the group into the queue. `done` is called by the writer, or, when the group is refused at
    /// once, here on the caller's own thread.
    fn append(&self, values: Vec<Vec<u8>>, done: AppendDone) {
        self.shared.enqueue(Waiting::new(values, done));
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        // Joins the writer, so that whoever opens the same directory next finds it unlocked.
        self.close();
    }
}

/// Makes directory and file, and has both names synced, so that a power cut leaves neither out.
fn make_file(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    let created =
        OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(directory.join(FILE_NAME));
    match created {
        // An empty file counts too: it is what a creation that was cut short leaves, and the database is made
        // in it as in a new one.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        created => created?.sync_all()?,
    }
    File::open(directory)?.sync_all()?;
    let directory = directory.canonicalize()?;
    directory.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests;
