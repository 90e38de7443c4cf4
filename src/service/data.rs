//! The data directory: one process at a time, and nobody else looks into it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::ServeError;
use crate::log::embedded::OpenError;

/// The file whose lock says that the directory is in use. It stays behind, empty; only its lock counts, which
/// ends with the process, however that ends.
const LOCK_FILE: &str = "lock";

/// The right to use a data directory, for as long as it is held.
///
/// Taken before anything is read, bound or made in the directory, so that a second process is told what is
/// wrong before it gets in the way of the first.
#[derive(Debug)]
pub(super) struct DataDirectory {
    _locked: File,
}

impl DataDirectory {
    /// Makes the directory if there is none, and takes it.
    ///
    /// # Errors
    /// When another process has it, or it can't be made or written.
    pub(super) fn take(path: &Path) -> Result<Self, ServeError> {
        let unusable = |error: io::Error| {
            ServeError::Unavailable(format!("can't write in the data directory {}: {error}", path.display()))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK_FILE));
        let lock = lock.map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _locked: lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { directory: path.to_owned() }.into()),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }
}
