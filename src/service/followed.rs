//! A log that is followed in this process: opened, folded and published.
//!
//! The service puts listeners in front of it; another program that needs none starts it by itself.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::ServeError;
use super::data::DataDirectory;
use super::following::Following;
use super::opening::{OpenLog, Opening, source};
use crate::config::Config;
use crate::follower::{Follower, Settings};
use crate::http::App;
use crate::http::guard::Token;
use crate::log::CommandSink;
use crate::record::Position;
use crate::served::Served;
use crate::snapshot::{Publisher, Reader, Readers};
use crate::status::Status;

/// How often [`FollowedLog::wait_for`] looks. A command is published within a few milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A sidecar without listeners, for a program that looks up in its own process: the log of a configuration,
/// the thread that follows it, and readers of the snapshots which that thread publishes.
///
/// ```text
///   sink ──commands──► log ──records──► follower's thread ──snapshots──► readers
/// ```
///
/// Dropping it ends it in good order and waits for that: nothing follows any more, then the log is closed,
/// then the data directory is free for others. Readers outlive it, with the last snapshot.
///
/// A follower that panics, which would be a bug, shows in [`status`](Self::status): its age grows.
///
/// `examples/embed.rs` is a program that uses it.
pub struct FollowedLog {
    readers: Readers,
    status: Arc<Status>,
    // From here on the fields stand in the order in which they end.
    following: Following,
    log: OpenLog,
    _data: DataDirectory,
}

impl FollowedLog {
    /// Opens the log that the configuration's `[log]` names, the embedded one in `directory`, and starts to
    /// follow it. Nothing else of the configuration counts. Makes the directory where there is none.
    ///
    /// Blocks while the log is opened, but not until it is folded: see [`wait_for`](Self::wait_for).
    ///
    /// # Errors
    /// [`Configuration`](ServeError::Configuration) when there can't be such a log;
    /// [`Unavailable`](ServeError::Unavailable) when the data directory is taken or unusable, or a thread
    /// can't be had. A broker that can't be reached is none: it is waited for.
    pub fn start(config: &Config, directory: &Path) -> Result<Self, ServeError> {
        Prepared::new(config, directory)?.follow()
    }

    /// A reader of the newest snapshot: one for each thread that looks up.
    pub fn reader(&self) -> Reader {
        self.readers.reader()
    }

    /// What the follower says of itself.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Takes commands into the log. They are durable when it says so, and visible to readers once
    /// [`wait_for`](Self::wait_for) has seen the position after them.
    pub fn sink(&self) -> &dyn CommandSink {
        &*self.log.sink
    }

    /// Blocks until lookups know everything before the position, but no longer than this; says whether they
    /// do. [`Position::START`] is known from the first snapshot on, which holds all that was in the log.
    pub fn wait_for(&self, position: Position, wait_max: Duration) -> bool {
        let (begun, mut reader) = (Instant::now(), self.reader());
        loop {
            if reader.snapshot().is_some_and(|snapshot| snapshot.position() >= position) {
                return true;
            }
            if begun.elapsed() >= wait_max {
                return false;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends when the follower does, which by itself it never should.
    pub(super) async fn ended(&mut self) {
        self.following.ended().await;
    }
}

/// All of a [`FollowedLog`] that is there before its log is open, which may take seconds. Holds the data
/// directory already.
pub(super) struct Prepared<'a> {
    config: &'a Config,
    directory: &'a Path,
    data: DataDirectory,
    follower: Follower,
    served: Arc<Served>,
    status: Arc<Status>,
    publisher: Publisher,
    readers: Readers,
    position: watch::Sender<Position>,
    opening: Arc<Opening>,
}

impl<'a> Prepared<'a> {
    /// Takes the data directory.
    pub(super) fn new(config: &'a Config, directory: &'a Path) -> Result<Self, ServeError> {
        let (data, now) = (DataDirectory::take(directory)?, Instant::now());
        let settings = Settings {
            source: source(config)?,
            skip_offsets: config.log.skip_offsets.iter().copied().collect(),
            // Another one at each start, so that sidecars that fail together do not come back together.
            seed: fastrand::u64(..),
        };
        let (served, status) = (Arc::new(Served::default()), Arc::new(Status::new(now)));
        let follower = Follower::new(settings, Arc::clone(&served), Arc::clone(&status), now);
        let (publisher, readers) = Publisher::new();
        let (position, opening) = (watch::Sender::new(Position::START), Arc::default());
        Ok(Self { config, directory, data, follower, served, status, publisher, readers, position, opening })
    }

    /// What listeners answer from, now and once the log is followed.
    pub(super) fn app(&self, token: Token) -> App {
        App {
            readers: self.readers.clone(),
            status: Arc::clone(&self.status),
            served: Arc::clone(&self.served),
            sink: Arc::clone(&self.opening) as _,
            log: Arc::clone(&self.opening) as _,
            published: self.position.subscribe(),
            token,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Opens the log and follows it.
    pub(super) fn follow(self) -> Result<FollowedLog, ServeError> {
        let log = OpenLog::open(self.config, self.directory)?;
        self.opening.opened(&log);
        let (followed, status) = (Arc::clone(&log.log), Arc::clone(&self.status));
        let following = Following::start(self.follower, followed, self.publisher, self.position, status)?;
        Ok(FollowedLog { readers: self.readers, status: self.status, following, log, _data: self.data })
    }
}
