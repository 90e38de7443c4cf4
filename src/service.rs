//! The service: a log, the follower that folds it, and the listeners that answer from it, wired together; and
//! in `project` the same for the projector. Without listeners, for programs that look up in their own
//! process, it is a [`FollowedLog`].
//!
//! Threads, clients and clocks live here and in [`log`](crate::log); what they drive is pure.
//!
//! ```text
//!   main ──────────► waits for SIGINT, SIGTERM, or the end of the follower
//!     start          starts the listeners, opens the log, starts the follower, ends
//!     follower       folds, publishes, tells the time              ─┐ events, bounded
//!       reader       one for each open reader of the log           ─┤
//!       questions    one for the client that answers questions     ─┘
//!     commands-writer or -producer, lookup-…, admin-…   started by the log and by http
//! ```
//!
//! It ends from the outside in, so that nothing acknowledged is lost and running requests get their answers:
//!
//! 1. The listeners close, and running requests have [`DRAIN_MAX`] to finish. A write that waits for
//!    its commit, or for its effect, still has the log and the follower below it.
//! 2. The follower's thread ends. Its readers notice by themselves within a moment.
//! 3. The log writes what still waits, and an embedded one closes its file, so that the next start need not
//!    look through it.
//!
//! A follower that panics ends the process with an error: a supervisor can start it anew, which is better
//! than serving a list that no longer changes.

mod data;
mod followed;
mod following;
mod idle;
mod opening;
mod port;
mod project;
mod projecting;
mod rebuild;
mod undecodable;

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{info, warn};

pub use self::followed::FollowedLog;
use self::followed::Prepared;
pub use self::idle::IdleLog;
pub use self::project::{STOP_MAX, project};
pub use self::rebuild::{RebuildError, Rebuilt, rebuild};
use crate::config::Config;
use crate::http::guard::Token;
use crate::http::settings::Listen;
use crate::http::{Server, StartError};
use crate::log::embedded::OpenError;
use crate::priority::give_way;

/// How long running requests may take to finish once the service is told to end. Short, because whoever stops
/// a service waits for it, and a write that is cut off can be repeated safely.
pub const DRAIN_MAX: Duration = Duration::from_millis(1_500);

/// Why the service can't run. The two differ in who can help: the first needs another configuration, the
/// second may go well another time.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration asks for what can't be.
    #[error("{0}")]
    Configuration(String),
    /// Something that it needs is not to be had.
    #[error("{0}")]
    Unavailable(String),
}

impl From<OpenError> for ServeError {
    fn from(error: OpenError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<StartError> for ServeError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Configuration(message) => Self::Configuration(message),
            error => Self::Unavailable(error.to_string()),
        }
    }
}

/// Runs the service on the embedded log in `directory` until SIGINT or SIGTERM, then lets running requests
/// finish. The admin socket is put into `sockets`, which must exist unless it is `directory`.
///
/// Blocks the calling thread for the whole life of the service. To be called once, by a process that has no
/// other use for these two signals.
///
/// # Errors
/// [`Configuration`](ServeError::Configuration) when the configuration can't be served;
/// [`Unavailable`](ServeError::Unavailable) when the data directory is taken or unusable, a port is taken, a
/// thread can't be had, or the follower panicked.
pub fn run(config: Config, directory: &Path, sockets: &Path) -> Result<(), ServeError> {
    raise_descriptor_limit();
    // Before anything else, because opening a large log takes a while, and a signal that arrives meanwhile
    // must end us too.
    let mut signals = EndSignals::new()?;
    let mut service = match signals.or(start(config, directory, sockets)?) {
        First::Signal(signal) => {
            info!(signal, "ending before it served");
            return Ok(());
        }
        First::Other(started) => started.unwrap_or_else(|_| Err(panicked("the start")))?,
    };
    let end = signals.or(service.followed.ended());
    if let First::Signal(signal) = end {
        info!(signal, "ending");
    }
    service.stop();
    match end {
        First::Signal(_) => Ok(()),
        // Rather than serving a list that no longer changes.
        First::Other(()) => Err(panicked("the follower")),
    }
}

/// Starts the service on a thread of its own.
/// A signal may come before it is done, and then nobody waits for its outcome any more: what is durable stays
/// so without being closed.
fn start(
    config: Config,
    directory: &Path,
    sockets: &Path,
) -> Result<oneshot::Receiver<Result<Service, ServeError>>, ServeError> {
    let (started, outcome) = oneshot::channel();
    let (directory, sockets) = (directory.to_owned(), sockets.to_owned());
    let start = move || drop(started.send(Service::start(&config, &directory, &sockets)));
    let thread = thread::Builder::new().name("start".to_owned()).spawn(start);
    thread.map_err(|error| no_thread("to start on", &error))?;
    Ok(outcome)
}

