//! The embedded log of a data directory that no service uses.

use std::path::Path;
use std::sync::Arc;

use super::ServeError;
use super::data::DataDirectory;
use crate::log::Log;
use crate::log::embedded::EmbeddedLog;

/// An embedded log to be read while no service runs, which can't start as long as this is held.
pub struct IdleLog {
    // In the order in which they end: the file is closed before the directory is free for others.
    log: Arc<EmbeddedLog>,
    _data: DataDirectory,
}

impl IdleLog {
    /// Opens the log in `directory`, which must hold one: else an empty one is made.
    ///
    /// # Errors
    /// [`Unavailable`](ServeError::Unavailable) when a service uses the directory, or it can't be read and
    /// written: a log that was not well closed is mended first.
    pub fn open(directory: &Path) -> Result<Self, ServeError> {
        let data = DataDirectory::take(directory)?;
        Ok(Self { log: EmbeddedLog::open(directory)?, _data: data })
    }

    /// The log.
    pub fn log(&self) -> &dyn Log {
        &*self.log
    }
}
