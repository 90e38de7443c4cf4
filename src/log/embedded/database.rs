//! The database of the embedded log: all that is known of redb, of its file and of its errors.
//!
//! ```text
//!   table "commands":  0 ─► timestamp ‖ BLACKLIST 203.0.113.0/24      offsets from 0, no gaps
//!                      1 ─► timestamp ‖ WHITELIST 203.0.113.7
//!   table "about":     format ─► 1      cluster_id ─► a ULID, given once
//! ```
//!
//! Three things are promised to the layers above. An append is all or nothing. Offsets have no gaps: every
//! look at the end compares the last offset with the number of commands, and every read counts along, so
//! that a lost command is an error and never a silently different fold. And no commit is built on bytes
//! that the disk may not have (`write_back`).
//!
//! Errors are of two sorts, told apart by [`is_damage`]: what may pass when the file is opened again, and
//! what no opening mends.

use std::io;
use std::ops::Bound;

use redb::{
    BackendError, Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable,
    RepairSession, StorageBackend, TableDefinition, WriteTransaction,
};
use ulid::Ulid;

use crate::log::{AppendError, READ_RECORDS_MAX};
use crate::record::{Offset, Position, Record, Timestamp};

/// The most memory that redb may fill with pages. The log is read once, from its beginning, and then only
/// appended to, so that more would buy nothing.
const CACHE_BYTES_MAX: usize = 16 << 20;
/// How many bytes are read or written at once by whoever walks over the whole file.
const WALK_BYTES: usize = 1 << 20;
/// How many bytes a creation that was cut short may have written, at the beginning of the file.
const CREATION_BYTES: usize = 4096;
/// What every redb file begins with, written last when one is created.
const MAGIC_BYTES: usize = 9;
/// The only layout of the tables below that this release knows.
const FORMAT: &str = "1";

/// By offset: the timestamp in milliseconds, 8 bytes big-endian, then the command. No record has a key.
pub(super) const COMMANDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("commands");
/// What the file says of itself: `format` and `cluster_id`.
pub(super) const ABOUT: TableDefinition<'_, &str, &str> = TableDefinition::new("about");

/// Why a database is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Occasion {
    /// The log is opened.
    /// A clean file is used as it is, one that was not well closed is written anew first.
    First,
    /// Reading or writing failed, and the database has to be opened again.
    /// It is written anew in any case, because it is not known what the failed write left behind.
    Again,
}

/// Where appended commands stand.
pub(super) struct Appended {
    /// The offset of the first.
    pub(super) first: Offset,
    /// The position behind the last.
    pub(super) end: Position,
}

/// The open database.
pub(super) struct CommandsDatabase {
    database: Database,
    cluster_id: String,
}

impl CommandsDatabase {
    /// Opens the database that a backend holds, and makes one of an empty backend.
    ///
    /// After a crash redb reads the whole file and checks its checksums. That could be saved
    /// (`set_quick_repair`) at the price of a second sync in every commit; but a start folds every command
    /// anyway, so that the walk costs little beside what follows, and finds damage before it is folded.
    pub(super) fn open<B: StorageBackend>(
        storage: impl Fn() -> io::Result<B>,
        occasion: Occasion,
    ) -> Result<Self, redb::Error> {
        // `RepairAborted` is how redb says, through our own callback, that the file was not well closed. A
        // database that failed while it was open is treated as if it had said so.
        let opened = match occasion {
            Occasion::First => open_clean(prepared(&storage, clear_unfinished_creation)?),
            Occasion::Again => Err(DatabaseError::RepairAborted),
        };
        let database = match opened {
            Err(DatabaseError::RepairAborted) => {
                builder().create_with_backend(prepared(&storage, write_back)?)
            }
            opened => opened,
        }?;
        // Cut short between the creation of the file and that of its tables, it is still an empty log.
        let cluster_id = match cluster_id(&database)? {
            Some(cluster_id) => cluster_id,
            None => create(&database)?,
        };
        Ok(Self { database, cluster_id })
    }

    /// The name that the log was given when it was made. Two logs with the same commands still differ in it,
    /// so that a file which was put in the place of another is noticed.
    pub(super) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The next offset, from the file; an error if commands are missing before it.
    pub(super) fn end(&self) -> Result<Position, redb::Error> {
        end_of(&self.database.begin_read()?.open_table(COMMANDS)?)
    }