/// A thread, or what it waits with, is not to be had.
fn no_thread(purpose: &str, error: &io::Error) -> ServeError {
    ServeError::Unavailable(format!("no thread {purpose}: {error}"))
}

/// A thread of ours panicked. The panic itself was printed as it happened.
fn panicked(what: &str) -> ServeError {
    ServeError::Unavailable(format!("{what} panicked, which is a bug; what it said stands above"))
}

/// Everything that runs. The fields stand in the order in which they end.
struct Service {
    server: Server,
    followed: FollowedLog,
}

impl Service {
    /// The listeners first: opening a large log after a crash takes seconds, in which whoever asks is told
    /// that there is nothing to answer from yet, instead of being refused. An error undoes what was started.
    fn start(config: &Config, directory: &Path, sockets: &Path) -> Result<Self, ServeError> {
        let prepared = Prepared::new(config, directory)?;
        // Behind the lock, which keeps two processes from making two tokens.
        let token = Token::load_or_create(directory).map_err(|error| {
            ServeError::Unavailable(format!("no token in {}: {error}", directory.display()))
        })?;
        let app = prepared.app(token);
        let server = Server::start(app, &config.lookup, &config.admin, &config.http, sockets)?;
        announce(&server, directory);
        warn_if_all_cores_spin(config);
        // The lookup workers run already; what this thread starts from now on is the write side.
        if let Err(error) = give_way() {
            warn!(%error, "the threads that write do not give way to those that look up");
        }
        match prepared.follow() {
            Ok(followed) => Ok(Self { server, followed }),
            Err(error) => {
                server.shutdown(Duration::ZERO);
                Err(error)
            }
        }
    }

    /// Ends in the order in which nothing acknowledged can be lost: first nobody can write any more, then
    /// nothing follows, then the log is closed.
    fn stop(self) {
        self.server.shutdown(DRAIN_MAX);
        drop(self.followed);
    }
}

/// Workers that never sleep must leave a core to those who write.
fn warn_if_all_cores_spin(config: &Config) {
    let (workers, cores) = (config.lookup.workers, thread::available_parallelism().map_or(1, usize::from));
    if config.lookup.spin && workers >= cores {
        warn!(workers, cores, "`[lookup] spin` takes every core: writes and starts will be slow");
    }
}

/// Tells where it listens, for people and for those who start it with port 0.
fn announce(server: &Server, directory: &Path) {
    let (lookup, admin) = (places(server.lookup()), places(server.admin()));
    info!(lookup, admin, data = %directory.display(), "serving");
}

fn places(listen: &[Listen]) -> String {
    listen.iter().map(Listen::to_string).collect::<Vec<_>>().join(", ")
}

/// SIGINT and SIGTERM, with a runtime to wait for them on the main thread.
struct EndSignals {
    runtime: tokio::runtime::Runtime,
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl EndSignals {
    /// From now on neither signal ends the process by itself.
    fn new() -> Result<Self, ServeError> {
        let unavailable = |error: io::Error| ServeError::Unavailable(format!("no signal handling: {error}"));
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unavailable)?;
        let context = runtime.enter();
        let interrupt = signal(SignalKind::interrupt()).map_err(unavailable)?;
        let terminate = signal(SignalKind::terminate()).map_err(unavailable)?;
        drop(context);
        Ok(Self { runtime, interrupt, terminate })
    }

    /// Waits for one of them, or for something else.
    fn or<T>(&mut self, other: impl Future<Output = T>) -> First<T> {
        self.runtime.block_on(async {
            tokio::select! {
                _ = self.interrupt.recv() => First::Signal("SIGINT"),
                _ = self.terminate.recv() => First::Signal("SIGTERM"),
                other = other => First::Other(other),
            }
        })
    }
}

/// What came first.
enum First<T> {
    /// A signal to end, by its name.
    Signal(&'static str),
    Other(T),
}

/// Raises the soft limit of open files to the hard one: every connection needs one. The usual soft limit
/// is far below what the listeners hold. A refusal is no reason not to serve.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| match soft < hard {
        true => setrlimit(Resource::RLIMIT_NOFILE, hard, hard),
        false => Ok(()),
    });
    if let Err(error) = raised {
        warn!(%error, "the limit of open files stays as it is");
    }
}