    /// The first records of the offsets from `from` to before `to`, at most [`READ_RECORDS_MAX`], none left out.
    /// `to` must not lie behind the end: a command that is not there is taken for damage.
    pub(super) fn read(&self, from: Position, to: Position) -> Result<Vec<Record>, redb::Error> {
        let table = self.database.begin_read()?.open_table(COMMANDS)?;
        let mut next = from;
        let mut records = Vec::new();
        for stored in table.range(from.number()..to.number())?.take(READ_RECORDS_MAX) {
            let (offset, value) = stored?;
            if offset.value() != next.number() {
                // A gap. What stands behind it must not be folded in its place.
                break;
            }
            records.push(decode(next.offset(), value.value())?);
            next = next.offset().next();
        }
        if next == to || records.len() == READ_RECORDS_MAX {
            Ok(records)
        } else {
            Err(corrupted(format!("no command at offset {next}")))
        }
    }

    /// Appends commands, all or none, and returns where they stand once they are durable.
    ///
    /// redb's plain commit: pages, checksums and the new root are written, then synced together, once. A
    /// crash in between leaves a root whose checksums do not hold, and redb goes back to the one before.
    /// Its two-phase commit costs a second sync and protects only from who can forge checksums *and* cut the
    /// power at will.
    pub(super) fn append<'a>(
        &self,
        values: impl Iterator<Item = &'a [u8]>,
        now: Timestamp,
    ) -> Result<Appended, AppendError> {
        // Dropping a transaction undoes it, so that an error up to here has left nothing behind.
        let (transaction, appended) =
            self.insert(values, now).map_err(|error| AppendError::Unavailable(not_appended(&error)))?;
        // Whatever the error of a commit says, its root may already be in the file.
        transaction
            .commit()
            .map_err(|error| AppendError::Unknown(format!("the commands may be durable or not: {error}")))?;
        Ok(appended)
    }

    /// Puts the commands behind the last one, in a transaction that is not committed yet.
    fn insert<'a>(
        &self,
        values: impl Iterator<Item = &'a [u8]>,
        now: Timestamp,
    ) -> Result<(WriteTransaction, Appended), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let mut table = transaction.open_table(COMMANDS)?;
        let first = end_of(&table)?.offset();
        let mut stored = Vec::new();
        for (number, value) in (first.number()..).zip(values) {
            stored.clear();
            stored.extend_from_slice(&now.millis().to_be_bytes());
            stored.extend_from_slice(value);
            // The next offset comes from the file and not from a counter, so that it is right after any
            // failure.
            table.insert(number, stored.as_slice())?;
        }
        let appended = Appended { first, end: end_of(&table)? };
        drop(table);
        Ok((transaction, appended))
    }
}

/// Whether the database itself is wrong, so that opening it again would not help.
pub(super) fn is_damage(error: &redb::Error) -> bool {
    match error {
        // redb reports a file that is none of its own, and one that is cut off, as errors of reading.
        redb::Error::Io(error) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. } => true,
        _ => false,
    }
}

/// The words for an append that left nothing behind, whatever the reason.
pub(super) fn not_appended(error: &dyn std::fmt::Display) -> String {
    format!("nothing was appended: {error}")
}

/// What we find wrong is reported as redb would report it, so that [`is_damage`] knows both.
fn corrupted(reason: String) -> redb::Error {
    redb::Error::Corrupted(reason)
}

/// One row of [`COMMANDS`] as a record.
fn decode(offset: Offset, stored: &[u8]) -> Result<Record, redb::Error> {
    let too_short = || corrupted(format!("the command at offset {offset} has no timestamp"));
    let (millis, value) = stored.split_first_chunk().ok_or_else(too_short)?;
    Ok(Record {
        offset,
        timestamp: Timestamp::from_millis(i64::from_be_bytes(*millis)),
        key: None,
        value: Some(value.to_vec()),
    })
}

/// The offset after the last one, provided that none is missing.
fn end_of(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Position, redb::Error> {
    let next = table.last()?.map_or(0, |(last, _)| last.value().saturating_add(1));
    let count = table.len()?;
    if next == count {
        Ok(Position::new(next))
    } else {
        Err(corrupted(format!("{count} commands stand before offset {next}")))
    }
}

/// The cluster id that the database holds; none if no log was made in it yet.
fn cluster_id(database: &Database) -> Result<Option<String>, redb::Error> {
    // Its absence means a log that was never made: both tables come into being in one transaction.
    let about = match database.begin_read()?.open_table(ABOUT) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        about => about?,
    };
    let said = |key| Ok::<_, redb::Error>(about.get(key)?.map(|value| value.value().to_owned()));
    match said("format")?.as_deref() {
        // A file of a later release is refused rather than read as something that it may not be.
        Some(FORMAT) => {}
        Some(later) => return Err(corrupted(format!("its format is {later}, this release knows {FORMAT}"))),
        None => return Err(corrupted("it names no format".to_owned())),
    }
    said("cluster_id")?.map(Some).ok_or_else(|| corrupted("it names no cluster".to_owned()))
}

/// Makes the tables of a log and gives it its name, at once.
fn create(database: &Database) -> Result<String, redb::Error> {
    let cluster_id = Ulid::generate().to_string();
    let transaction = database.begin_write()?;
    {
        transaction.open_table(COMMANDS)?;
        let mut about = transaction.open_table(ABOUT)?;
        about.insert("format", FORMAT)?;
        about.insert("cluster_id", cluster_id.as_str())?;
    }
    transaction.commit()?;
    Ok(cluster_id)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES_MAX);
    builder
}

/// Opens a database only if it was closed as it should be.
fn open_clean(backend: impl StorageBackend) -> Result<Database, DatabaseError> {
    builder().set_repair_callback(RepairSession::abort).create_with_backend(backend)
}

/// A new backend, with something done to the file before redb sees it, under the lock that redb will take.
fn prepared<B: StorageBackend>(
    storage: impl Fn() -> io::Result<B>,
    prepare: fn(&B) -> io::Result<()>,
) -> Result<B, redb::Error> {
    let backend = storage()?;
    let locked = match backend.try_lock_range(Bound::Unbounded, Bound::Unbounded) {
        Ok(true) => true,
        // Without the lock two processes could prepare one file at once, and spoil it for each other.
        Ok(false) => return Err(redb::Error::DatabaseAlreadyOpen),
        // Backends in memory have no lock and need none.
        Err(BackendError::Unsupported) => false,
        Err(error) => return Err(error.into()),
    };
    prepare(&backend)?;
    // redb takes the lock itself right after; whoever gets in between does the same preparation first.
    if locked {
        backend.unlock_range(Bound::Unbounded, Bound::Unbounded)?;
    }
    Ok(backend)
}

/// Empties a file whose creation was cut short, because redb would take it for a foreign one for ever.
///
/// Such a file has no magic number yet and nothing but zeros after its first page, so that a log with
/// commands in it is never taken for one, whatever happened to its beginning.
fn clear_unfinished_creation(backend: &impl StorageBackend) -> io::Result<()> {
    let bytes = backend.len()?;
    let mut head = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX).min(CREATION_BYTES)];
    backend.read(0, &mut head)?;
    if head.is_empty() || head.iter().take(MAGIC_BYTES).any(|byte| *byte != 0) {
        return Ok(());
    }
    let mut empty = true;
    walk(backend, CREATION_BYTES as u64, |_, slice| {
        empty &= slice.iter().all(|byte| *byte == 0);
        Ok(())
    })?;
    if empty { backend.set_len(0) } else { Ok(()) }
}

/// Writes every byte of the file once more and syncs it; done whenever a file was not well closed.
///
/// After a sync that failed, the kernel may hold pages that never reached the disk and count them as
/// written: they are read back as if they were there, no later sync writes them, and a power cut takes them
/// away below the commits that were built upon them. Writing them anew is the only way to know.
fn write_back(backend: &impl StorageBackend) -> io::Result<()> {
    walk(backend, 0, |at, slice| backend.write(at, slice))?;
    backend.sync_data()
}

/// Reads the bytes from `from` on in slices of at most [`WALK_BYTES`] and hands each on with its place.
fn walk(
    backend: &impl StorageBackend,
    from: u64,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let bytes = backend.len()?;
    let mut buffer = vec![0; WALK_BYTES];
    for at in (from..bytes).step_by(WALK_BYTES) {
        let length = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(WALK_BYTES);
        let slice = buffer.get_mut(..length).unwrap_or_default();
        backend.read(at, slice)?;
        each(at, slice)?;
    }
    Ok(())
}
